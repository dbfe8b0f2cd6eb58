//! `tributary init`: a first config that `check` passes, and nothing overwritten.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value as Json;

fn run(config: &Path, arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tributary"));
    command.arg("--config").arg(config).args(arguments);
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap(),
        text(output.stdout),
        text(output.stderr),
    )
}

const ACME: [&str; 5] = [
    "init",
    "--org",
    "https://acme.my.salesforce.com",
    "--client-id",
    "3MVG9",
];

#[test]
fn a_first_config_passes_check_and_the_next_commands_are_told() {
    let home = tempfile::tempdir().unwrap();
    let config = home.path().join("sync");
    let (code, out, err) = run(&config, &ACME);
    assert_eq!(code, 0, "{out}{err}");
    let commands: Vec<&str> = out
        .lines()
        .skip_while(|line| *line != "next:")
        .skip(1)
        .collect();
    assert_eq!(commands.len(), 3, "{out}");
    assert_eq!(commands[0], "  export ACME_SECRET=…");
    assert!(
        commands[1].contains("tributary check --live acme --config"),
        "{out}"
    );
    assert!(commands[2].contains("tributary serve --config"), "{out}");
    let (code, out, err) = run(&config, &["check"]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("the config is right: 1 connections"), "{out}");
    assert!(out.contains("company_sync"), "{out}");
    // A second org is added, and what is there stays.
    let (code, out, _) = run(
        &config,
        &[
            "init",
            "--json",
            "--kind",
            "dynamics",
            "--org",
            "https://contoso.crm.dynamics.com",
            "--client-id",
            "0000",
            "--jobs",
            "user_sync,company_sync",
        ],
    );
    assert_eq!(code, 0, "{out}");
    let told: Json = serde_json::from_str(&out).unwrap();
    assert_eq!(told["files"][1]["new"], false);
    let (code, out, _) = run(&config, &["check"]);
    assert_eq!(code, 0, "{out}");
    assert!(out.contains("2 connections"), "{out}");
}

#[test]
fn nothing_is_overwritten_and_nothing_wrong_is_left() {
    let home = tempfile::tempdir().unwrap();
    let (code, _, _) = run(home.path(), &ACME);
    assert_eq!(code, 0);
    let file = home.path().join("connections/acme.toml");
    std::fs::write(&file, "# mine\n").unwrap();
    let (code, _, err) = run(home.path(), &ACME);
    assert_eq!(code, 2);
    assert!(err.contains("not overwritten"), "{err}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "# mine\n");

    let empty = tempfile::tempdir().unwrap();
    let browser = [
        "init",
        "--org",
        "https://acme.lightning.force.com",
        "--client-id",
        "3MVG9",
    ];
    let (code, _, err) = run(empty.path(), &browser);
    assert_eq!(code, 2);
    assert!(err.contains("acme.my.salesforce.com"), "{err}");
    assert!(!empty.path().join("tributary.toml").exists());
    let (code, _, err) = run(empty.path(), &["init", "--client-id", "3MVG9"]);
    assert_eq!(code, 2);
    assert!(err.contains("--org"), "{err}");
}

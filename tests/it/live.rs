//! `check --live` and `auth` as an operator meets them, against the simulated orgs.

mod dynamics;
mod polled;
mod salesforce;
mod stands;

use std::path::Path;

use serde_json::Value as Json;
use tokio::process::Command;
use tributary::app::live::{Looked, look};
use tributary::app::load;

const SECRET: &str = "simulated-secret";

/// Exit code, standard output and standard error of the binary.
async fn run(config: &Path, arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tributary"));
    command.arg("--config").arg(config).args(arguments);
    let output = command.env("ACME_SECRET", SECRET).output().await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap(),
        text(output.stdout),
        text(output.stderr),
    )
}

/// What the JSON form says.
async fn run_json(config: &Path, arguments: &[&str]) -> (i32, Json) {
    let mut all = arguments.to_vec();
    all.push("--json");
    let (code, out, _) = run(config, &all).await;
    (code, serde_json::from_str(&out).unwrap())
}

/// Looks at everything that the config at `path` names.
async fn looked(path: &Path) -> Looked {
    look(&load(path).unwrap(), None).await.unwrap()
}

/// What a connection was told, its objects' findings included: severity, then what and remedy.
fn told(looked: &Looked, connection: &str) -> Vec<String> {
    let json = serde_json::to_value(looked).unwrap();
    let connections = json["connections"].as_array().unwrap();
    let look = connections
        .iter()
        .find(|look| look["connection"] == connection)
        .unwrap();
    let mut all = vec![&look["findings"], &look["survey"]["findings"]];
    let objects = look["survey"]["objects"].as_array();
    all.extend(
        objects
            .into_iter()
            .flatten()
            .map(|object| &object["findings"]),
    );
    let findings = all.into_iter().filter_map(Json::as_array).flatten();
    let line = |finding: &Json| {
        let text = |name: &str| finding[name].as_str().unwrap_or_default().to_owned();
        format!(
            "{}: {} → {}",
            text("severity"),
            text("what"),
            text("remedy")
        )
    };
    findings.map(line).collect()
}

/// The one finding that contains `text`.
fn one<'a>(findings: &'a [String], text: &str) -> &'a str {
    let mut found = findings.iter().filter(|finding| finding.contains(text));
    let first = found
        .next()
        .unwrap_or_else(|| panic!("no {text}: {findings:#?}"));
    assert!(found.next().is_none(), "{text} twice: {findings:#?}");
    first
}

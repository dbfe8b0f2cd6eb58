//! Holds the walls of ARCHITECTURE.md: floors, foreign types, pure modules, one `//!` sentence and 600 lines a file.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The floor of each module of `src/`; imports go down only, never sideways between two modules.
const FLOORS: &[(&str, u32)] = &[
    ("main", 11),
    ("cli", 10),
    ("app", 9),
    ("admin", 8),
    ("control", 7),
    ("flow", 6),
    ("metadata", 5),
    ("crm", 4),
    ("notify", 4),
    ("target", 4),
    ("budget", 3),
    ("log", 3),
    ("http", 3),
    ("state", 3),
    ("image", 3),
    ("mapping", 3),
    ("schedule", 3),
    ("config", 2),
    ("runtime", 2),
    ("sqlite", 2),
    ("postgres", 2),
    ("tls", 2),
    ("model", 1),
    ("telemetry", 1),
    ("fault", 0),
    ("secret", 0),
];

/// Foreign crates that stay in the modules that exist for them.
const HOMES: &[(&str, &[&str])] = &[
    ("rusqlite", &["sqlite", "log", "state", "image", "target"]),
    ("reqwest", &["http", "crm"]),
    ("axum", &["admin"]),
    ("clap", &["cli", "main"]),
    ("governor", &["budget"]),
    ("lettre", &["notify"]),
    ("indicatif", &["cli"]),
    ("toml", &["config"]),
    ("rustls", &["tls", "postgres"]),
    ("tokio_postgres", &["postgres", "target", "state"]),
    (
        "metrics_exporter_prometheus",
        &["telemetry", "app", "admin"],
    ),
    ("rdkafka", &["log"]),
    ("fe2o3_amqp", &["crm"]),
    ("fe2o3_amqp_ws", &["crm"]),
    ("tributary_sim", &["cli", "app"]),
];

/// Modules that may not wait, look at a clock or touch the outside.
const PURE: &[&str] = &["model", "mapping", "schedule"];

const BANNED_NAMES: &[&str] = &[
    "utils", "util", "common", "helpers", "misc", "types", "core", "base", "prelude",
];
const MAX_LINES: usize = 600;

struct Source {
    path: PathBuf,
    module: String,
    text: String,
}

fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources() -> Vec<Source> {
    let src = root().join("src");
    let mut paths = Vec::new();
    files(&src, &mut paths);
    assert!(
        paths.len() > 10,
        "found only {} files: the walls would hold nothing",
        paths.len()
    );
    paths
        .into_iter()
        .map(|path| {
            let relative = path.strip_prefix(&src).unwrap();
            let first = relative
                .components()
                .next()
                .unwrap()
                .as_os_str()
                .to_string_lossy();
            Source {
                module: first.trim_end_matches(".rs").to_owned(),
                text: fs::read_to_string(&path).unwrap(),
                path,
            }
        })
        .collect()
}

/// The production part: unit tests at a file's end may use what they like.
fn production(source: &Source) -> &str {
    let is_test_file = source.path.components().any(|part| {
        matches!(
            part.as_os_str().to_str(),
            Some("tests.rs" | "tests" | "suite.rs" | "suite")
        )
    });
    if is_test_file {
        return "";
    }
    source.text.split("#[cfg(test)]").next().unwrap_or_default()
}

/// Every `crate::a::b` and `use crate::{a, b}` of a line of code, comments left out.
fn imported_modules(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in text
        .lines()
        .map(str::trim)
        .filter(|line| !line.starts_with("//"))
    {
        for rest in line.split("crate::").skip(1) {
            let names = rest.strip_prefix('{').map_or_else(
                || vec![rest],
                |inner| inner.trim_end_matches(['}', ';']).split(',').collect(),
            );
            for name in names {
                let module: String = name
                    .trim()
                    .chars()
                    .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
                    .collect();
                found.push(module);
            }
        }
    }
    found
}

#[test]
fn imports_go_down_only() {
    let floors: BTreeMap<_, _> = FLOORS.iter().copied().collect();
    let mut broken = Vec::new();
    for source in sources() {
        if source.module == "lib" {
            continue;
        }
        let Some(floor) = floors.get(source.module.as_str()) else {
            broken.push(format!(
                "{}: module `{}` has no floor",
                source.path.display(),
                source.module
            ));
            continue;
        };
        for module in imported_modules(production(&source)) {
            let Some(other) = floors.get(module.as_str()) else {
                continue;
            };
            if module != source.module && other >= floor {
                broken.push(format!(
                    "{}: `{}` (floor {floor}) imports `{module}` (floor {other})",
                    source.path.display(),
                    source.module
                ));
            }
        }
    }
    assert!(
        broken.is_empty(),
        "imports that go up or sideways:\n{}",
        broken.join("\n")
    );
}

#[test]
fn siblings_do_not_know_each_other() {
    let mut broken = Vec::new();
    for source in sources() {
        for (port, shared) in [
            ("crm", &["port", "budget", "registry"][..]),
            ("target", &["port", "beside", "registry", "memory"]),
        ] {
            let relative = source
                .path
                .strip_prefix(root().join("src"))
                .unwrap()
                .to_string_lossy()
                .into_owned();
            let Some(own) = relative.strip_prefix(&format!("{port}/")) else {
                continue;
            };
            let own = own.split(['/', '.']).next().unwrap_or_default().to_owned();
            for rest in production(&source)
                .split(&format!("crate::{port}::"))
                .skip(1)
            {
                let other: String = rest
                    .chars()
                    .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
                    .collect();
                if other != own
                    && own != "registry"
                    && own != "mod"
                    && !shared.contains(&other.as_str())
                {
                    broken.push(format!("{relative}: `{own}` imports its sibling `{other}`"));
                }
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn foreign_types_stay_home() {
    let mut broken = Vec::new();
    for source in sources() {
        for (foreign, homes) in HOMES {
            let used = production(&source)
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"))
                .any(|line| line.contains(&format!("{foreign}::")));
            if used && !homes.contains(&source.module.as_str()) {
                broken.push(format!(
                    "{}: uses `{foreign}`, at home in {homes:?}",
                    source.path.display()
                ));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn one_file_only_breaks() {
    let mut paths = Vec::new();
    for dir in ["src", "sim", "tests", "benches"] {
        files(&root().join(dir), &mut paths);
    }
    // Put together here, so that this file does not hold the words.
    let allowed = ["allow", "(unsafe", "_code)"].concat();
    let word = ["unsafe", " "].concat();
    let mut found = Vec::new();
    for path in paths {
        let text = fs::read_to_string(&path).unwrap();
        let is_code = |line: &&str| !line.trim_start().starts_with("//");
        let breaks = |line: &str| line.contains(&allowed) || line.contains(&word);
        if text.lines().filter(is_code).any(breaks) {
            let relative = path.strip_prefix(root()).unwrap();
            found.push(relative.to_string_lossy().into_owned());
        }
    }
    assert_eq!(found, ["src/log/kafka/topic_id.rs"]);
}

#[test]
fn pure_modules_are_pure() {
    let forbidden = [
        "async fn",
        ".await",
        "Utc::now",
        "SystemTime",
        "Instant::now",
        "std::fs",
        "std::net",
        "tokio::",
        "std::env",
    ];
    let mut broken = Vec::new();
    for source in sources()
        .iter()
        .filter(|source| PURE.contains(&source.module.as_str()))
    {
        for word in forbidden {
            if production(source).contains(word) {
                broken.push(format!(
                    "{}: `{word}` in a pure module",
                    source.path.display()
                ));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn every_file_opens_with_a_sentence_and_fits() {
    let mut paths = Vec::new();
    for dir in ["src", "sim", "tests", "benches"] {
        files(&root().join(dir), &mut paths);
    }
    let mut broken = Vec::new();
    for path in paths {
        let text = fs::read_to_string(&path).unwrap();
        if text.starts_with("// This file is @generated") {
            continue;
        }
        if !text.starts_with("//! ") {
            broken.push(format!(
                "{}: does not open with a `//!` sentence",
                path.display()
            ));
        }
        let lines = text.lines().count();
        if lines > MAX_LINES {
            broken.push(format!(
                "{}: {lines} lines, {MAX_LINES} is the limit",
                path.display()
            ));
        }
        let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
        if BANNED_NAMES.contains(&stem.as_str()) {
            broken.push(format!("{}: `{stem}` names nothing", path.display()));
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn the_simulators_know_nothing_of_the_connectors() {
    let manifest = fs::read_to_string(root().join("sim/Cargo.toml")).unwrap();
    assert!(
        !manifest.contains("tributary ="),
        "sim/ must not depend on the package it judges"
    );
}

//! What commands print: tables for people, JSON for programs, faults with their remedy.

use std::io::Write;

use crate::fault::Fault;

/// Prints a line to standard error.
pub(super) fn complain(line: &str) {
    // Nobody is left to tell when standard error is closed.
    writeln!(std::io::stderr().lock(), "tributary: {line}").ok();
}

/// Prints a fault.
pub(super) fn fault(fault: &Fault, json: bool) {
    if json {
        let body = serde_json::json!({
            "error": fault.report(), "kind": fault.kind().label(), "remedy": fault.remedy_text(),
        });
        print(&body.to_string());
    } else {
        complain(&fault.report());
    }
}

/// Prints to standard output; a reader that went away ends nothing.
pub(super) fn print(text: &str) {
    writeln!(std::io::stdout().lock(), "{text}").ok();
}

/// Prints a value as JSON.
pub(super) fn json(value: &impl serde::Serialize) {
    match serde_json::to_string(value) {
        Ok(text) => print(&text),
        Err(error) => complain(&format!("writing JSON: {error}")),
    }
}

/// A value as a table's cell.
pub(super) fn shown(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::Null => "–".to_owned(),
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Prints a table: heads, then rows, columns as wide as their widest cell up to a limit.
pub(super) fn table(heads: &[&str], rows: &[Vec<String>]) {
    const WIDEST: usize = 44;
    let cut = |text: &str| -> String {
        let line = text.replace(['\n', '\r'], " ");
        if line.chars().count() <= WIDEST {
            return line;
        }
        line.chars().take(WIDEST - 1).chain(['…']).collect()
    };
    let mut lines: Vec<Vec<String>> = vec![heads.iter().map(|head| (*head).to_owned()).collect()];
    lines.extend(
        rows.iter()
            .map(|row| row.iter().map(|cell| cut(cell)).collect()),
    );
    let widths: Vec<usize> = (0..heads.len())
        .map(|column| {
            let cells = lines.iter().filter_map(|line| line.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
        .collect();
    for line in lines {
        let cells = line.iter().zip(&widths).map(|(cell, width)| {
            let pad = width.saturating_sub(cell.chars().count());
            format!("{cell}{}", " ".repeat(pad))
        });
        print(cells.collect::<Vec<_>>().join("  ").trim_end());
    }
}

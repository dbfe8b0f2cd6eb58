//! What `tributary oob` shows: the catalogue's jobs and a connection's, each as the text of a file.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use crate::config::document::{Node, Report, Shape, Table};
use crate::config::problem::{BUILT_IN, Problems};
use crate::config::{self, files};

use super::{Catalogue, CrmKind, Template, wish};

/// A job of the catalogue, as it is or as a connection has it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ListedJob {
    /// The id.
    pub id: String,
    /// `name`.
    pub name: String,
    /// `source`.
    pub source: String,
    /// The labels of its destinations.
    pub to: Vec<String>,
    /// `depends_on`.
    pub depends_on: Vec<String>,
    /// What the connection's `oob` has to say for it, if anything.
    pub condition: Option<String>,
    /// Where its table can't be taken literally, and what is shipped.
    pub notes: Vec<String>,
    /// Whether the connection has it, and whether a file of the config changes it.
    pub state: JobState,
    /// The job's table.
    pub job: serde_json::Value,
    /// The same as a file would have it, with its tests.
    pub toml: String,
}

/// What a connection has of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// As the catalogue has it.
    Standard,
    /// A file of the config is laid over it, or replaces it.
    Changed,
    /// The connection does not have it.
    Absent,
}

/// The newest catalogue of a kind of CRM, placeholders unfilled.
#[must_use]
pub fn catalogue(kind: CrmKind) -> Vec<ListedJob> {
    let catalogue = Catalogue::newest(kind, &Report::default());
    let jobs = catalogue
        .map(|catalogue| catalogue.jobs)
        .unwrap_or_default();
    jobs.iter()
        .map(|job| listed(job, &job.node, JobState::Standard))
        .collect()
}

/// The catalogue's jobs as a connection of the config at `path` has them; `None` if there is no such connection or its
/// kind has no catalogue.
///
/// # Errors
/// Every mistake of the files, of the connection's `oob` and of what changes a job; others are `check`'s to tell.
pub fn of_connection(
    path: &Path,
    environment: &BTreeMap<String, String>,
    connection: &str,
) -> Result<Option<Vec<ListedJob>>, Problems> {
    let report = Report::default();
    let listed = files::gather(path, &report).and_then(|mut found| {
        config::assemble(&mut found.tree, environment, &report);
        read(&found.tree, connection)
    });
    let (problems, _) = report.into_parts();
    if problems.is_empty() {
        Ok(listed)
    } else {
        Err(Problems::new(problems))
    }
}

fn read(tree: &Node, id: &str) -> Option<Vec<ListedJob>> {
    let connection = tree.at(&["connection", id])?;
    let kind = CrmKind::of(connection)?;
    // Its mistakes are told already.
    let report = Report::default();
    let pinned = wish::read(connection, kind, &report);
    let (catalogue, wish) = match pinned {
        Some((catalogue, wish)) => (catalogue, Some(wish)),
        None => (Catalogue::newest(kind, &report)?, None),
    };
    let jobs = catalogue.jobs.iter().map(|job| {
        let wanted = wish.as_ref().is_some_and(|wish| wish.has(job));
        match tree.at(&["job", id, &job.id]).filter(|_| wanted) {
            None => listed(job, &job.node, JobState::Absent),
            Some(own) if own.spot.file.ends_with(BUILT_IN) => listed(job, own, JobState::Standard),
            Some(own) => listed(job, own, JobState::Changed),
        }
    });
    Some(jobs.collect())
}

fn listed(template: &Template, node: &Node, state: JobState) -> ListedJob {
    let text = |key| match node.at(&[key]).map(|node| &node.shape) {
        Some(Shape::Text(text) | Shape::Given(text)) => text.clone(),
        _ => String::new(),
    };
    let keys = node.at(&["to"]).and_then(Node::table);
    let to = keys.map(|Table(entries)| entries.iter().map(|(label, _)| label.clone()).collect());
    let depends_on = match node.at(&["depends_on"]).map(|node| &node.shape) {
        Some(Shape::List(members)) => members.iter().map(plain).collect(),
        _ => Vec::new(),
    };
    ListedJob {
        id: template.id.clone(),
        name: text("name"),
        source: text("source"),
        to: to.unwrap_or_default(),
        depends_on,
        condition: template.condition.clone(),
        notes: template.notes.clone(),
        state,
        job: json(node),
        toml: toml(&template.notes, node),
    }
}

fn plain(node: &Node) -> String {
    match &node.shape {
        Shape::Text(text) | Shape::Given(text) => text.clone(),
        _ => String::new(),
    }
}

/// A table as a file.
fn toml(notes: &[String], node: &Node) -> String {
    let mut text: String = notes
        .iter()
        .map(|note| format!("# Note: {note}.\n"))
        .collect();
    section(&mut text, "", node);
    text
}

/// Tables that are sections of their own; others stand on their key's line.
const SECTIONS: [&str; 4] = ["to", "map", "derive", "avatar"];

fn section(out: &mut String, path: &str, node: &Node) {
    let Some(Table(entries)) = node.table() else {
        return;
    };
    let is_section = |key: &str, node: &Node| {
        node.table().is_some() && (SECTIONS.contains(&key) || path == "to")
    };
    let tests = |key: &str, node: &Node| {
        path.is_empty() && key == "test" && matches!(node.shape, Shape::List(_))
    };
    let (sections, lines): (Vec<_>, Vec<_>) = entries
        .iter()
        .partition(|(key, node)| is_section(key, node) || tests(key, node));
    let has_header = !path.is_empty() && (path != "to" || !lines.is_empty());
    if has_header {
        if !out.is_empty() {
            out.push('\n');
        }
        out.push_str(&format!("[{path}]\n"));
    }
    let width = lines
        .iter()
        .map(|(name, _)| key(name).chars().count())
        .max();
    for (name, node) in &lines {
        out.push_str(&format!(
            "{:width$} = {}\n",
            key(name),
            inline(node),
            width = width.unwrap_or(0)
        ));
    }
    for (name, node) in sections {
        if tests(name, node) {
            if let Shape::List(nodes) = &node.shape {
                nodes.iter().for_each(|node| test(out, node));
            }
            continue;
        }
        let path = if path.is_empty() {
            key(name)
        } else {
            format!("{path}.{}", key(name))
        };
        section(out, &path, node);
    }
}

fn test(out: &mut String, node: &Node) {
    out.push_str("\n[[test]]\n");
    for (name, node) in node
        .table()
        .map(|Table(entries)| entries)
        .into_iter()
        .flatten()
    {
        out.push_str(&format!("{} = {}\n", key(name), inline(node)));
    }
}

fn inline(node: &Node) -> String {
    match &node.shape {
        Shape::Text(text) => quoted(text),
        Shape::Given(text)
            if matches!(text.as_str(), "true" | "false") || text.parse::<i64>().is_ok() =>
        {
            text.clone()
        }
        Shape::Given(text) => quoted(text),
        Shape::Integer(number) => number.to_string(),
        Shape::Float(text) | Shape::Time(text) => text.clone(),
        Shape::Boolean(value) => value.to_string(),
        Shape::Date(date) => date.to_string(),
        Shape::List(nodes) => {
            let items: Vec<String> = nodes.iter().map(inline).collect();
            format!("[{}]", items.join(", "))
        }
        Shape::Table(Table(entries)) if entries.is_empty() => "{}".to_owned(),
        Shape::Table(Table(entries)) => {
            let items: Vec<String> = entries
                .iter()
                .map(|(name, node)| format!("{} = {}", key(name), inline(node)))
                .collect();
            format!("{{ {} }}", items.join(", "))
        }
        // Such a tree is never shown.
        Shape::Unreadable => "\"\"".to_owned(),
    }
}

fn key(name: &str) -> String {
    let bare = !name.is_empty()
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
    if bare { name.to_owned() } else { quoted(name) }
}

/// A basic string (TOML 1.0, "String").
fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn json(node: &Node) -> serde_json::Value {
    match &node.shape {
        Shape::Text(text) | Shape::Given(text) | Shape::Time(text) => text.as_str().into(),
        Shape::Integer(number) => (*number).into(),
        Shape::Float(text) => serde_json::from_str(text).unwrap_or_else(|_| text.as_str().into()),
        Shape::Boolean(value) => (*value).into(),
        Shape::Date(date) => date.to_string().into(),
        Shape::List(nodes) => nodes.iter().map(json).collect(),
        Shape::Table(Table(entries)) => entries
            .iter()
            .map(|(name, node)| (name.clone(), json(node)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        Shape::Unreadable => serde_json::Value::Null,
    }
}

//! `{connection}` and `{instance}` in jobs, chains and stored objects: filled where the config is put together.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::document::{Node, Report, Shape, Table};

/// The connection's id.
const CONNECTION: &str = "{connection}";
/// The connection's `instance`, as columns spell it.
pub(super) const INSTANCE: &str = "{instance}";

/// Fills the placeholders of every connection's jobs and chains. The instances that columns are named by, for the
/// stored objects, which have such a column for each.
pub(super) fn fill(tree: &mut Node, report: &Report) -> BTreeSet<String> {
    let connections = tree.at(&["connection"]).and_then(Node::table).cloned();
    let mut by_instance: BTreeMap<String, String> = BTreeMap::new();
    for (id, connection) in connections.unwrap_or_default().0 {
        let instance = instance(&id, &connection);
        let mut names_columns = false;
        for section in ["job", "chain"] {
            let Some(node) = tree
                .table_mut()
                .and_then(|table| table.get_mut(section)?.table_mut()?.get_mut(&id))
            else {
                continue;
            };
            names_columns |= node.has_key_with(INSTANCE);
            node.replace(CONNECTION, &id);
            node.replace(INSTANCE, &instance);
        }
        let resolution = tree
            .table_mut()
            .and_then(|table| table.get_mut("connection")?.table_mut()?.get_mut(&id))
            .and_then(|node| node.table_mut()?.get_mut("company_resolution"));
        if let Some(node) = resolution {
            names_columns |= node.has_key_with(INSTANCE);
            node.replace(INSTANCE, &instance);
        }
        if !names_columns {
            continue;
        }
        if let Some(other) = by_instance.insert(instance.clone(), id.clone()) {
            report.wrong(
                &connection.spot,
                format!("connection `{other}` has the instance `{instance}` too: two orgs would share their columns"),
                "write another instance = \"…\" in one of the two",
            );
        }
    }
    by_instance.into_keys().collect()
}

/// `instance`, else the first label of the org's host, else the connection's id.
fn instance(id: &str, connection: &Node) -> String {
    let text = |key| match connection.at(&[key]).map(|node| &node.shape) {
        Some(Shape::Text(text) | Shape::Given(text)) => Some(text.as_str()),
        _ => None,
    };
    let host = || {
        let (_, rest) = text("org")?.split_once("://")?;
        let host = rest.split(['/', ':']).next()?;
        host.split('.').next().filter(|label| !label.is_empty())
    };
    let name = text("instance").or_else(host).unwrap_or(id);
    name.chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_lowercase()
            } else {
                '_'
            }
        })
        .collect()
}

impl Node {
    /// Whether a key, here or below, has this in it.
    fn has_key_with(&self, placeholder: &str) -> bool {
        match &self.shape {
            Shape::Table(Table(entries)) => entries
                .iter()
                .any(|(key, node)| key.contains(placeholder) || node.has_key_with(placeholder)),
            Shape::List(nodes) => nodes.iter().any(|node| node.has_key_with(placeholder)),
            _ => false,
        }
    }

    /// Replaces it in keys and texts, here and below.
    pub(super) fn replace(&mut self, placeholder: &str, by: &str) {
        match &mut self.shape {
            Shape::Table(Table(entries)) => {
                for (key, node) in entries {
                    if key.contains(placeholder) {
                        *key = key.replace(placeholder, by);
                    }
                    node.replace(placeholder, by);
                }
            }
            Shape::List(nodes) => {
                for node in nodes {
                    node.replace(placeholder, by);
                }
            }
            Shape::Text(text) if text.contains(placeholder) => {
                *text = text.replace(placeholder, by)
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::document::parse;

    #[test]
    fn an_instance_is_a_columns_part() {
        for (text, expected) in [
            ("instance = \"Gainsight123.crm\"", "gainsight123_crm"),
            (
                "org = \"https://contoso-eu.crm4.dynamics.com\"",
                "contoso_eu",
            ),
            ("org = \"http://127.0.0.1:8077\"", "127"),
            ("org = \"production\"", "acme"),
            ("", "acme"),
        ] {
            let report = Report::default();
            let node = parse("x.toml", text, &report);
            assert_eq!(instance("acme", &node), expected, "{text}");
        }
    }

    #[test]
    fn two_orgs_never_share_an_instance_column() {
        let report = Report::default();
        let job = "s = { \"id_{instance}\" = \"{connection} {instance}\" }";
        let text = format!(
            "[connection.a]\ninstance = \"x\"\n[connection.b]\ninstance = \"X\"\n[connection.c]\ninstance = \"x\"\n\
             [job.a]\n{job}\n[job.b]\n{job}\n[job.c]\ns = 1\n"
        );
        let mut tree = parse("x.toml", &text, &report);
        assert_eq!(fill(&mut tree, &report), BTreeSet::from(["x".to_owned()]));
        let filled = tree.at(&["job", "a", "s", "id_x"]).map(|node| &node.shape);
        assert!(
            matches!(filled, Some(Shape::Text(text)) if text == "a x"),
            "{filled:?}"
        );
        let problems = report.into_parts().0;
        assert_eq!(problems.len(), 1, "{problems:?}");
    }
}

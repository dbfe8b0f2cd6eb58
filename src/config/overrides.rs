//! `TRIBUTARY__SECTION__KEY`: variables of the environment that stand above the files.

use std::collections::BTreeMap;

use crate::config::document::{Node, Report, Shape, Table, parse_value};
use crate::config::problem::Spot;

const PREFIX: &str = "TRIBUTARY__";
const BETWEEN: &str = "__";
/// Tables whose keys are ids, and how many levels of them: an override changes what an id has, it brings none.
const OF_IDS: [(&str, usize); 5] = [
    ("connection", 1),
    ("object", 1),
    ("notify", 1),
    ("job", 2),
    ("chain", 2),
];

/// Why a variable overrides nothing, and what to do.
struct Refusal(String, String);

/// Puts every `TRIBUTARY__…` variable into the tree. A key that nobody knows is found later, where all unknown
/// keys are; an id that is not there is found here.
pub(super) fn apply(tree: &mut Node, environment: &BTreeMap<String, String>, report: &Report) {
    for (name, text) in environment {
        let Some(rest) = name.strip_prefix(PREFIX) else {
            continue;
        };
        let spot = Spot {
            key: name.clone(),
            ..Spot::whole("environment")
        };
        if let Err(Refusal(what, remedy)) = set(tree, rest, &spot, text, report) {
            report.wrong(&spot, what, remedy);
        }
    }
}

/// Goes down the tree as far as `path` names, and puts the value there.
fn set(
    tree: &mut Node,
    path: &str,
    spot: &Spot,
    text: &str,
    report: &Report,
) -> Result<(), Refusal> {
    if path != path.to_uppercase() || path.split(BETWEEN).any(str::is_empty) {
        return Err(Refusal(
            "is no name of a setting".to_owned(),
            "write TRIBUTARY__SECTION__KEY, in capitals".to_owned(),
        ));
    }
    let (mut node, mut rest) = (tree, path);
    let mut levels = 0;
    let mut depth = 0;
    loop {
        if node.table().is_none() {
            return below_no_table(node);
        }
        let Shape::Table(Table(entries)) = &mut node.shape else {
            return Ok(());
        };
        let is_id = (1..=levels).contains(&depth);
        let (at, left) = match locate(entries, rest)? {
            Some(found) => found,
            None if is_id => return Err(no_such_id(entries)),
            None => add(entries, rest, spot),
        };
        let Some((key, next)) = entries.get_mut(at) else {
            return Ok(());
        };
        if depth == 0 {
            let section = OF_IDS.iter().find(|(table, _)| table == key);
            levels = section.map_or(0, |(_, levels)| *levels);
        }
        let Some(left) = left else {
            if levels > 0 && depth <= levels {
                return Err(Refusal(
                    "would replace a whole table".to_owned(),
                    "name the key in it that is to change".to_owned(),
                ));
            }
            *next = value(spot, text, report);
            return Ok(());
        };
        (node, rest) = (next, left);
        depth += 1;
    }
}

/// The entry whose key `rest` begins with, and what is left of `rest` after it.
fn locate<'r>(
    entries: &[(String, Node)],
    rest: &'r str,
) -> Result<Option<(usize, Option<&'r str>)>, Refusal> {
    let mut found = None;
    for (at, (key, _)) in entries.iter().enumerate() {
        let left = match rest.strip_prefix(&variable(key)) {
            Some("") => None,
            Some(left) => match left.strip_prefix(BETWEEN) {
                Some(left) => Some(left),
                None => continue,
            },
            None => continue,
        };
        if let Some((other, _)) = found.replace((at, left)) {
            let other: &(String, Node) = &entries[other];
            return Err(Refusal(
                format!("may mean `{}` or `{key}`", other.0),
                "change the file instead, or rename one of them".to_owned(),
            ));
        }
    }
    Ok(found)
}

/// A key that no file has: its reader knows whether it is one.
fn add<'r>(
    entries: &mut Vec<(String, Node)>,
    rest: &'r str,
    spot: &Spot,
) -> (usize, Option<&'r str>) {
    let (key, left) = match rest.split_once(BETWEEN) {
        Some((key, left)) => (key, Some(left)),
        None => (rest, None),
    };
    entries.push((key.to_lowercase(), Node::empty(spot.clone())));
    (entries.len() - 1, left)
}

/// A key as variables spell it.
fn variable(key: &str) -> String {
    key.chars()
        .map(|c| match c.to_ascii_uppercase() {
            letter if letter.is_ascii_alphanumeric() => letter,
            _ => '_',
        })
        .collect()
}

fn no_such_id(entries: &[(String, Node)]) -> Refusal {
    let ids: Vec<String> = entries.iter().map(|(id, _)| variable(id)).collect();
    let remedy = if ids.is_empty() {
        "remove it: no file has such a table".to_owned()
    } else {
        format!("write one of {}", ids.join(", "))
    };
    Refusal("names an id that no file has".to_owned(), remedy)
}

fn below_no_table(node: &Node) -> Result<(), Refusal> {
    match node.shape {
        // Reported already.
        Shape::Unreadable => Ok(()),
        _ => Err(Refusal(
            format!("goes below {}, which is no table", node.spot),
            "name a key that the config's format has".to_owned(),
        )),
    }
}

/// The variable's text; a table or a list if it is TOML for one (`[::1]:8080` is not).
fn value(spot: &Spot, text: &str, report: &Report) -> Node {
    if text.starts_with(['{', '['])
        && let Some(node) = parse_value(spot, text, report)
    {
        return node;
    }
    Node::new(spot.clone(), Shape::Given(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::document::parse;

    const CONFIG: &str = "[admin]\nlisten = \"a\"\n[connection.acme-eu]\norg = \"a\"\n[connection.other]\norg = \"b\"\n\
                          [job.acme-eu.sync]\nsource = \"c\"\n";

    fn applied(name: &str, text: &str) -> (Node, Vec<String>) {
        let report = Report::default();
        let mut tree = parse("x.toml", CONFIG, &report);
        let environment = BTreeMap::from([(name.to_owned(), text.to_owned())]);
        apply(&mut tree, &environment, &report);
        let problems = report.into_parts().0;
        (tree, problems.iter().map(ToString::to_string).collect())
    }

    fn shape(tree: &Node, path: &[&str]) -> String {
        let mut node = tree;
        for key in path {
            node = node.table().unwrap().get(key).unwrap();
        }
        format!("{:?}", node.shape)
    }

    #[test]
    fn replaces_and_adds() {
        for (name, path) in [
            ("TRIBUTARY__ADMIN__LISTEN", vec!["admin", "listen"]),
            ("TRIBUTARY__ADMIN__PUBLIC_URL", vec!["admin", "public_url"]),
            ("TRIBUTARY__LOG__PREFIX", vec!["log", "prefix"]),
            (
                "TRIBUTARY__CONNECTION__ACME_EU__ORG",
                vec!["connection", "acme-eu", "org"],
            ),
            (
                "TRIBUTARY__JOB__ACME_EU__SYNC__ENABLED",
                vec!["job", "acme-eu", "sync", "enabled"],
            ),
        ] {
            let (tree, problems) = applied(name, "new");
            assert!(problems.is_empty(), "{problems:?}");
            assert_eq!(shape(&tree, &path), "Given(\"new\")", "{name}");
        }
    }

    #[test]
    fn lists_and_tables_are_toml() {
        let (tree, _) = applied("TRIBUTARY__ADMIN__LISTEN", "[::1]:8080");
        assert_eq!(shape(&tree, &["admin", "listen"]), "Given(\"[::1]:8080\")");
        let (tree, _) = applied("TRIBUTARY__STORE__PERSON_KEY", "[\"email\"]");
        assert!(shape(&tree, &["store", "person_key"]).starts_with("List"));
    }

    #[test]
    fn what_matches_nothing_is_told() {
        for name in [
            "TRIBUTARY__CONNECTION__ACEM__ORG",
            "TRIBUTARY__CONNECTION__OTHER",
            "TRIBUTARY__CONNECTION",
            "TRIBUTARY__JOB__ACME_EU__OTHER__ENABLED",
            "TRIBUTARY__JOB__ACME_EU",
            "TRIBUTARY__ADMIN__LISTEN__PORT",
            "TRIBUTARY__admin__LISTEN",
            "TRIBUTARY__ADMIN____LISTEN",
            "TRIBUTARY__",
        ] {
            let (_, problems) = applied(name, "secret-looking");
            assert_eq!(problems.len(), 1, "{name}: {problems:?}");
            assert!(problems[0].contains(name));
            assert!(!problems[0].contains("secret-looking"));
        }
    }

    #[test]
    fn two_meanings_are_none() {
        let report = Report::default();
        let mut tree = parse("x.toml", "[connection.a-b]\n[connection.a_b]\n", &report);
        let name = "TRIBUTARY__CONNECTION__A_B__ORG".to_owned();
        apply(&mut tree, &BTreeMap::from([(name, String::new())]), &report);
        assert_eq!(report.into_parts().0.len(), 1);
    }
}

//! `[to.<object>]`: a stored object, what fills it, what says which row a record is.

use std::collections::BTreeSet;

use crate::config::document::{Node, Shape};
use crate::config::job::read::{Context, NOT_OOB, Origin};
use crate::config::job::{DestinationConfig, avatar, derive, map};
use crate::config::nearest::nearest;
use crate::config::problem::{Located, Problem};
use crate::config::reader::{Reader, shown};
use crate::model::policy::{OnEmptyIdentifier, OnExit, OnMove};

pub(super) const POLICIES_OF_EXIT: [(&str, OnExit); 3] = [
    ("keep", OnExit::Keep),
    ("mark", OnExit::Mark),
    ("delete", OnExit::Delete),
];

pub(super) const POLICIES_OF_EMPTY: [(&str, OnEmptyIdentifier); 2] = [
    ("reject", OnEmptyIdentifier::Reject),
    ("insert", OnEmptyIdentifier::Insert),
];

pub(super) const POLICIES_OF_MOVE: [(&str, OnMove); 2] =
    [("update", OnMove::Update), ("new", OnMove::New)];

/// Stands for the columns of `[store] person_key`.
const PERSON_KEY: &str = "@person_key";

/// All destinations, in the file's order.
pub(super) fn read_all(
    reader: &mut Reader<'_>,
    origin: &Origin<'_>,
    context: &Context<'_>,
) -> Vec<DestinationConfig> {
    let remedy = "add [to.<object>] with identifiers and map";
    let Some(node) = reader.take("to") else {
        reader.missing("to", remedy);
        return Vec::new();
    };
    let Some(inner) = Reader::open(node, context.report) else {
        return Vec::new();
    };
    if inner.entries().is_empty() {
        context
            .report
            .wrong(&node.spot, "names no destination", remedy);
    }
    let mut earlier = Vec::new();
    for (label, node) in inner.entries() {
        if let Some(destination) = read(label, node, &earlier, context) {
            let avatar = avatar::read(node, &destination, origin, context);
            earlier.push(destination);
            earlier.extend(avatar);
        }
    }
    earlier
}

fn read(
    label: &str,
    node: &Node,
    earlier: &[DestinationConfig],
    context: &Context<'_>,
) -> Option<DestinationConfig> {
    let object = Located::new(label.to_owned(), node.spot.clone());
    let stored = context.objects.find(&object, context.report);
    let mut reader = Reader::open(node, context.report)?;
    let filter = reader.text("where");
    let on_delete = reader.word("on_delete", &POLICIES_OF_EXIT);
    let on_filter_exit = reader.word("on_filter_exit", &POLICIES_OF_EXIT);
    let on_empty_identifier = reader.word("on_empty_identifier", &POLICIES_OF_EMPTY);
    let on_move = reader.word("on_move", &POLICIES_OF_MOVE);
    reader.take("avatar");
    reader.refuse("and_where", NOT_OOB, "write the whole filter in `where`");
    let mut map = map::read_all(&mut reader, stored, context);
    let derive = derive::read_all(&mut reader, stored, earlier, context);
    map.extend(stored.and_then(|stored| map::currency(&map, stored, context)));
    let columns: Vec<&Located<String>> = map
        .iter()
        .map(|entry| &entry.column)
        .chain(derive.iter().map(|entry| &entry.column))
        .collect();
    filled_once(&columns, context);
    if columns.is_empty() && reader.take("map").is_none() {
        let remedy = "add map = { column = \"Field\" }";
        context.report.wrong(&node.spot, "fills no column", remedy);
    }
    let identifiers = identifiers(&mut reader, label, &columns, context);
    reader.close();
    Some(DestinationConfig {
        object,
        filter,
        identifiers,
        map,
        derive,
        on_delete,
        on_filter_exit,
        on_empty_identifier,
        on_move,
    })
}

fn filled_once(columns: &[&Located<String>], context: &Context<'_>) {
    let mut seen = BTreeSet::new();
    for column in columns {
        if !seen.insert(column.value.as_str()) {
            let what = "is mapped and derived";
            context
                .report
                .wrong(&column.spot, what, "keep one of the two");
        }
    }
}

fn identifiers(
    reader: &mut Reader<'_>,
    label: &str,
    columns: &[&Located<String>],
    context: &Context<'_>,
) -> Vec<Located<String>> {
    let report = context.report;
    let remedy = "write at least one column that says which row a record is: [\"…\"]";
    let Some(node) = reader.take("identifiers") else {
        reader.missing("identifiers", remedy);
        return Vec::new();
    };
    let names = match &node.shape {
        Shape::Text(text) | Shape::Given(text) if text == PERSON_KEY => {
            let columns = context.store.person_key.iter();
            columns
                .map(|column| Located::new(column.value.clone(), node.spot.clone()))
                .collect()
        }
        Shape::Text(_) | Shape::Given(_) => {
            node.wrong(
                "no list of columns",
                "write [\"…\"] or \"@person_key\"",
                report,
            );
            return Vec::new();
        }
        _ => node.texts(report).unwrap_or_default(),
    };
    if matches!(&node.shape, Shape::List(nodes) if nodes.is_empty()) {
        report.wrong(&node.spot, "is empty", remedy);
    }
    let mut seen = BTreeSet::new();
    for name in &names {
        let wrong = |what: &str, remedy: String| {
            report.add(Problem::new(&name.spot, what, remedy).value(shown(&name.value)));
        };
        if is_avatar(&name.value) {
            wrong(
                "a field of an avatar can't be an identifier",
                "name a column of the object itself".to_owned(),
            );
        } else if !columns.iter().any(|column| column.value == name.value) {
            let near = nearest(
                &name.value,
                columns.iter().map(|column| column.value.as_str()),
            );
            let remedy = near.map_or_else(
                || format!("add `{}` to map or derive", name.value.escape_debug()),
                |near| {
                    format!(
                        "did you mean {near:?}? otherwise add `{}` to map or derive",
                        name.value.escape_debug()
                    )
                },
            );
            wrong("an identifier that is neither mapped nor derived", remedy);
        } else if !seen.insert(name.value.as_str()) {
            wrong("stands twice", "remove one".to_owned());
        }
    }
    own_person_key(node, label, &names, context);
    names
}

fn is_avatar(column: &str) -> bool {
    let column = column.to_ascii_lowercase();
    column.starts_with("avatar.") || column.starts_with("avatar_") || column.starts_with("avatar:")
}

/// A job may know people by another key than all others do, and says so.
fn own_person_key(node: &Node, label: &str, names: &[Located<String>], context: &Context<'_>) {
    let key: BTreeSet<&str> = context
        .store
        .person_key
        .iter()
        .map(|name| name.value.as_str())
        .collect();
    let own: BTreeSet<&str> = names.iter().map(|name| name.value.as_str()).collect();
    if label == "Person" && own != key {
        context.report.note(
            &node.spot,
            "another key for people than [store] person_key",
            "write \"@person_key\", unless that is meant",
        );
    }
}

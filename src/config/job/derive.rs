//! `derive`: columns filled with the GSID of a row that is looked up.

use uuid::Uuid;

use crate::config::document::Node;
use crate::config::job::read::Context;
use crate::config::job::{DeriveEntry, DeriveSource, DestinationConfig};
use crate::config::nearest::nearest;
use crate::config::problem::{Located, Problem};
use crate::config::reader::{Reader, shown};
use crate::model::policy::{OnMultiple, OnNone};
use crate::model::stored::{StoredField, StoredObject, StoredType};

/// Pairs that one look-up may match.
const MOST_PAIRS: usize = 6;
/// The CRM id on this connection.
const RECORD_ID: &str = "@id";

#[derive(Clone, Copy)]
enum Otherwise {
    Null,
    Reject,
    Skip,
    Default,
}

/// All derived mappings, in the file's order. `earlier` are the destinations that a sibling may be.
pub(super) fn read_all(
    reader: &mut Reader<'_>,
    stored: Option<&StoredObject>,
    earlier: &[DestinationConfig],
    context: &Context<'_>,
) -> Vec<DeriveEntry> {
    let Some(node) = reader.take("derive") else {
        return Vec::new();
    };
    let Some(inner) = Reader::open(node, context.report) else {
        return Vec::new();
    };
    let entries = inner.entries().iter().filter_map(|(column, node)| {
        let column = Located::new(column.clone(), node.spot.clone());
        let field =
            stored.and_then(|object| context.objects.column(object, &column, context.report));
        let entry = read(column, node, earlier, context)?;
        if let Some(field) = field {
            points(&entry, field, context);
        }
        Some(entry)
    });
    entries.collect()
}

fn read(
    column: Located<String>,
    node: &Node,
    earlier: &[DestinationConfig],
    context: &Context<'_>,
) -> Option<DeriveEntry> {
    let report = context.report;
    let mut reader = Reader::open(node, report)?;
    let from = reader.text("from");
    let pairs = reader.take("match");
    let sibling = reader.text("sibling");
    let has = ["from", "match", "sibling"].map(|key| reader.take(key).is_some());
    let on_multiple = reader.word(
        "on_multiple",
        &[("any", OnMultiple::Any), ("error", OnMultiple::Error)],
    );
    let on_none = on_none(&mut reader);
    reader.close();
    if !matches!(has, [true, true, false] | [false, false, true]) {
        report.wrong(
            &node.spot,
            "says not one way to find a row",
            "write `from` and `match`, or `sibling`",
        );
        return None;
    }
    let by = match (from, pairs, sibling) {
        (Some(from), Some(pairs), _) => {
            let looked_up = context.objects.find(&from, report);
            let pairs = read_pairs(pairs, looked_up, context)?;
            DeriveSource::Match { from, pairs }
        }
        (_, _, Some(sibling)) => {
            earlier_only(&sibling, earlier, context);
            DeriveSource::Sibling(sibling)
        }
        _ => return None,
    };
    Some(DeriveEntry {
        column,
        by,
        on_multiple: on_multiple.unwrap_or(OnMultiple::Error),
        on_none: on_none?,
    })
}

fn on_none(reader: &mut Reader<'_>) -> Option<OnNone> {
    let report = reader.report;
    let words = [
        ("null", Otherwise::Null),
        ("reject", Otherwise::Reject),
        ("skip", Otherwise::Skip),
        ("default", Otherwise::Default),
    ];
    let has_word = reader.take("on_none").is_some();
    let word = reader.word("on_none", &words);
    let default = reader.text("default");
    let spot = reader.spot_of("default");
    match (word, default) {
        (Some(Otherwise::Default), Some(text)) => {
            let gsid = Uuid::try_parse(&text.value).ok();
            if gsid.is_none() {
                let problem = Problem::new(&text.spot, "no GSID", "write a row's 36-character id");
                report.add(problem.value(shown(&text.value)));
            }
            gsid.map(OnNone::Default)
        }
        (Some(Otherwise::Default), None) => {
            if reader.take("default").is_none() {
                report.wrong(&spot, "is missing", "write default = \"<gsid>\"");
            }
            None
        }
        (_, Some(text)) => {
            let remedy = "write on_none = \"default\" too, or remove it";
            report.wrong(&text.spot, "is used by on_none = \"default\" only", remedy);
            None
        }
        (Some(Otherwise::Null), None) => Some(OnNone::Null),
        (Some(Otherwise::Reject), None) => Some(OnNone::Reject),
        (Some(Otherwise::Skip), None) => Some(OnNone::Skip),
        (None, None) => (!has_word).then_some(OnNone::Null),
    }
}

fn read_pairs(
    node: &Node,
    looked_up: Option<&StoredObject>,
    context: &Context<'_>,
) -> Option<Vec<(Located<String>, Located<String>)>> {
    let report = context.report;
    let inner = Reader::open(node, report)?;
    let count = inner.entries().len();
    if count == 0 {
        report.wrong(
            &node.spot,
            "matches nothing",
            "write { \"@id\" = \"Field\" } or { column = \"Field\" }",
        );
    }
    if count > MOST_PAIRS {
        let what = format!("{count} pairs, {MOST_PAIRS} at most");
        report.wrong(&node.spot, what, "match fewer columns");
    }
    let pairs = inner.entries().iter().filter_map(|(column, node)| {
        let column = Located::new(column.clone(), node.spot.clone());
        if column.value != RECORD_ID
            && let Some(object) = looked_up
        {
            context.objects.column(object, &column, report);
        }
        Some((column, node.text(report)?))
    });
    Some(pairs.collect())
}

fn earlier_only(sibling: &Located<String>, earlier: &[DestinationConfig], context: &Context<'_>) {
    let labels = || {
        earlier
            .iter()
            .map(|destination| destination.object.value.as_str())
    };
    if labels().any(|label| label == sibling.value) {
        return;
    }
    let remedy = nearest(&sibling.value, labels()).map_or_else(
        || format!("put [to.{:?}] before this one", sibling.value),
        |near| format!("did you mean {near:?}?"),
    );
    let problem = Problem::new(&sibling.spot, "no earlier destination of this job", remedy);
    context.report.add(problem.value(shown(&sibling.value)));
}

/// The column must hold ids of the object that is looked up.
fn points(entry: &DeriveEntry, field: &StoredField, context: &Context<'_>) {
    let column = &entry.column;
    if field.ty != StoredType::Gsid {
        context.report.wrong(
            &column.spot,
            format!("`{}` holds no ids of rows", column.value),
            "map it, or derive a gsid column",
        );
        return;
    }
    let label = match &entry.by {
        DeriveSource::Match { from, .. } => from,
        DeriveSource::Sibling(sibling) => sibling,
    };
    let (Some(object), Some(table)) = (
        context.objects.by_label.get(&label.value),
        &field.references,
    ) else {
        return;
    };
    if object.table != *table {
        let other = context
            .objects
            .by_label
            .values()
            .find(|object| object.table == *table);
        let other = other.map_or(table.as_str(), |object| object.label.as_str());
        let problem = Problem::new(
            &label.spot,
            format!("`{}` points to {other}", column.value),
            format!("write {other:?}, or derive another column"),
        );
        context.report.add(problem.value(shown(&label.value)));
    }
}

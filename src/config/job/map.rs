//! `map`: columns filled from a field or with a constant.

use std::collections::BTreeMap;

use uuid::Uuid;

use crate::config::document::{Node, Shape};
use crate::config::job::read::Context;
use crate::config::job::{MapEntry, MapSource};
use crate::config::oob::CrmKind;
use crate::config::problem::Located;
use crate::config::reader::Reader;
use crate::model::stored::{StoredField, StoredObject, StoredType};
use crate::model::value::Value;

/// All direct mappings, in the file's order.
pub(super) fn read_all(
    reader: &mut Reader<'_>,
    stored: Option<&StoredObject>,
    context: &Context<'_>,
) -> Vec<MapEntry> {
    let Some(node) = reader.take("map") else {
        return Vec::new();
    };
    let Some(inner) = Reader::open(node, context.report) else {
        return Vec::new();
    };
    let entries = inner.entries().iter().filter_map(|(column, node)| {
        let column = Located::new(column.clone(), node.spot.clone());
        let field =
            stored.and_then(|object| context.objects.column(object, &column, context.report));
        let entry = read(column, node, context)?;
        if let Some(field) = field {
            fits(&entry, field, context);
        }
        Some(entry)
    });
    entries.collect()
}

pub(super) fn read(
    column: Located<String>,
    node: &Node,
    context: &Context<'_>,
) -> Option<MapEntry> {
    let report = context.report;
    match &node.shape {
        Shape::Table(_) => read_table(column, node, context),
        Shape::Text(_) | Shape::Given(_) | Shape::Unreadable => Some(MapEntry {
            column,
            source: MapSource::Path(node.text(report)?),
            values: None,
            default: None,
            insert_only: false,
            keep_on_null: false,
        }),
        Shape::Boolean(false) => {
            node.wrong(
                "`false` removes a mapping of an out-of-the-box job, and there is none here",
                "remove the line, or write { value = false } for a constant",
                report,
            );
            None
        }
        _ => {
            node.mistyped(
                "the name of a field",
                "write the field in quotes, or { value = … } for a constant",
                report,
            );
            None
        }
    }
}

fn read_table(column: Located<String>, node: &Node, context: &Context<'_>) -> Option<MapEntry> {
    let report = context.report;
    let mut reader = Reader::open(node, report)?;
    let path = reader.text("from");
    let constant = reader.take("value").and_then(|node| node.scalar(report));
    let values = reader.take("values").and_then(|node| values(node, context));
    let default = reader.take("default").and_then(|node| node.scalar(report));
    let insert_only = reader.word("when", &[("insert", ())]).is_some();
    let keep_on_null = reader.word("on_null", &[("keep", ())]).is_some();
    let has =
        ["from", "value", "values", "default", "on_null"].map(|key| reader.take(key).is_some());
    reader.close();
    let wrong = |what: &str, remedy: &str| report.wrong(&node.spot, what, remedy);
    let [has_path, has_constant, has_values, has_default, has_on_null] = has;
    match (has_path, has_constant) {
        (true, true) => wrong(
            "is filled from a field and with a constant",
            "keep `from` or `value`",
        ),
        (false, false) => wrong(
            "is filled from nothing",
            "write from = \"Field\" or value = …",
        ),
        (false, true) if has_values || has_default || has_on_null => wrong(
            "a constant is never null and never another value",
            "remove `values`, `default` and `on_null`",
        ),
        _ => {}
    }
    if has_default && has_on_null {
        wrong(
            "`default` leaves no null for `on_null`",
            "keep one of the two",
        );
    }
    let source = match (path, constant) {
        (Some(path), None) => MapSource::Path(path),
        (None, Some(value)) => MapSource::Constant(value),
        _ => return None,
    };
    Some(MapEntry {
        column,
        source,
        values,
        default,
        insert_only,
        keep_on_null,
    })
}

fn values(node: &Node, context: &Context<'_>) -> Option<BTreeMap<String, Value>> {
    let inner = Reader::open(node, context.report)?;
    if inner.entries().is_empty() {
        let remedy = "write what each source value becomes: { true = false, false = true }";
        context.report.wrong(&node.spot, "is empty", remedy);
        return None;
    }
    let values = inner.entries().iter().filter_map(|(from, node)| {
        let to = node.scalar(context.report)?;
        Some((from.clone(), to.value))
    });
    Some(values.collect())
}

/// What says in which currency the row's amounts are, where one is mapped and nothing else fills the column.
pub(super) fn currency(
    map: &[MapEntry],
    stored: &StoredObject,
    context: &Context<'_>,
) -> Option<MapEntry> {
    const COLUMN: &str = "currency_iso_code";
    if !context.multi_currency || map.iter().any(|entry| entry.column.value == COLUMN) {
        return None;
    }
    stored.field(COLUMN)?;
    let amount = map.iter().find(|entry| {
        let field = stored.field(&entry.column.value);
        field.is_some_and(|field| field.ty == StoredType::Currency)
    })?;
    let spot = &amount.column.spot;
    let path = match context.kind? {
        CrmKind::Salesforce => "CurrencyIsoCode",
        CrmKind::Dynamics => "transactioncurrencyid.isocurrencycode",
    };
    Some(MapEntry {
        column: Located::new(COLUMN.to_owned(), spot.clone()),
        source: MapSource::Path(Located::new(path.to_owned(), spot.clone())),
        values: None,
        default: None,
        insert_only: false,
        keep_on_null: false,
    })
}

/// A gsid column holds the id of a stored row, which no CRM knows.
fn fits(entry: &MapEntry, field: &StoredField, context: &Context<'_>) {
    if field.ty != StoredType::Gsid {
        return;
    }
    let is_gsid = match &entry.source {
        MapSource::Path(_) => false,
        MapSource::Constant(value) => {
            let text = value.value.as_text();
            text.is_some_and(|text| Uuid::try_parse(text).is_ok())
        }
    };
    if !is_gsid {
        let column = &entry.column;
        context.report.wrong(
            &column.spot,
            format!(
                "`{}` holds the id of a stored row, which no field has",
                column.value
            ),
            format!(
                "derive it: derive.{} = {{ from = \"<object>\", match = {{ … }} }}",
                column.value
            ),
        );
    }
}

//! `[[test]]`: a mapping's test beside it, kept as data.

use chrono::{DateTime, Utc};

use crate::config::document::{Node, Report, Shape};
use crate::config::job::{Expected, ExpectedRow, MappingTest};
use crate::config::problem::Located;
use crate::config::reader::Reader;
use crate::model::name::{FieldName, ObjectName};
use crate::model::value::Fields;

/// All tests of a job, in the file's order.
pub(super) fn read_all(reader: &mut Reader<'_>) -> Vec<MappingTest> {
    let report = reader.report;
    let Some(node) = reader.take("test") else {
        return Vec::new();
    };
    let Shape::List(nodes) = &node.shape else {
        node.mistyped("a list of tests", "write [[test]]", report);
        return Vec::new();
    };
    nodes.iter().filter_map(|node| read(node, report)).collect()
}

fn read(node: &Node, report: &Report) -> Option<MappingTest> {
    let mut reader = Reader::open(node, report)?;
    if reader.take("given").is_none() {
        reader.missing("given", "write { Account = [{ Id = \"…\" }] }");
    }
    let given = reader
        .take("given")
        .map(|node| objects(node, record, report));
    let expect = reader.take("expect").map(|node| objects(node, row, report));
    let now = now(&mut reader);
    let errors = reader.texts("errors");
    let says_nothing = ["expect", "errors"]
        .iter()
        .all(|key| reader.take(key).is_none());
    reader.close();
    if says_nothing {
        report.wrong(
            &node.spot,
            "expects nothing",
            "write expect = { Company = [{ … }] } or errors = [\"…\"]",
        );
    }
    let given = given.unwrap_or_default().into_iter();
    Some(MappingTest {
        spot: node.spot.clone(),
        now,
        given: given
            .map(|(object, records)| (object.map(ObjectName::new), records))
            .collect(),
        expect: expect.unwrap_or_default(),
        errors: errors.unwrap_or_default(),
    })
}

fn now(reader: &mut Reader<'_>) -> Option<DateTime<Utc>> {
    let report = reader.report;
    let node = reader.take("now")?;
    let text = match &node.shape {
        Shape::Text(text) | Shape::Time(text) => text.as_str(),
        _ => "",
    };
    let at = DateTime::parse_from_rfc3339(text).ok();
    if at.is_none() {
        node.mistyped(
            "an instant",
            "write 2026-01-05T10:00:00Z, without quotes",
            report,
        );
    }
    at.map(|at| at.to_utc())
}

/// `{ Object = [{ … }, …], … }`.
fn objects<T>(
    node: &Node,
    row: impl Fn(&Node, &Report) -> Option<T>,
    report: &Report,
) -> Vec<(Located<String>, Vec<T>)> {
    let Some(inner) = Reader::open(node, report) else {
        return Vec::new();
    };
    let objects = inner.entries().iter().map(|(name, node)| {
        let name = Located::new(name.clone(), node.spot.clone());
        let Shape::List(nodes) = &node.shape else {
            node.mistyped("a list of records", "write [{ … }, …]", report);
            return (name, Vec::new());
        };
        let rows = nodes.iter().filter_map(|node| row(node, report));
        (name, rows.collect())
    });
    objects.collect()
}

fn record(node: &Node, report: &Report) -> Option<Fields> {
    let inner = Reader::open(node, report)?;
    let fields = inner.entries().iter().filter_map(|(name, node)| {
        let value = node.scalar(report)?;
        Some((FieldName::new(name), value.value))
    });
    Some(fields.collect())
}

fn row(node: &Node, report: &Report) -> Option<ExpectedRow> {
    let inner = Reader::open(node, report)?;
    let columns = inner.entries().iter().filter_map(|(name, node)| {
        let expected = match &node.shape {
            Shape::Table(_) => Expected::Row(row(node, report)?),
            _ => Expected::Value(node.scalar(report)?.value),
        };
        Some((name.clone(), expected))
    });
    Some(columns.collect())
}

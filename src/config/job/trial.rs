//! `[[test]]`: a mapping's test beside it, kept as data.

use crate::config::document::{Node, Report, Shape};
use crate::config::job::{ExpectedRow, MappingTest};
use crate::config::problem::Located;
use crate::config::reader::Reader;
use crate::model::name::{FieldName, ObjectName};

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
    let given = reader.take("given").map(|node| objects(node, report));
    let expect = reader.take("expect").map(|node| objects(node, report));
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
    let given = given.unwrap_or_default().into_iter().map(|(object, rows)| {
        let rows = rows.into_iter().map(|row| {
            row.into_iter()
                .map(|(field, value)| (FieldName::new(field), value))
                .collect()
        });
        (object.map(ObjectName::new), rows.collect())
    });
    Some(MappingTest {
        spot: node.spot.clone(),
        given: given.collect(),
        expect: expect.unwrap_or_default(),
        errors: errors.unwrap_or_default(),
    })
}

/// `{ Object = [{ … }, …], … }`.
fn objects(node: &Node, report: &Report) -> Vec<(Located<String>, Vec<ExpectedRow>)> {
    let Some(inner) = Reader::open(node, report) else {
        return Vec::new();
    };
    let objects = inner.entries().iter().map(|(name, node)| {
        let name = Located::new(name.clone(), node.spot.clone());
        let Shape::List(nodes) = &node.shape else {
            node.mistyped("a list of records", "write [{ … }, …]", report);
            return (name, Vec::new());
        };
        (
            name,
            nodes.iter().filter_map(|node| row(node, report)).collect(),
        )
    });
    objects.collect()
}

fn row(node: &Node, report: &Report) -> Option<ExpectedRow> {
    let inner = Reader::open(node, report)?;
    let fields = inner.entries().iter().filter_map(|(name, node)| {
        let value = node.scalar(report)?;
        Some((name.clone(), value.value))
    });
    Some(fields.collect())
}

//! Long texts told by their difference, merged into what the image has.

use aws_lc_rs::digest::{SHA256, digest};
use chrono::TimeZone;

use crate::model::event::Transaction;
use crate::model::position::Position;
use crate::model::record_id::RecordId;

use super::*;

const T: SalesforceTable = SalesforceTable;

fn at(second: i64) -> DateTime<Utc> {
    Utc.timestamp_opt(1_700_000_000 + second, 0).unwrap()
}

fn diff(new: &str, hunks: &str) -> String {
    let digest = digest(&SHA256, new.as_bytes());
    let hash: String = digest
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("--- \n+++ {hash}\n{hunks}")
}

fn row(text: &str) -> Row {
    Row {
        version: None,
        record: RecordId::stored("r"),
        fields: [("A".into(), Value::text(text)), ("B".into(), Value::Null)].into(),
        modified_at: None,
    }
}

fn update(c: i64, text: &str) -> Event {
    Event {
        object: "Account".into(),
        records: vec![RecordId::stored("r")],
        kind: EventKind::Update,
        fields: [
            ("A".into(), Value::text(text)),
            ("B".into(), Value::text("b")),
        ]
        .into(),
        changed: vec!["A".into(), "B".into()],
        committed_at: at(c),
        transaction: Transaction {
            key: "t".into(),
            sequence: 1,
            user: None,
            client: None,
        },
        position: Position::new("p"),
    }
}

fn carried() -> BTreeSet<FieldName> {
    ["A", "B"].map(FieldName::new).into()
}

fn known(text: &str) -> Image {
    T.row(None, &row(text), at(10), None).image.unwrap()
}

#[test]
fn a_difference_is_applied_to_the_images_text() {
    let told = diff("one\nTWO", "@@ -2 +2 @@\n-two\n+TWO");
    let step = T.event(Some(known("one\ntwo")), &update(11, &told), &carried());
    let image = step.image.unwrap();
    assert_eq!(image.fields["A"], Value::text("one\nTWO"));
    assert_eq!(image.fields["B"], Value::text("b"));
    assert_eq!(step.verdict, Verdict::Publish(Op::Update));
    assert_eq!(step.owe, None);
    // Delivered again: nothing changes, nothing is owed.
    let again = T.event(Some(image.clone()), &update(11, &told), &carried());
    assert_eq!((again.image, again.owe), (Some(image), None));
}

#[test]
fn one_that_does_not_fit_owes_a_read_and_tells_nothing() {
    let told = diff("one\nTWO", "@@ -2 +2 @@\n-two\n+TWO");
    for image in [
        Some(known("one\nthree")),
        Some(known("")),
        Some(Image::partial()),
        None,
    ] {
        let before = image.clone().unwrap_or_else(Image::partial).fields;
        let step = T.event(image, &update(11, &told), &carried());
        let image = step.image.unwrap();
        assert_eq!(image.fields, before, "nothing of it is believed");
        assert_eq!(step.verdict, Verdict::Keep);
        assert_eq!(step.owe, Some(at(11)));
        // The read that answers it.
        let step = T.row(Some(image), &row("one\nTWO"), at(12), None);
        assert_eq!(step.image.unwrap().fields["A"], Value::text("one\nTWO"));
        assert_eq!(step.owe, None);
    }
}

#[test]
fn one_of_a_field_that_nobody_selected_is_not_looked_at() {
    let told = diff("x", "@@ -2 +2 @@\n-two\n+TWO");
    let only: BTreeSet<FieldName> = ["B"].map(FieldName::new).into();
    let step = T.event(Some(known("one")), &update(11, &told), &only);
    assert_eq!(step.owe, None);
    assert_eq!(step.image.unwrap().fields["B"], Value::text("b"));
}

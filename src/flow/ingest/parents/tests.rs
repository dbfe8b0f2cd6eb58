//! What a merge leaves of a parent's field, case by case.

use chrono::TimeZone;

use crate::crm::port::Selection;
use crate::model::name::ObjectKey;

use super::*;

const NAME: &str = "Account.Name";
const ID: &str = "AccountId";

fn at(second: i64) -> DateTime<Utc> {
    Utc.timestamp_opt(1_800_000_000 + second, 0).unwrap()
}

fn road() -> ObjectRoad {
    ObjectRoad {
        key: ObjectKey {
            connection: "acme".into(),
            object: "Contact".into(),
        },
        topic: "t".into(),
        selection: Selection::from("Contact"),
        carried: BTreeSet::new(),
        late: BTreeSet::new(),
        joins: vec![Join {
            field: NAME.into(),
            reference: ID.into(),
            of: "Name".into(),
            parents: vec!["Account".into()],
        }],
        followers: Vec::new(),
        editions: BTreeMap::new(),
    }
}

fn image(fields: &[(&str, Option<&str>)]) -> Image {
    let mut image = Image::partial();
    image.life = Life::Live;
    image.base = Some(at(10));
    for (field, value) in fields {
        let value = value.map_or(Value::Null, Value::from);
        image.set(&(*field).into(), &value);
    }
    image
}

/// Account `a` is known as "A", `d` is dead, `n` has no name in its image.
fn images() -> Images {
    let mut dead = image(&[("Name", Some("D"))]);
    dead.life = Life::Dead;
    let accounts = [
        ("a", image(&[("Name", Some("A"))])),
        ("d", dead),
        ("n", image(&[])),
    ];
    let accounts = accounts.map(|(id, image)| (RecordId::stored(id), image));
    Images::from([("Account".into(), accounts.into())])
}

fn row(id: &str, name: Option<&str>) -> Row {
    Row {
        record: RecordId::stored("c"),
        fields: image(&[(ID, Some(id)), (NAME, name)]).fields,
        modified_at: None,
        version: None,
    }
}

/// The step after a join, and whether the field is unknown.
fn joined(
    before: Option<&Image>,
    after: Option<Image>,
    verdict: Verdict,
    row: Option<(&Row, i64)>,
) -> (Step, bool) {
    let mut step = Step {
        image: after,
        verdict,
        owe: None,
        changed: Vec::new(),
    };
    let row = row.map(|(row, second)| (row, at(second)));
    let unknown = join(&road(), before, &mut step, row, &images());
    (step, unknown)
}

fn name(step: &Step) -> Option<String> {
    let fields = &step.image.as_ref().unwrap().fields;
    let value = fields.get(&FieldName::new(NAME))?;
    Some(value.as_text().unwrap_or("null").to_owned())
}

#[test]
fn an_event_joins_keeps_or_leaves_open() {
    let update = Verdict::Publish(Op::Update);
    let before = image(&[(ID, Some("x")), (NAME, Some("X"))]);
    for (after, expected, open) in [
        // The reference is as it was.
        (&[(ID, Some("x")), (NAME, Some("X"))][..], Some("X"), false),
        (&[(ID, Some("a")), (NAME, Some("X"))], Some("A"), false),
        (&[(ID, None), (NAME, Some("X"))], Some("null"), false),
        (&[(ID, Some("y")), (NAME, Some("X"))], None, true),
        (&[(ID, Some("d")), (NAME, Some("X"))], None, true),
        (&[(ID, Some("n")), (NAME, Some("X"))], None, true),
    ] {
        let (step, unknown) = joined(Some(&before), Some(image(after)), update, None);
        assert_eq!(
            (name(&step).as_deref(), unknown),
            (expected, open),
            "{after:?}"
        );
        assert_eq!(step.verdict, update);
        assert_eq!(step.changed.is_empty(), expected == Some("X"), "{after:?}");
    }
    // A record that came back, or that is new, has nothing to keep.
    let mut dead = before.clone();
    dead.life = Life::Dead;
    for before in [Some(&dead), None] {
        let after = image(&[(ID, Some("x")), (NAME, Some("X"))]);
        let (step, unknown) = joined(before, Some(after), update, None);
        assert_eq!((name(&step), unknown), (None, true));
    }
}

#[test]
fn a_row_is_believed_where_no_image_helps() {
    let snapshot = Verdict::Publish(Op::Snapshot);
    let before = image(&[(ID, Some("x")), (NAME, Some("X"))]);
    let merged = |id: &str, name: Option<&str>| Some(image(&[(ID, Some(id)), (NAME, name)]));
    // News of the same parent.
    let told = row("x", Some("new"));
    let (step, _) = joined(
        Some(&before),
        merged("x", Some("new")),
        snapshot,
        Some((&told, 10)),
    );
    assert_eq!(
        (name(&step).as_deref(), step.verdict),
        (Some("new"), snapshot)
    );
    // An older answer that came late.
    let (step, _) = joined(
        Some(&before),
        merged("x", Some("new")),
        snapshot,
        Some((&told, 9)),
    );
    assert_eq!(
        (name(&step).as_deref(), step.verdict),
        (Some("X"), Verdict::Keep)
    );
    // The parent is captured: its image says it, and the row's own answer tells nobody.
    let known = image(&[(ID, Some("a")), (NAME, Some("A"))]);
    let late = row("a", Some("before A"));
    let (step, unknown) = joined(
        Some(&known),
        merged("a", Some("before A")),
        snapshot,
        Some((&late, 20)),
    );
    assert_eq!((name(&step).as_deref(), unknown), (Some("A"), false));
    assert_eq!(step.verdict, Verdict::Keep);
    // An event had moved the record meanwhile: the row speaks of another parent.
    let moved = image(&[(ID, Some("y"))]);
    let (step, unknown) = joined(
        Some(&moved),
        merged("y", Some("X")),
        snapshot,
        Some((&row("x", Some("X")), 20)),
    );
    assert_eq!((name(&step), unknown), (None, true));
}

#[test]
fn a_row_that_tells_nothing_new_meets_a_parent_that_changed() {
    let stale = image(&[(ID, Some("a")), (NAME, Some("old"))]);
    let (step, _) = joined(
        Some(&stale),
        None,
        Verdict::Drop,
        Some((&row("a", Some("old")), 10)),
    );
    assert_eq!(name(&step).as_deref(), Some("A"));
    assert_eq!(step.verdict, Verdict::Publish(Op::Snapshot));
    let fresh = image(&[(ID, Some("a")), (NAME, Some("A"))]);
    let (step, _) = joined(
        Some(&fresh),
        None,
        Verdict::Drop,
        Some((&row("a", Some("old")), 10)),
    );
    assert_eq!((step.image, step.verdict), (None, Verdict::Drop));
    // Nor does an event revive what a table left alone.
    let (step, _) = joined(Some(&stale), None, Verdict::Drop, None);
    assert_eq!(step.image, None);
}

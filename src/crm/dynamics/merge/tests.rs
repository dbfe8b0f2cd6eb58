//! Each line of the merge table by name.

mod histories;

use chrono::TimeZone;

use crate::image::merge::rebuilt;
use crate::model::change::{Change, Origin, WIRE_VERSION};
use crate::model::event::Transaction;
use crate::model::name::ObjectName;
use crate::model::position::Position;
use crate::model::record_id::RecordId;
use crate::model::value::Value;

use super::*;

const LAG: i64 = 5;
const T: DynamicsTable = DynamicsTable::new(TimeDelta::seconds(LAG));

fn at(second: i64) -> DateTime<Utc> {
    Utc.timestamp_opt(1_700_000_000 + second, 0).unwrap()
}

const fn numbered(number: u64) -> RowVersion {
    RowVersion {
        incarnation: 0,
        number,
    }
}

fn fields(value: &str) -> Fields {
    [(FieldName::new("name"), Value::from(value))].into()
}

fn event(kind: EventKind, value: Option<&str>, c: i64) -> Event {
    Event {
        object: ObjectName::new("account"),
        records: vec![RecordId::stored("r")],
        kind,
        fields: value.map(fields).unwrap_or_default(),
        changed: Vec::new(),
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

fn row(number: u64, value: &str) -> Row {
    Row {
        record: RecordId::stored("r"),
        fields: fields(value),
        modified_at: None,
        version: Some(numbered(number)),
    }
}

fn told(image: Option<Image>, number: u64, value: &str, c: i64) -> Step {
    let kind = EventKind::Row {
        version: numbered(number),
        modified_at: None,
    };
    T.event(image, &event(kind, Some(value), c), &BTreeSet::new())
}

fn gone(image: Option<Image>, c: i64, since: i64, beside_row: bool) -> Step {
    let kind = EventKind::Tombstone {
        since: at(since),
        beside_row,
    };
    T.event(image, &event(kind, None, c), &BTreeSet::new())
}

fn read(image: Option<Image>, number: u64, value: &str, a: i64) -> Step {
    T.row(image, &row(number, value), at(a), None)
}

/// Read as of 10, row 7.
fn known() -> Image {
    read(None, 7, "seven", 10).image.unwrap()
}

fn name(image: &Image) -> &str {
    image.fields["name"].as_text().unwrap()
}

/// What a topic that does not tell the row knows of an image that was published at `modified`.
fn from_topic(image: &Image, origin: Origin, modified: i64) -> Image {
    rebuilt(None, &in_topic(image, origin, modified)).unwrap()
}

fn in_topic(image: &Image, origin: Origin, modified: i64) -> Change {
    Change {
        v: WIRE_VERSION,
        connection: "contoso".into(),
        object: "account".into(),
        id: RecordId::stored("r"),
        op: Op::Update,
        version: Version::new(1, 1),
        committed_at: Some(at(modified)),
        origin,
        position: None,
        transaction: None,
        changed: image.fields.keys().cloned().collect(),
        fields: image.fields.clone(),
        row: None,
        synced: None,
    }
}

#[test]
fn a_told_row_is_taken_from_its_number_on() {
    for number in [7, 8] {
        let step = told(Some(known()), number, "new", 30);
        assert_eq!(step.verdict, Verdict::Publish(Op::Update));
        assert_eq!(name(&step.image.unwrap()), "new");
    }
    assert_eq!(
        told(None, 1, "first", 30).verdict,
        Verdict::Publish(Op::Create)
    );
}

#[test]
fn a_told_row_of_a_lower_number_is_not_merged_and_owes_a_read() {
    let step = told(Some(known()), 6, "old", 30);
    assert_eq!((step.image, step.verdict), (None, Verdict::Drop));
    assert_eq!(step.owe, Some(at(30)));
}

#[test]
fn a_told_row_revives_the_dead_whatever_its_number() {
    let dead = gone(Some(known()), 40, 35, false).image.unwrap();
    assert_eq!(dead.life, Life::Dead);
    let step = told(Some(dead), 3, "again", 60);
    assert_eq!(step.image.unwrap().life, Life::Live);
}

#[test]
fn a_row_that_tells_nothing_new_is_not_published() {
    let step = told(Some(known()), 8, "seven", 30);
    assert_eq!(step.verdict, Verdict::Keep);
    assert_eq!(step.image.unwrap().row.unwrap().version, numbered(8));
    assert_eq!(read(Some(known()), 7, "seven", 30).verdict, Verdict::Keep);
}

#[test]
fn a_read_of_a_lower_number_is_behind_and_dropped() {
    let image = told(Some(known()), 9, "nine", 40).image;
    for a in [30, 39] {
        let step = read(image.clone(), 8, "eight", a);
        assert_eq!(step, Step::dropped(), "{a}");
    }
    assert_eq!(name(&read(image, 10, "ten", 39).image.unwrap()), "ten");
}

#[test]
fn a_tombstone_buries_whom_nobody_saw_since() {
    let step = gone(Some(known()), 40, 30, false);
    assert_eq!(step.verdict, Verdict::Publish(Op::Delete));
    assert_eq!(step.image.unwrap().dead, Some(at(40)));
    let unknown = gone(None, 40, 30, false);
    assert_eq!(unknown.verdict, Verdict::Keep);
    assert_eq!(unknown.image.unwrap().dead, Some(at(40)));
}

#[test]
fn a_tombstone_beside_a_row_or_after_a_read_is_decided_by_a_read() {
    let decided = (None, Verdict::Keep, Some(at(40)));
    let of = |step: Step| (step.image, step.verdict, step.owe);
    assert_eq!(of(gone(Some(known()), 40, 30, true)), decided);
    // Read at 15 or a little later, and the question before was sent at 16.
    assert_eq!(of(gone(Some(known()), 40, 16, false)), decided);
    let image = told(Some(known()), 8, "eight", 31).image;
    assert_eq!(of(gone(image, 40, 30, false)), decided);
}

#[test]
fn a_row_of_before_a_death_is_read_again() {
    let dead = gone(Some(known()), 40, 30, false).image;
    for a in [30, 40] {
        let step = read(dead.clone(), 9, "ghost", a);
        assert_eq!(
            (step.image, step.verdict, step.owe),
            (None, Verdict::Drop, Some(at(40)))
        );
    }
    let alive = read(dead, 9, "back", 41);
    assert_eq!(alive.verdict, Verdict::Publish(Op::Snapshot));
}

#[test]
fn a_missed_record_is_dead_only_for_a_read_of_after_it_was_seen() {
    // The image's read was sent at 15, give or take.
    let early = T.absent(Some(known()), at(14), None);
    assert_eq!((early.verdict, early.owe), (Verdict::Drop, Some(at(17))));
    let step = T.absent(Some(known()), at(17), None);
    assert_eq!(step.verdict, Verdict::Publish(Op::Delete));
    let image = told(Some(known()), 8, "eight", 40).image;
    let early = T.absent(image.clone(), at(39), None);
    assert_eq!((early.verdict, early.owe), (Verdict::Drop, Some(at(40))));
    assert_eq!(
        T.absent(image, at(40), None).verdict,
        Verdict::Publish(Op::Delete)
    );
    assert_eq!(T.absent(None, at(5), None).verdict, Verdict::Keep);
}

#[test]
fn a_hint_is_never_merged() {
    for kind in [EventKind::Gap, EventKind::Update, EventKind::Delete] {
        let step = T.event(Some(known()), &event(kind, Some("x"), 20), &BTreeSet::new());
        assert_eq!(
            (step.image, step.verdict, step.owe),
            (None, Verdict::Keep, Some(at(20)))
        );
    }
}

#[test]
fn reads_from_before_the_stream_are_read_again() {
    let row = T.row(Some(known()), &row(9, "nine"), at(29), Some(at(30)));
    assert_eq!(row.verdict, Verdict::ReadAgain);
    assert_eq!(
        T.absent(None, at(29), Some(at(30))).verdict,
        Verdict::ReadAgain
    );
}

#[test]
fn an_older_row_twice_long_after_the_newer_is_a_restored_org() {
    let image = told(Some(known()), 9, "nine", 40).image;
    let first = read(image, 5, "five", 50);
    assert_eq!((first.verdict, first.owe), (Verdict::Keep, Some(at(50))));
    // The same read's other page tells no more.
    let same = read(first.image.clone(), 5, "five", 50);
    assert_eq!(same.verdict, Verdict::Keep);
    let second = read(first.image.clone(), 5, "five", 51);
    assert_eq!((second.image, second.verdict), (None, Verdict::Restored));
    // It was a read behind after all: the suspicion is over.
    let cleared = read(first.image, 9, "nine", 60).image.unwrap();
    assert_eq!(cleared.needs, None);
}

#[test]
fn another_incarnation_counts_before_the_number() {
    let mut later = row(2, "two");
    later.version = Some(RowVersion {
        incarnation: 1,
        number: 2,
    });
    let step = T.row(Some(known()), &later, at(11), None);
    let image = step.image.unwrap();
    assert_eq!(name(&image), "two");
    // What an earlier life read is older.
    assert_eq!(read(Some(image), 8, "eight", 12).verdict, Verdict::Drop);
}

#[test]
fn of_an_image_from_the_topic_only_later_reads_are_believed() {
    for origin in [Origin::Stream, Origin::Hydrate] {
        let image = from_topic(&known(), origin, 100);
        assert_eq!(image.row, None);
        let early = read(Some(image.clone()), 8, "eight", 200);
        assert_eq!((early.verdict, early.owe), (Verdict::Drop, Some(at(1000))));
        let missed = T.absent(Some(image.clone()), at(200), None);
        assert_eq!(
            (missed.verdict, missed.owe),
            (Verdict::Drop, Some(at(1000)))
        );
        let late = read(Some(image.clone()), 8, "eight", 1000).image.unwrap();
        assert_eq!(name(&late), "eight");
        // The stream goes on from a place that is not after what it told.
        let told = told(Some(image.clone()), 8, "eight", 200).image.unwrap();
        assert_eq!(told.row.unwrap().version, numbered(8));
        let owed = gone(Some(image), 300, 200, false).owe;
        assert_eq!(owed, Some(at(300)));
    }
}

#[test]
fn a_topic_that_tells_the_row_gives_the_image_back_as_it_was() {
    for image in [known(), told(Some(known()), 9, "nine", 40).image.unwrap()] {
        let mut change = in_topic(&image, Origin::Hydrate, 3);
        change.row = image.row_place();
        let bytes = change.encode().unwrap();
        let mut back = rebuilt(None, &Change::decode(&bytes).unwrap()).unwrap();
        back.version = image.version;
        assert_eq!(back, image);
    }
    // A topic of before it was told, read over an image that had one.
    let change = in_topic(&known(), Origin::Hydrate, 3);
    assert_eq!(rebuilt(Some(known()), &change).unwrap().row, None);
}

#[test]
fn rows_without_numbers_go_by_time() {
    let mut plain = row(0, "one");
    plain.version = None;
    let image = T.row(None, &plain, at(10), None).image.unwrap();
    assert_eq!(image.row, None);
    let mut later = row(0, "two");
    later.version = None;
    let early = T.row(Some(image.clone()), &later, at(11), None);
    assert_eq!((early.image, early.owe), (None, Some(at(910))));
    let late = T.row(Some(image), &later, at(910), None).image.unwrap();
    assert_eq!(name(&late), "two");
}

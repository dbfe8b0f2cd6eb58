//! Each line of the merge table by name, and random histories that must end in the org's state.

use chrono::TimeZone;
use proptest::prelude::{Strategy, any, prop, prop_oneof, proptest};

use crate::model::event::Transaction;
use crate::model::name::ObjectName;
use crate::model::position::Position;
use crate::model::record_id::RecordId;
use crate::model::value::Fields;

use super::*;

fn at(second: i64) -> DateTime<Utc> {
    Utc.timestamp_opt(1_700_000_000 + second, 0).unwrap()
}

fn fields(pairs: &[(&str, Option<&str>)]) -> Fields {
    pairs
        .iter()
        .map(|(name, value)| (FieldName::new(name), value.map_or(Value::Null, Value::from)))
        .collect()
}

fn carried() -> BTreeSet<FieldName> {
    ["A", "B"].map(FieldName::new).into()
}

fn event(kind: EventKind, c: i64, told: &[(&str, Option<&str>)]) -> Event {
    Event {
        object: ObjectName::new("Account"),
        records: vec![RecordId::stored("r")],
        kind,
        fields: fields(told),
        changed: told.iter().map(|(name, _)| FieldName::new(name)).collect(),
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

fn row(told: &[(&str, Option<&str>)]) -> Row {
    Row {
        record: RecordId::stored("r"),
        fields: fields(told),
        modified_at: None,
        version: None,
    }
}

const T: SalesforceTable = SalesforceTable;

/// A live image with base 10, A = "a10", B = null.
fn known() -> Image {
    T.row(None, &row(&[("A", Some("a10")), ("B", None)]), at(10), None)
        .image
        .unwrap()
}

fn hear(image: Option<Image>, event: &Event) -> Step {
    T.event(image, event, &carried())
}

fn value<'a>(image: &'a Image, field: &str) -> Option<&'a Value> {
    image.fields.get(field)
}

#[test]
fn an_event_older_than_the_row_is_dropped() {
    let step = hear(
        Some(known()),
        &event(EventKind::Update, 9, &[("A", Some("old"))]),
    );
    assert_eq!(step, Step::dropped());
}

#[test]
fn an_update_of_a_live_record_sets_and_clears() {
    let step = hear(
        Some(known()),
        &event(EventKind::Update, 10, &[("A", None), ("B", Some("b"))]),
    );
    let image = step.image.unwrap();
    assert_eq!(step.verdict, Verdict::Publish(Op::Update));
    assert_eq!(value(&image, "A"), Some(&Value::Null));
    assert_eq!(value(&image, "B"), Some(&Value::from("b")));
    assert_eq!(image.touched.len(), 2);
}

#[test]
fn an_update_of_unselected_fields_tells_nothing() {
    let step = hear(
        Some(known()),
        &event(EventKind::Update, 11, &[("Other", Some("x"))]),
    );
    let told = (step.image, step.verdict, step.owe);
    assert_eq!(told, (None, Verdict::Keep, None));
}

/// The stream delivers at least once: an event that comes again, late, undoes nothing.
#[test]
fn an_older_event_undoes_nothing_of_a_newer_one() {
    let first = event(
        EventKind::Update,
        20,
        &[("A", Some("a20")), ("B", Some("b20"))],
    );
    let image = hear(Some(known()), &first).image;
    let image = hear(image, &event(EventKind::Update, 21, &[("A", Some("a21"))])).image;
    let again = hear(image.clone(), &first).image.unwrap();
    assert_eq!(value(&again, "A"), Some(&Value::from("a21")));
    let again = hear(image, &event(EventKind::Create, 19, &[("A", Some("a19"))]));
    assert_eq!(again, Step::dropped());
}

#[test]
fn a_delete_older_than_the_undelete_is_dropped() {
    let delete = event(EventKind::Delete, 11, &[]);
    let dead = hear(Some(known()), &delete).image;
    let undelete = event(EventKind::Undelete, 12, &[("A", Some("back"))]);
    let alive = hear(dead, &undelete).image;
    assert_eq!(hear(alive.clone(), &delete), Step::dropped());
    let dead = hear(alive, &event(EventKind::Delete, 13, &[])).image;
    assert_eq!(hear(dead, &undelete), Step::dropped());
}

/// Nothing would ever tell of its death again.
#[test]
fn an_older_event_revives_nobody_that_a_read_missed() {
    let dead = T.absent(Some(known()), at(30), None).image;
    let create = event(EventKind::Create, 12, &[("A", Some("ghost"))]);
    assert_eq!(hear(dead.clone(), &create), Step::dropped());
    let undelete = event(EventKind::Undelete, 30, &[("A", Some("back"))]);
    assert_eq!(
        hear(dead, &undelete).verdict,
        Verdict::Publish(Op::Undelete)
    );
}

#[test]
fn an_update_of_an_unknown_record_is_kept_and_owes_a_read() {
    let step = hear(None, &event(EventKind::Update, 12, &[("A", Some("a12"))]));
    assert_eq!((step.verdict, step.owe), (Verdict::Keep, Some(at(12))));
    let image = step.image.unwrap();
    assert_eq!(image.life, Life::Partial);
    // The read was true of an earlier time: what the event told stays.
    let step = T.row(
        Some(image),
        &row(&[("A", Some("a8")), ("B", Some("b8"))]),
        at(8),
        None,
    );
    let image = step.image.unwrap();
    assert_eq!(step.verdict, Verdict::Publish(Op::Snapshot));
    assert_eq!(value(&image, "A"), Some(&Value::from("a12")));
    assert_eq!(value(&image, "B"), Some(&Value::from("b8")));
}

#[test]
fn an_update_of_a_dead_record_owes_a_read() {
    let dead = hear(Some(known()), &event(EventKind::Delete, 11, &[])).image;
    let step = hear(dead, &event(EventKind::Update, 12, &[("A", Some("x"))]));
    assert_eq!((step.verdict, step.owe), (Verdict::Keep, Some(at(12))));
}

#[test]
fn a_create_is_whole_and_absent_means_empty() {
    let step = hear(None, &event(EventKind::Create, 5, &[("A", Some("a"))]));
    let image = step.image.unwrap();
    assert_eq!(step.verdict, Verdict::Publish(Op::Create));
    assert_eq!(value(&image, "B"), Some(&Value::Null));
    assert_eq!(image.life, Life::Live);
}

#[test]
fn an_undelete_revives() {
    let dead = hear(Some(known()), &event(EventKind::Delete, 11, &[])).image;
    let step = hear(
        dead,
        &event(EventKind::Undelete, 12, &[("A", Some("back"))]),
    );
    assert_eq!(step.verdict, Verdict::Publish(Op::Undelete));
    assert_eq!(step.image.unwrap().life, Life::Live);
}

#[test]
fn a_delete_of_an_unknown_record_is_a_marker_only() {
    let step = hear(None, &event(EventKind::Delete, 5, &[]));
    assert_eq!(step.verdict, Verdict::Keep);
    assert_eq!(step.image.unwrap().dead, Some(at(5)));
}

#[test]
fn a_gap_needs_a_read_later_than_itself() {
    let step = hear(Some(known()), &event(EventKind::Gap, 20, &[]));
    assert_eq!((step.verdict, step.owe), (Verdict::Keep, Some(at(20))));
    let early = T.row(
        step.image,
        &row(&[("A", Some("a15")), ("B", None)]),
        at(20),
        None,
    );
    assert_eq!(early.owe, Some(at(20)));
    let late = T.row(
        early.image,
        &row(&[("A", Some("a21")), ("B", None)]),
        at(21),
        None,
    );
    assert_eq!(late.owe, None);
    assert_eq!(late.image.unwrap().needs, None);
}

#[test]
fn reads_from_before_the_stream_are_read_again() {
    let early = T.row(Some(known()), &row(&[("A", None)]), at(29), Some(at(30)));
    assert_eq!(early.verdict, Verdict::ReadAgain);
    assert_eq!(
        T.absent(Some(known()), at(29), Some(at(30))).verdict,
        Verdict::ReadAgain
    );
}

#[test]
fn an_older_row_only_fills() {
    let step = T.row(
        Some(known()),
        &row(&[("A", Some("older")), ("C", Some("new"))]),
        at(10),
        None,
    );
    let image = step.image.unwrap();
    assert_eq!(value(&image, "A"), Some(&Value::from("a10")));
    assert_eq!(value(&image, "C"), Some(&Value::from("new")));
    let none = T.row(Some(known()), &row(&[("A", Some("older"))]), at(10), None);
    assert_eq!(none.verdict, Verdict::Drop);
}

#[test]
fn a_row_no_newer_than_the_delete_is_discarded() {
    let dead = hear(Some(known()), &event(EventKind::Delete, 15, &[])).image;
    let step = T.row(dead.clone(), &row(&[("A", Some("ghost"))]), at(15), None);
    assert_eq!(step.verdict, Verdict::Drop);
    let alive = T.row(dead, &row(&[("A", Some("undeleted"))]), at(16), None);
    assert_eq!(alive.verdict, Verdict::Publish(Op::Snapshot));
}

#[test]
fn a_row_wins_but_for_fields_touched_since() {
    let touched = hear(
        Some(known()),
        &event(EventKind::Update, 20, &[("A", Some("a20"))]),
    )
    .image;
    let step = T.row(
        touched,
        &row(&[("A", Some("a15")), ("B", Some("b15"))]),
        at(15),
        None,
    );
    let image = step.image.unwrap();
    assert_eq!(value(&image, "A"), Some(&Value::from("a20")));
    assert_eq!(value(&image, "B"), Some(&Value::from("b15")));
    assert_eq!(step.changed, vec![FieldName::new("B")]);
    assert_eq!(image.base, Some(at(15)));
}

#[test]
fn a_row_that_tells_nothing_new_is_not_published() {
    let step = T.row(
        Some(known()),
        &row(&[("A", Some("a10")), ("B", None)]),
        at(30),
        None,
    );
    assert_eq!(step.verdict, Verdict::Keep);
    assert_eq!(step.image.unwrap().base, Some(at(30)));
}

#[test]
fn a_record_not_found_is_dead_unless_it_was_seen_since() {
    let again = T.absent(Some(known()), at(10), None);
    assert_eq!(again.verdict, Verdict::ReadAgain);
    let step = T.absent(Some(known()), at(11), None);
    assert_eq!(step.verdict, Verdict::Publish(Op::Delete));
    assert_eq!(step.image.unwrap().dead, Some(at(11)));
    assert_eq!(T.absent(None, at(5), None).verdict, Verdict::Keep);
}

/// One record of an org: what was committed when (milliseconds), with what was told of it.
#[derive(Debug, Clone)]
enum Deed {
    Set {
        field: u8,
        value: u8,
    },
    Toggle,
    GapSet {
        field: u8,
        value: u8,
    },
    Wait(u16),
    /// Deliver up to so many waiting events.
    Deliver(u8),
    /// Deliver the last so many events again, then go on.
    Repeat(u8),
    /// Deliver one event again, out of its place.
    Again(u8),
    /// A read by id; the replica is behind by so many milliseconds, at most the lag.
    Read {
        behind: u16,
    },
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let deed = prop_oneof![
        4 => (0..2_u8, any::<u8>()).prop_map(|(field, value)| Deed::Set { field, value }),
        1 => prop::strategy::Just(Deed::Toggle),
        1 => (0..2_u8, any::<u8>()).prop_map(|(field, value)| Deed::GapSet { field, value }),
        4 => (0..3000_u16).prop_map(Deed::Wait),
        4 => (1..4_u8).prop_map(Deed::Deliver),
        1 => (1..3_u8).prop_map(Deed::Repeat),
        1 => any::<u8>().prop_map(Deed::Again),
        2 => (0..LAG as u16).prop_map(|behind| Deed::Read { behind }),
    ];
    prop::collection::vec(deed, 1..40)
}

const LAG: i64 = 5000;

#[derive(Clone)]
struct Org {
    /// (commit time, alive, A, B), newest last.
    history: Vec<(i64, bool, [Option<u8>; 2])>,
    events: Vec<Event>,
}

struct Run<M> {
    table: M,
    now: i64,
    org: Org,
    delivered: usize,
    image: Option<Image>,
    owed: bool,
    published: Option<(bool, Fields)>,
}

fn stamp(ms: i64) -> i64 {
    ms.div_euclid(1000)
}

fn name(field: usize) -> &'static str {
    ["A", "B"][field]
}

fn text(value: Option<u8>) -> Value {
    value.map_or(Value::Null, |value| Value::from(value.to_string().as_str()))
}

impl<M: MergeTable> Run<M> {
    fn new(table: M) -> Self {
        let first = (0, true, [Some(0), None]);
        let org = Org {
            history: vec![first],
            events: Vec::new(),
        };
        Self {
            table,
            now: 1000,
            org,
            delivered: 0,
            image: None,
            owed: false,
            published: None,
        }
    }

    fn commit(&mut self, alive: bool, values: [Option<u8>; 2], event: Event) {
        self.org.history.push((self.now, alive, values));
        self.org.events.push(event);
    }

    fn take(&mut self, step: Step) {
        self.owed |= step.owe.is_some() || step.verdict == Verdict::ReadAgain;
        let publish = matches!(step.verdict, Verdict::Publish(_));
        if let Some(image) = step.image {
            if publish {
                self.published = Some((image.life == Life::Live, image.fields.clone()));
            }
            self.image = Some(image);
        }
    }

    fn deliver(&mut self, index: usize) {
        let event = self.org.events[index].clone();
        let step = self
            .table
            .event(self.image.take_clone(), &event, &carried());
        self.take(step);
    }

    fn read(&mut self, behind: i64) {
        let a = stamp(self.now) * 1000 - LAG;
        let seen = self.now - behind;
        let state = self
            .org
            .history
            .iter()
            .rev()
            .find(|(t, ..)| *t <= seen)
            .copied();
        let Some((_, alive, values)) = state else {
            return;
        };
        self.owed = false;
        let image = self.image.take_clone();
        let a = at(stamp(a));
        let step = if alive {
            let row = Row {
                fields: (0..2)
                    .map(|i| (FieldName::new(name(i)), text(values[i])))
                    .collect(),
                ..row(&[])
            };
            self.table.row(image, &row, a, None)
        } else {
            self.table.absent(image, a, None)
        };
        self.take(step);
    }

    fn step(&mut self, deed: &Deed) {
        let (_, alive, values) = *self.org.history.last().unwrap();
        let c = stamp(self.now);
        match *deed {
            Deed::Set { field, value } | Deed::GapSet { field, value } if alive => {
                let field = usize::from(field);
                let mut next = values;
                next[field] = (value % 5 != 0).then_some(value);
                let told = text(next[field]);
                let told: Vec<_> = vec![(name(field), told.as_text())];
                let kind = if matches!(deed, Deed::Set { .. }) {
                    EventKind::Update
                } else {
                    EventKind::Gap
                };
                let told = if kind == EventKind::Gap {
                    Vec::new()
                } else {
                    told
                };
                let event = event(kind, c, &told);
                self.commit(true, next, event);
            }
            Deed::Toggle => {
                let kind = if alive {
                    EventKind::Delete
                } else {
                    EventKind::Undelete
                };
                let texts = [text(values[0]), text(values[1])];
                let told: Vec<_> = if alive {
                    Vec::new()
                } else {
                    (0..2)
                        .filter(|i| values[*i].is_some())
                        .map(|i| (name(i), texts[i].as_text()))
                        .collect()
                };
                let event = event(kind, c, &told);
                self.commit(!alive, values, event);
            }
            Deed::Wait(ms) => self.now += i64::from(ms),
            Deed::Deliver(count) => {
                for _ in 0..count {
                    if self.delivered < self.org.events.len() {
                        self.deliver(self.delivered);
                        self.delivered += 1;
                    }
                }
            }
            Deed::Repeat(count) => {
                // A restart repeats a suffix in order; what ingest does not recognise merges again.
                let from = self.delivered.saturating_sub(usize::from(count));
                (from..self.delivered).for_each(|index| self.deliver(index));
            }
            Deed::Again(number) if self.delivered > 0 => {
                let events = &self.org.events;
                let index = usize::from(number) % self.delivered;
                // Within one second stamps tell nothing; ingest knows its newest events by name.
                let mut later = events[index + 1..self.delivered].iter();
                let c = events[index].committed_at;
                if later.all(|event| event.committed_at > c) {
                    self.deliver(index);
                }
            }
            Deed::Again(_) => {}
            Deed::Read { behind } => self.read(i64::from(behind)),
            Deed::Set { .. } | Deed::GapSet { .. } => {}
        }
    }

    /// Everything arrives, what is owed is read, and one full sync ends it; whether image and org agree.
    fn agrees_at_the_end(&mut self) -> bool {
        while self.delivered < self.org.events.len() {
            self.deliver(self.delivered);
            self.delivered += 1;
        }
        for _ in 0..4 {
            self.now += LAG + 2000;
            if self.owed || self.image.is_none() {
                self.read(0);
            }
        }
        let (_, alive, values) = *self.org.history.last().unwrap();
        let image = self.image.as_ref().unwrap();
        let held = |i: usize| image.fields.get(name(i)) == Some(&text(values[i]));
        let same_image = if alive {
            image.life == Life::Live && held(0) && held(1)
        } else {
            image.life != Life::Live
        };
        let same_topic = match &self.published {
            Some((live, told)) => *live == alive && (!alive || *told == image.fields),
            None => !alive,
        };
        same_image && same_topic
    }
}

trait TakeClone {
    fn take_clone(&self) -> Option<Image>;
}

impl TakeClone for Option<Image> {
    fn take_clone(&self) -> Option<Image> {
        self.clone()
    }
}

proptest! {
    #![proptest_config(proptest::test_runner::Config { cases: 4000, ..Default::default() })]

    #[test]
    fn random_histories_end_in_the_orgs_state(deeds in deeds()) {
        let mut run = Run::new(SalesforceTable);
        for deed in &deeds {
            run.step(deed);
        }
        assert!(run.agrees_at_the_end(), "image {:?}, org {:?}", run.image, run.org.history);
    }
}

/// The rule that others use: whatever carries the newer time stamp wins.
struct NewerWins;

impl MergeTable for NewerWins {
    fn event(&self, image: Option<Image>, event: &Event, carried: &BTreeSet<FieldName>) -> Step {
        let stripped = image.map(|image| Image {
            base: None,
            ..image
        });
        SalesforceTable.event(stripped, event, carried)
    }

    fn row(&self, image: Option<Image>, row: &Row, as_of: DateTime<Utc>, covered: Covered) -> Step {
        // The row's time is taken to be the time it was read.
        SalesforceTable.row(
            image,
            row,
            as_of + chrono::TimeDelta::milliseconds(LAG),
            covered,
        )
    }

    fn absent(&self, image: Option<Image>, as_of: DateTime<Utc>, covered: Covered) -> Step {
        SalesforceTable.absent(image, as_of + chrono::TimeDelta::milliseconds(LAG), covered)
    }
}

#[test]
fn the_same_histories_catch_the_rule_that_the_newer_stamp_wins() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut lost = 0;
    for _ in 0..1000 {
        let deeds = deeds().new_tree(&mut runner).unwrap();
        let mut run = Run::new(NewerWins);
        for deed in &prop::strategy::ValueTree::current(&deeds) {
            run.step(deed);
        }
        lost += usize::from(!run.agrees_at_the_end());
    }
    assert!(lost > 20, "only {lost} of 1000 histories caught it");
}

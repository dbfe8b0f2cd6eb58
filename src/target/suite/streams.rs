//! The suite on J2, J4 and J5 at random: whatever the batches, repetitions, restarts and order, the last
//! changes are there, as a model says that knows no batch.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use uuid::Uuid;

use super::Bench;
use super::plans::{Row, by_id, company, objects, person, row, text};
use super::world::Writer;
use crate::mapping::plan::{Cell, DestinationPlan, Life};
use crate::model::policy::{OnExit, OnNone};
use crate::model::version::Version;
use crate::target::port::{Released, StoredRow, Traced};

/// Records of each kind; a reference to the one after these never finds a row.
const RECORDS: u8 = 4;
const NEVER: u8 = RECORDS + 1;

/// A story of two topics, and how it is told to the target.
#[derive(Debug, Clone)]
struct Story {
    companies: Vec<Change>,
    people: Vec<Change>,
    moves: Vec<Move>,
    /// `on_delete` and `on_filter_exit`, of companies and of people.
    exits: [[OnExit; 2]; 2],
    kind: Kind,
}

/// What a story is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Records come and go, references find rows or wait.
    Lives,
    /// People need their company, which comes in the end.
    Needs,
    /// Two people have one e-mail and stay.
    Shares,
}

/// What a record becomes.
#[derive(Debug, Clone)]
struct Change {
    record: u8,
    life: Life,
    name: u8,
    /// 0: none.
    company: u8,
    manager: u8,
    /// It lands after changes with higher versions.
    late: bool,
}

/// What happens next.
#[derive(Debug, Clone)]
enum Move {
    Companies(usize),
    People(usize),
    /// The last changes of a topic come again, in batches of another size.
    Again {
        people: bool,
        back: usize,
        size: usize,
    },
    Release,
    Reopen,
}

/// One topic and its job.
struct Topic {
    writer: Writer,
    rows: Vec<Row>,
    position: usize,
    repeats: usize,
}

/// Runs random stories, each on a bench of its own.
pub fn whatever_comes_the_last_changes_are_there<B: Bench, F: Future<Output = B>>(
    bench: impl Fn() -> F,
) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let config = Config {
        cases: 64,
        failure_persistence: None,
        ..Config::default()
    };
    let told = TestRunner::new(config).run(&story(), |story| {
        runtime.block_on(async { tell(&mut bench().await, &story).await });
        Ok(())
    });
    if let Err(failed) = told {
        panic!("{failed}");
    }
}

async fn tell(bench: &mut dyn Bench, story: &Story) {
    bench.target().ensure(&objects()).await.unwrap();
    let [mut companies, mut people] = topics(bench, story).await;
    for step in &story.moves {
        match step {
            Move::Companies(count) => companies.go_on(*count).await,
            Move::People(count) => people.go_on(*count).await,
            Move::Again {
                people: true,
                back,
                size,
            } => people.again(bench, *back, *size).await,
            Move::Again { back, size, .. } => companies.again(bench, *back, *size).await,
            Move::Release => settle(&mut people).await,
            Move::Reopen => {
                bench.reopen().await;
                companies.writer = companies.writer.again(bench).await;
                people.writer = people.writer.again(bench).await;
            }
        }
    }
    people.go_on(usize::MAX).await;
    companies.go_on(usize::MAX).await;
    settle(&mut people).await;
    if story.kind == Kind::Shares {
        check_shared(&people, &story.people).await;
    } else {
        check(&companies, &people, story).await;
    }
}

async fn topics(bench: &dyn Bench, story: &Story) -> [Topic; 2] {
    let on_none = if story.kind == Kind::Needs {
        OnNone::Reject
    } else {
        OnNone::Null
    };
    let [[c_deleted, c_filtered], [p_deleted, p_filtered]] = story.exits;
    let companies = Arc::new(company().exits(c_deleted, c_filtered));
    let people = person()
        .derive(by_id("company", "company").on_none(on_none))
        .derive(by_id("manager", "person"))
        .exits(p_deleted, p_filtered);
    let people = Arc::new(people);
    let of_company = |(change, version): (&Change, u64)| {
        let record = format!("c{}", change.record);
        let row = row(&companies, &record, version).life(change.life);
        row.text("external_id", &record)
            .text("name", &change.name())
    };
    let of_person = |(change, version): (&Change, u64)| {
        let mut row = row_of_person(&people, change, version, story.kind);
        for (column, to, prefix) in [
            ("company", change.company, "c"),
            ("manager", change.manager, "p"),
        ] {
            if to != 0 {
                row = row.to(column, &[&format!("{prefix}{to}")]);
            }
        }
        row
    };
    let rows = [
        versions(&story.companies).map(of_company).collect(),
        versions(&story.people).map(of_person).collect(),
    ];
    let mut topics = Vec::new();
    for (job, rows) in ["companies", "people"].into_iter().zip(rows) {
        let mut writer = Writer::open(bench.target(), "acme", job).await;
        writer.object = job.into();
        topics.push(Topic {
            writer,
            rows,
            position: 0,
            repeats: 0,
        });
    }
    topics.try_into().unwrap_or_else(|_| unreachable!())
}

fn row_of_person(plan: &Arc<DestinationPlan>, change: &Change, version: u64, kind: Kind) -> Row {
    let record = format!("p{}", change.record);
    let mailbox = if kind == Kind::Shares {
        change.record % 2
    } else {
        change.record
    };
    let row = row(plan, &record, version).life(change.life);
    row.text("email", &format!("{mailbox}@x.example"))
        .text("name", &change.name())
}

/// Changes with their versions: a late one's is lower than those of some before it.
fn versions(changes: &[Change]) -> impl Iterator<Item = (&Change, u64)> {
    changes.iter().zip(10_u64..).map(|(change, place)| {
        let version = place * 10 - if change.late { 25 } else { 0 };
        (change, version)
    })
}

impl Change {
    fn name(&self) -> String {
        format!("n{}", self.name)
    }
}

impl Topic {
    async fn go_on(&mut self, count: usize) {
        let end = self.position.saturating_add(count).min(self.rows.len());
        let batch = fold(&self.rows[self.position..end]);
        self.position = end;
        self.writer.send(batch).await;
    }

    /// A reader of its own reads what was read before.
    async fn again(&mut self, bench: &dyn Bench, back: usize, size: usize) {
        let mut reader = self.writer.clone();
        self.repeats += 1;
        reader.reader.reader = format!("replay-{}", self.repeats);
        let mut reader = reader.again(bench).await;
        let from = self.position.saturating_sub(back);
        for batch in self.rows[from..self.position].chunks(size) {
            reader.send(fold(batch)).await;
        }
        self.writer.now = reader.now;
    }
}

/// The newest change of each record, as a job folds a batch.
fn fold(rows: &[Row]) -> Vec<Row> {
    let mut newest: BTreeMap<_, (usize, &Row)> = BTreeMap::new();
    for (place, row) in rows.iter().enumerate() {
        let held = newest.get(&row.row.record);
        if held.is_none_or(|(_, held)| held.row.version <= row.row.version) {
            newest.insert(row.row.record.clone(), (place, row));
        }
    }
    let mut folded: Vec<_> = newest.into_values().collect();
    folded.sort_by_key(|(place, _)| *place);
    folded.into_iter().map(|(_, row)| row.clone()).collect()
}

/// Releases until nothing more comes; changes run again as a job runs them.
async fn settle(people: &mut Topic) {
    for _ in 0..50 {
        let Released {
            filled, changes, ..
        } = people.writer.release().await;
        if filled == 0 && changes.is_empty() {
            return;
        }
        let due = people.rows.iter().filter(|row| {
            changes.iter().any(|change| {
                (&change.record, change.version) == (&row.row.record, row.row.version)
            })
        });
        let due: Vec<_> = due.cloned().collect();
        assert_eq!(due.len(), changes.len(), "{changes:?}");
        let mut batch = people.writer.batch(due);
        batch.next = batch.expect;
        assert!(people.writer.apply(batch).await.unwrap().committed);
    }
    panic!("released for ever");
}

/// What the newest change of each record says.
fn last_words(changes: &[Change]) -> BTreeMap<u8, (&Change, Version)> {
    let mut last = BTreeMap::new();
    for (change, version) in versions(changes) {
        let version = Version::new(1, version);
        let held = last.get(&change.record);
        if held.is_none_or(|(_, held)| *held < version) {
            last.insert(change.record, (change, version));
        }
    }
    last
}

async fn traced(topic: &Topic, prefix: &str) -> BTreeMap<u8, Traced> {
    let mut all = BTreeMap::new();
    for record in 1..=RECORDS {
        let mut traced = topic.writer.traced(&format!("{prefix}{record}")).await;
        assert!(traced.len() <= 1, "{traced:?}");
        all.extend(traced.pop().map(|traced| (record, traced)));
    }
    all
}

async fn check(companies: &Topic, people: &Topic, story: &Story) {
    let (c_last, p_last) = (last_words(&story.companies), last_words(&story.people));
    let (c_traced, p_traced) = (traced(companies, "c").await, traced(people, "p").await);
    for (table, last, traced, exits) in [
        ("company", &c_last, &c_traced, story.exits[0]),
        ("person", &p_last, &p_traced, story.exits[1]),
    ] {
        // Every row is some record's, and no two records have one.
        let mut rows = BTreeSet::new();
        let held = traced.values().filter_map(|traced| traced.row.as_ref());
        held.for_each(|row| assert!(rows.insert(row.gsid), "{table} shares a row"));
        let stored = companies.writer.all(table).await;
        let stored: BTreeSet<_> = stored.into_iter().map(|row| row.gsid).collect();
        assert_eq!(stored, rows, "{table}");
        for (record, (change, version)) in last {
            let traced = traced.get(record);
            check_life(change, *version, traced, exits);
        }
    }
    let mut waiting = 0;
    for traced in p_traced.values() {
        waiting += traced.parked.len() as u64;
    }
    assert_eq!(people.writer.parked().await, waiting);
    for (record, (change, _)) in &p_last {
        if change.life != Life::Present {
            continue;
        }
        let child = &p_traced[record];
        for (column, to, parents, parents_traced) in [
            ("company", change.company, &c_last, &c_traced),
            ("manager", change.manager, &p_last, &p_traced),
        ] {
            let is_present = parents
                .get(&to)
                .is_some_and(|(parent, _)| parent.life == Life::Present);
            let parent = parents_traced
                .get(&to)
                .and_then(|traced| traced.row.as_ref());
            check_reference(child, column, to, is_present, parent);
            if !is_present && to != 0 {
                let is_dangling = |gsid: Uuid| {
                    let mut rows = parents_traced
                        .values()
                        .filter_map(|traced| traced.row.as_ref());
                    rows.all(|row| row.gsid != gsid) || parent.is_some_and(|row| row.gsid == gsid)
                };
                let cell = child.row.as_ref().map(|row| row.cell(column));
                if let Some(Cell::Gsid(gsid)) = cell {
                    assert!(is_dangling(gsid), "{column} of p{record} is somebody else");
                }
            }
        }
    }
}

/// A present record has its last image; one that left is what its policy says.
fn check_life(change: &Change, version: Version, traced: Option<&Traced>, exits: [OnExit; 2]) {
    let row = traced.and_then(|traced| traced.row.as_ref());
    let policy = match change.life {
        Life::Present => {
            let traced = traced.unwrap_or_else(|| panic!("{change:?} left no trace"));
            let row = row.unwrap_or_else(|| panic!("{change:?} has no row: {traced:?}"));
            assert_eq!(traced.version, version);
            assert_eq!(row.cell("name"), text(&change.name()));
            assert_eq!(row.cell("crm_state"), Cell::Null);
            assert_eq!(row.cell("crm_state_at"), Cell::Null);
            return;
        }
        Life::Deleted => exits[0],
        Life::Filtered => exits[1],
    };
    // Where it left within the batch in which it came, there is none.
    let Some(row) = row else { return };
    match policy {
        OnExit::Delete => panic!("{change:?} has a row: {row:?}"),
        OnExit::Keep => {}
        OnExit::Mark => {
            let state = if change.life == Life::Deleted {
                "deleted"
            } else {
                "filtered"
            };
            assert_eq!(row.cell("crm_state"), text(state));
            assert_ne!(row.cell("crm_state_at"), Cell::Null);
        }
    }
}

/// A reference to a present record is its row; any other one waits, or names the row that was or is there.
fn check_reference(
    child: &Traced,
    column: &str,
    to: u8,
    is_present: bool,
    parent: Option<&StoredRow>,
) {
    let cell = child
        .row
        .as_ref()
        .map_or(Cell::Null, |row| row.cell(column));
    let waits = child.parked.iter().any(|parked| parked == column);
    let due = parent.map(|parent| Cell::Gsid(parent.gsid));
    match (to, is_present) {
        (0, _) => assert_eq!((&cell, waits), (&Cell::Null, false), "{column}: {child:?}"),
        (_, true) => assert_eq!((Some(cell), waits), (due, false), "{column}: {child:?}"),
        (_, false) => assert_eq!(cell == Cell::Null, waits, "{column}: {child:?}"),
    }
}

/// Two people with one e-mail are one row, as the last change of either says.
async fn check_shared(people: &Topic, changes: &[Change]) {
    let rows = people.writer.all("person").await;
    for mailbox in 0..2 {
        let last = changes
            .iter()
            .rev()
            .find(|change| change.record % 2 == mailbox);
        let email = text(&format!("{mailbox}@x.example"));
        let found: Vec<_> = rows
            .iter()
            .filter(|row| row.cell("email") == email)
            .collect();
        match last {
            None => assert!(found.is_empty()),
            Some(last) => {
                assert_eq!(found.len(), 1, "{found:?}");
                assert_eq!(found[0].cell("name"), text(&last.name()));
            }
        }
    }
    let traced = traced(people, "p").await;
    for change in changes {
        let row = traced[&change.record].row.as_ref();
        let email = text(&format!("{}@x.example", change.record % 2));
        assert_eq!(row.unwrap().cell("email"), email);
    }
}

fn story() -> impl Strategy<Value = Story> {
    let exit = || prop_oneof![Just(OnExit::Keep), Just(OnExit::Mark), Just(OnExit::Delete)];
    let exits = || [exit(), exit()];
    let kind = prop_oneof![3 => Just(Kind::Lives), 2 => Just(Kind::Needs), 1 => Just(Kind::Shares)];
    (
        prop::collection::vec(change(), 0..16),
        prop::collection::vec(change(), 1..24),
        prop::collection::vec(step(), 0..24),
        [exits(), exits()],
        kind,
        any::<bool>(),
    )
        .prop_map(|(companies, people, moves, exits, kind, lates)| {
            let story = Story {
                companies,
                people,
                moves,
                exits,
                kind,
            };
            fit(story, lates)
        })
}

/// Makes a story one of its kind.
fn fit(mut story: Story, lates: bool) -> Story {
    for change in story.companies.iter_mut().chain(&mut story.people) {
        change.late &= lates && story.kind != Kind::Shares;
        if story.kind == Kind::Shares {
            change.life = Life::Present;
        }
    }
    if story.kind == Kind::Needs {
        for change in &mut story.companies {
            change.life = Life::Present;
        }
        for change in &mut story.people {
            change.company = change.company.min(RECORDS);
        }
        story.companies.extend((1..=RECORDS).map(|record| Change {
            record,
            life: Life::Present,
            name: 9,
            company: 0,
            manager: 0,
            late: false,
        }));
    }
    story
}

fn change() -> impl Strategy<Value = Change> {
    let life =
        prop_oneof![5 => Just(Life::Present), 1 => Just(Life::Deleted), 1 => Just(Life::Filtered)];
    let late = prop::bool::weighted(0.2);
    (1..=RECORDS, life, 0..4_u8, 0..=NEVER, 0..=NEVER, late).prop_map(
        |(record, life, name, company, manager, late)| Change {
            record,
            life,
            name,
            company,
            manager,
            late,
        },
    )
}

fn step() -> impl Strategy<Value = Move> {
    prop_oneof![
        4 => (1..5_usize).prop_map(Move::Companies),
        5 => (1..6_usize).prop_map(Move::People),
        2 => (any::<bool>(), 1..12_usize, 1..5_usize)
            .prop_map(|(people, back, size)| Move::Again { people, back, size }),
        3 => Just(Move::Release),
        1 => Just(Move::Reopen),
    ]
}

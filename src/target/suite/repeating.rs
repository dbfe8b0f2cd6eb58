//! The suite on J2 and I7: what comes again, late or under a lower term changes nothing, and nothing is passed over
//! unheard.

use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::Bench;
use super::plans::{Row, by_id, company, deleted, filtered, objects, person, row, text};
use super::world::{Writer, begin};
use crate::mapping::plan::{DestinationPlan, Life};
use crate::model::policy::{OnExit, OnNone};
use crate::model::record_id::RecordId;
use crate::model::version::Version;
use crate::target::port::Outcome::{self, Associated, Ignored, Inserted, Stale};
use crate::target::port::{StoredRow, Traced};

/// A record that never passed the filter is known all the same: what is older stays older.
pub async fn a_filtered_record_is_known_before_it_is_stored(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    for (n, policy) in [OnExit::Keep, OnExit::Mark, OnExit::Delete]
        .into_iter()
        .enumerate()
    {
        let plan = Arc::new(company().exits(policy, policy));
        let (record, other) = (format!("a{n}"), format!("b{n}"));
        let named = |record: &str, version| row(&plan, record, version).text("external_id", record);
        assert_eq!(writer.one(filtered(&plan, &record, 5)).await, Ignored);
        bench.reopen().await;
        writer = writer.again(bench).await;
        let traced = writer.traced(&record).await;
        assert_eq!(traced.len(), 1);
        let known = (traced[0].version, &traced[0].row);
        assert_eq!(known, (Version::new(1, 5), &None));
        let held = |version| Stale(Version::new(1, version));
        assert_eq!(writer.one(named(&record, 4)).await, held(5));
        // Again, later, and gone meanwhile.
        assert_eq!(writer.one(filtered(&plan, &record, 5)).await, Ignored);
        assert_eq!(writer.one(filtered(&plan, &record, 7)).await, Ignored);
        assert_eq!(writer.one(deleted(&plan, &record, 8)).await, Ignored);
        assert_eq!(writer.one(filtered(&plan, &record, 9)).await, Ignored);
        assert_eq!(writer.one(named(&record, 8)).await, held(9));
        assert!(writer.row_of("company", &record).await.is_none());
        // When it passes it is matched as if it were new.
        let twin = row(&plan, &other, 1).text("external_id", &record);
        assert_eq!(writer.one(twin).await, Inserted);
        assert_eq!(writer.one(named(&record, 10)).await, Associated);
        let gsid = writer.gsid_of("company", &other).await;
        assert_eq!(writer.gsid_of("company", &record).await, gsid);
        let (fresh, mut passing) = (format!("c{n}"), format!("c{n}"));
        assert_eq!(writer.one(filtered(&plan, &fresh, 5)).await, Ignored);
        passing.push('!');
        let row = row(&plan, &fresh, 5).text("external_id", &passing);
        assert_eq!(writer.one(row).await, Inserted, "an equal one is applied");
    }
}

/// A change that waits is gone with the exit, and does not come back.
pub async fn a_filter_exit_ends_what_waits_for_good(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let plan = Arc::new(person().derive(by_id("company", "company").on_none(OnNone::Reject)));
    let waiting = |version| row(&plan, "p", version).to("company", &["c"]);
    assert_eq!(writer.one(waiting(3)).await, Outcome::Parked);
    assert_eq!(writer.one(filtered(&plan, "p", 4)).await, Ignored);
    assert_eq!(writer.one(waiting(3)).await, Stale(Version::new(1, 4)));
    writer.one(row(&Arc::new(company()), "c", 1)).await;
    assert_eq!(writer.one(waiting(3)).await, Stale(Version::new(1, 4)));
    assert_eq!(writer.parked().await, 0);
    assert!(writer.all("person").await.is_empty());
}

/// I7: what is outranked keeps its batch back until it was asked for.
pub async fn the_outranked_is_asked_for_before_it_is_passed(bench: &mut dyn Bench) {
    let mut writer = begin(bench).await;
    let (companies, persons) = (Arc::new(company()), Arc::new(person()));
    let of_term = |plan: &Arc<DestinationPlan>, record: &str, term| {
        let mut row = row(plan, record, 1).text("name", &format!("of {term}"));
        row.row.version = Version::new(term, 1);
        row
    };
    writer
        .send([of_term(&companies, "a", 3), of_term(&companies, "b", 3)])
        .await;
    let before = writer.all("company").await;
    let rows = || {
        [
            of_term(&companies, "a", 2),
            of_term(&companies, "b", 3),
            of_term(&companies, "c", 2),
            of_term(&persons, "a", 2),
        ]
    };
    let outranked = Stale(Version::new(3, 1));
    let told = writer.apply(writer.batch(rows())).await.unwrap();
    assert!(!told.committed);
    assert_eq!(told.outcomes[0][0], outranked);
    assert_eq!(writer.all("company").await, before);
    assert!(writer.all("person").await.is_empty());
    // Somebody else was asked for.
    let mut batch = writer.batch(rows());
    batch.asked_again.insert(RecordId::stored("c"));
    assert!(!writer.apply(batch).await.unwrap().committed);
    bench.reopen().await;
    let mut writer = writer.again(bench).await;
    assert_eq!(writer.owned.next, 1, "the offset stays");
    let mut batch = writer.batch(rows());
    batch.asked_again.insert(RecordId::stored("a"));
    let told = writer.apply(batch).await.unwrap();
    assert!(told.committed);
    let outcomes: Vec<_> = told.outcomes.into_iter().flatten().collect();
    assert_eq!(
        outcomes,
        [outranked, Outcome::Unchanged, Inserted, Inserted]
    );
    let name = writer.cell_of("company", "a", "name").await;
    assert_eq!(name, text("of 3"));
    // An older one of the same term is an everyday thing, unless what is held was lost with its topic.
    let mut older = of_term(&companies, "b", 3);
    older.row.version = Version::new(3, 0);
    for (since, committed) in [(0, true), (3, true), (4, false)] {
        let mut batch = writer.batch([older.clone()]);
        batch.since = since;
        let told = writer.apply(batch).await.unwrap();
        assert_eq!(
            (told.committed, &told.outcomes[0][0]),
            (committed, &Stale(Version::new(3, 1)))
        );
    }
}

const RECORDS: u8 = 4;

/// What one record becomes.
#[derive(Debug, Clone)]
struct Step {
    record: u8,
    /// Per destination.
    lives: [Life; 2],
    name: u8,
    /// It refers to somebody who never comes.
    refers: bool,
    /// How many changes back its version lies.
    late: u64,
}

/// A stream, what its destinations do, and how it is cut.
#[derive(Debug, Clone)]
struct Stream {
    steps: Vec<Step>,
    exits: [[OnExit; 2]; 2],
    on_none: OnNone,
    sizes: Vec<usize>,
    from: prop::sample::Index,
}

/// Delivers random streams, and then random ends of them again.
pub fn an_end_that_comes_again_changes_nothing<B: Bench, F: Future<Output = B>>(
    bench: impl Fn() -> F,
) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let config = Config {
        cases: 48,
        failure_persistence: None,
        ..Config::default()
    };
    let told = TestRunner::new(config).run(&stream(), |stream| {
        runtime.block_on(async { repeat(&mut bench().await, &stream).await });
        Ok(())
    });
    if let Err(failed) = told {
        panic!("{failed}");
    }
}

async fn repeat(bench: &mut dyn Bench, stream: &Stream) {
    bench.target().ensure(&objects()).await.unwrap();
    let [of_company, of_person] = stream.exits;
    let person = person().derive(by_id("manager", "person").on_none(stream.on_none));
    let plans = [
        Arc::new(company().exits(of_company[0], of_company[1])),
        Arc::new(person.exits(of_person[0], of_person[1])),
    ];
    let changes: Vec<[Row; 2]> = stream
        .steps
        .iter()
        .zip(10_u64..)
        .map(|(step, place)| step.rows(&plans, place))
        .collect();
    let mut writer = Writer::open(bench.target(), "acme", "sync").await;
    deliver(&mut writer, &changes, &[1]).await;
    let before = picture(&writer).await;
    bench.reopen().await;
    let mut writer = writer.again(bench).await;
    let from = stream.from.index(changes.len());
    deliver(&mut writer, &changes[from..], &stream.sizes).await;
    assert_eq!(picture(&writer).await, before, "from {from} again");
}

/// Batches of these sizes, over and over; of several changes of a record in a batch the newest.
async fn deliver(writer: &mut Writer, mut changes: &[[Row; 2]], sizes: &[usize]) {
    for size in sizes.iter().cycle() {
        if changes.is_empty() {
            return;
        }
        let (batch, rest) = changes.split_at((*size).min(changes.len()));
        let is_newest = |(at, change): &(usize, &[Row; 2])| {
            let own = &change[0].row;
            batch.iter().enumerate().all(|(other_at, other)| {
                let other = &other[0].row;
                other.record != own.record || (other.version, other_at) <= (own.version, *at)
            })
        };
        let newest = batch.iter().enumerate().filter(is_newest);
        let rows: Vec<Row> = newest.flat_map(|(_, change)| change.clone()).collect();
        writer.send(rows).await;
        changes = rest;
    }
}

/// Everything there is, dates and all.
async fn picture(writer: &Writer) -> (Vec<StoredRow>, Vec<Vec<Traced>>, u64) {
    let mut rows = writer.all("company").await;
    rows.extend(writer.all("person").await);
    let mut traced = Vec::new();
    for record in 0..RECORDS {
        let mut of = writer.traced(&format!("r{record}")).await;
        of.sort_by(|one, other| one.table.cmp(&other.table));
        traced.push(of);
    }
    (rows, traced, writer.parked().await)
}

impl Step {
    fn rows(&self, plans: &[Arc<DestinationPlan>; 2], place: u64) -> [Row; 2] {
        let record = format!("r{}", self.record);
        // No two changes have one version.
        let version = (place - self.late) * 100 + place;
        let name = format!("n{}", self.name);
        let company = row(&plans[0], &record, version)
            .life(self.lives[0])
            .text("external_id", &record)
            .text("name", &name);
        let mut person = row(&plans[1], &record, version)
            .life(self.lives[1])
            .text("email", &record)
            .text("name", &name);
        if self.refers {
            person = person.to("manager", &["never"]);
        }
        [company, person]
    }
}

fn stream() -> impl Strategy<Value = Stream> {
    let exit = || prop_oneof![Just(OnExit::Keep), Just(OnExit::Mark), Just(OnExit::Delete)];
    let exits = || [exit(), exit()];
    let on_none = prop_oneof![Just(OnNone::Null), Just(OnNone::Reject)];
    (
        prop::collection::vec(step(), 1..20),
        [exits(), exits()],
        on_none,
        prop::collection::vec(1..6_usize, 1..4),
        any::<prop::sample::Index>(),
    )
        .prop_map(|(steps, exits, on_none, sizes, from)| Stream {
            steps,
            exits,
            on_none,
            sizes,
            from,
        })
}

/// A record is deleted as a whole; each destination has a filter of its own.
fn step() -> impl Strategy<Value = Step> {
    let passes = || prop_oneof![3 => Just(Life::Present), 2 => Just(Life::Filtered)];
    let lives = prop_oneof![
        6 => [passes(), passes()],
        1 => Just([Life::Deleted, Life::Deleted]),
    ];
    let late = prop_oneof![2 => Just(0), 1 => 1..7_u64];
    (0..RECORDS, lives, 0..3_u8, any::<bool>(), late).prop_map(
        |(record, lives, name, refers, late)| Step {
            record,
            lives,
            name,
            refers,
            late,
        },
    )
}

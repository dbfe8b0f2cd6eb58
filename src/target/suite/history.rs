//! Random histories: what records become, cut into batches, run on a target, and looked at.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use chrono::TimeDelta;
use proptest::prelude::*;
use uuid::Uuid;

use super::Bench;
use super::plans::{Row, by, by_id, company, on, person, plan, row, sibling};
use super::world::{Writer, begin, start};
use crate::mapping::plan::{Cell, DestinationPlan, Life, Reference};
use crate::model::policy::{OnEmptyIdentifier, OnExit, OnMultiple, OnNone};
use crate::model::record_id::RecordId;
use crate::model::stored::StoredType;
use crate::target::memory::MemoryTarget;
use crate::target::port::{Outcome, ParkedChange, Target, Traced};

const RECORDS: u8 = 6;
const TABLES: [&str; 3] = ["company", "person", "company person"];

pub struct Memory(pub Arc<MemoryTarget>);

#[async_trait::async_trait]
impl Bench for Memory {
    fn target(&self) -> Arc<dyn Target> {
        Arc::clone(&self.0) as _
    }

    async fn reopen(&mut self) {
        self.0 = Arc::new(self.0.reopen());
    }
}

/// How the destinations of one history are set.
#[derive(Debug, Clone)]
pub struct Policies {
    company: OnNone,
    manager: OnNone,
    any: bool,
    empty: OnEmptyIdentifier,
    exits: [OnExit; 2],
    insert_only: bool,
    keep_on_null: bool,
}

/// What one record becomes; small numbers, so that records meet.
#[derive(Debug, Clone)]
pub struct Step {
    record: u8,
    life: Life,
    /// Which key (0: none), and whether in another spelling.
    key: Option<(u8, bool)>,
    name: Option<u8>,
    company: Option<u8>,
    manager: Option<u8>,
    /// How far back the version lies; mostly not at all.
    late: u64,
    link: bool,
}

pub type Plans = [Arc<DestinationPlan>; 3];

pub fn plans(policies: &Policies) -> Plans {
    let multiple = if policies.any {
        OnMultiple::Any
    } else {
        OnMultiple::Error
    };
    let [on_delete, on_filter_exit] = policies.exits;
    let companies = company().exits(on_delete, on_filter_exit);
    let by_key = by(
        "company",
        "company",
        vec![on("external_id", StoredType::String)],
    );
    let mut persons = person()
        .derive(by_key.on_none(policies.company).on_multiple(multiple))
        .derive(by_id("manager", "person").on_none(policies.manager))
        .exits(on_filter_exit, on_delete);
    persons.on_empty_identifier = policies.empty;
    persons.column("name").insert_only = policies.insert_only;
    persons.column("notes").keep_on_null = policies.keep_on_null;
    let links = plan("company person", &[("role", StoredType::String)])
        .derive(sibling("person", "person"))
        .derive(by_id("company", "company"))
        .exits(OnExit::Delete, OnExit::Mark);
    [Arc::new(companies), Arc::new(persons), Arc::new(links)]
}

fn spelled(key: u8, other: bool, mail: bool) -> String {
    match (other, mail) {
        (false, _) => format!("k{key}"),
        (true, true) => format!(" K{key}\t"),
        (true, false) => format!("k{key} "),
    }
}

fn text_of(value: Option<u8>) -> Option<Cell> {
    value.map(|value| {
        if value == 0 {
            Cell::Null
        } else {
            Cell::Text(format!("n{value}").into())
        }
    })
}

impl Step {
    /// The rows of a person's change, or of a company's.
    pub fn rows(&self, plans: &Plans, version: u64) -> Vec<Row> {
        let version = version.saturating_sub(self.late);
        let record = format!("r{}", self.record);
        let at = start() + TimeDelta::seconds(version.cast_signed());
        let key = |mail: bool| {
            self.key.map(|(key, other)| match key {
                0 => Cell::Null,
                key => Cell::Text(spelled(key, other, mail).into()),
            })
        };
        if self.record.is_multiple_of(2) {
            let row = row(&plans[0], &record, version)
                .life(self.life)
                .committed_at(at);
            return vec![
                row.cell("external_id", key(false))
                    .cell("name", text_of(self.name)),
            ];
        }
        let reference = |value: Option<u8>, prefix: &str| {
            value.map(|value| match value {
                0 => Reference::Empty,
                value => Reference::Values(vec![Cell::Text(format!("{prefix}{value}").into())]),
            })
        };
        let odd = self
            .manager
            .map(|manager| if manager == 0 { 0 } else { manager | 1 });
        let person = row(&plans[1], &record, version)
            .life(self.life)
            .committed_at(at)
            .cell("email", key(true))
            .cell("name", text_of(self.name))
            .cell("notes", text_of(self.name))
            .reference("company", reference(self.company, "k"))
            .reference("manager", reference(odd, "r"));
        let mut rows = vec![person];
        if self.link {
            let even = self.company.map(|company| company & !1);
            let link = row(&plans[2], &record, version)
                .life(self.life)
                .sibling("person");
            rows.push(link.reference("company", reference(even, "r")));
        }
        rows
    }
}

pub fn policies() -> impl Strategy<Value = Policies> {
    let on_none = || {
        prop_oneof![
            Just(OnNone::Null),
            Just(OnNone::Reject),
            Just(OnNone::Skip),
            Just(OnNone::Default(Uuid::from_u128(7)))
        ]
    };
    let exit = || prop_oneof![Just(OnExit::Keep), Just(OnExit::Mark), Just(OnExit::Delete)];
    let empty = prop_oneof![
        Just(OnEmptyIdentifier::Insert),
        Just(OnEmptyIdentifier::Reject)
    ];
    (
        on_none(),
        on_none(),
        any::<bool>(),
        empty,
        [exit(), exit()],
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(
            |(company, manager, any, empty, exits, insert_only, keep_on_null)| Policies {
                company,
                manager,
                any,
                empty,
                exits,
                insert_only,
                keep_on_null,
            },
        )
}

pub fn step() -> impl Strategy<Value = Step> {
    let life =
        prop_oneof![5 => Just(Life::Present), 1 => Just(Life::Deleted), 1 => Just(Life::Filtered)];
    let mostly = |values: std::ops::Range<u8>| prop::option::weighted(0.85, values);
    let late = prop_oneof![6 => Just(0), 1 => 1..6_u64];
    (
        0..RECORDS,
        life,
        prop::option::weighted(0.9, (0..4_u8, any::<bool>())),
        mostly(0..3),
        mostly(0..4),
        mostly(0..RECORDS),
        late,
        any::<bool>(),
    )
        .prop_map(
            |(record, life, key, name, company, manager, late, link)| Step {
                record,
                life,
                key,
                name,
                company,
                manager,
                late,
                link,
            },
        )
}

/// Cuts a history into batches in which a record comes once.
pub fn cut(steps: &[Step], sizes: &[usize]) -> Vec<Vec<(u64, Step)>> {
    let mut sizes = sizes.iter().cycle();
    let (mut batches, mut batch) = (Vec::new(), Vec::new());
    let mut room = *sizes.next().unwrap();
    for (version, step) in (10..).zip(steps) {
        let twice = batch
            .iter()
            .any(|(_, other): &(u64, Step)| other.record == step.record);
        if room == 0 || twice {
            batches.push(std::mem::take(&mut batch));
            room = *sizes.next().unwrap();
        }
        batch.push((version, step.clone()));
        room = room.saturating_sub(1);
    }
    batches.push(batch);
    batches
}

/// Cuts where companies and persons change places, so that no batch brings what comes before another one's
/// look-ups behind them.
pub fn cut_by_kind(steps: &[Step], sizes: &[usize]) -> Vec<Vec<(u64, Step)>> {
    let mut batches = Vec::new();
    for batch in cut(steps, sizes) {
        batches.extend(
            batch
                .chunk_by(|(_, one), (_, next)| one.record % 2 == next.record % 2)
                .map(<[_]>::to_vec),
        );
    }
    batches
}

/// Nothing leaves for good, and no policy decides by what is there at the moment.
pub fn lasting() -> impl Strategy<Value = Policies> {
    let exit = || prop_oneof![Just(OnExit::Keep), Just(OnExit::Mark)];
    let company = prop_oneof![Just(OnNone::Null), Just(OnNone::Reject)];
    (company, [exit(), exit()]).prop_map(|(company, exits)| Policies {
        company,
        manager: OnNone::Null,
        any: true,
        empty: OnEmptyIdentifier::Insert,
        exits,
        insert_only: false,
        keep_on_null: false,
    })
}

/// A record keeps its key and its destinations, so that what is found once stays found; those that share a row
/// refer to the same.
pub fn steady(mut step: Step) -> Step {
    let (key, other) = (
        step.record / 2 % 2 + 1,
        step.key.is_some_and(|(_, other)| other),
    );
    step.key = Some((key, other));
    step.company = step.company.map(|_| 2 * key - 1);
    step.manager = step.manager.map(|_| 5 - 2 * key);
    step.link = step.record % 4 == 1;
    step
}

/// With all fields, and a row of its own: where rows are shared, the last change of one record that leaves cells
/// alone (an absent field, a kept row) does not bring back what another one's stale change wrote over.
pub fn whole(mut step: Step) -> Step {
    step.key = step.key.map(|(_, other)| (step.record / 2 + 1, other));
    for field in [&mut step.name, &mut step.company, &mut step.manager] {
        *field = field.or(Some(0));
    }
    step
}

/// The last word on each record; those that share a row agree on it.
pub fn last_words() -> impl Strategy<Value = Vec<Step>> {
    let one = (prop::option::of(0..4_u8), 0..RECORDS, any::<bool>());
    prop::collection::vec(one, usize::from(RECORDS)).prop_map(|given| {
        let mut steps = Vec::new();
        for record in 0..RECORDS {
            let (company, manager, other) = given[usize::from(record / 2 % 2 * 2 + record % 2)];
            steps.push(steady(Step {
                record,
                life: Life::Present,
                key: Some((1, other)),
                name: Some(manager),
                company: company.or(Some(1)),
                manager: Some(manager),
                late: 0,
                link: given[usize::from(record)].2,
            }));
        }
        steps
    })
}

/// Applies a batch as a job does: what is rejected is taken out, and the rest applied.
pub async fn apply(writer: &mut Writer, mut rows: Vec<Row>) -> Vec<Vec<String>> {
    let mut told = Vec::new();
    loop {
        let applied = writer.apply(writer.batch(rows.clone())).await.unwrap();
        let outcomes = applied.outcomes.iter().flatten();
        told.push(
            outcomes
                .clone()
                .map(|outcome| match outcome {
                    Outcome::Rejected(_) => "rejected".to_owned(),
                    other => format!("{other:?}"),
                })
                .collect(),
        );
        if applied.committed {
            return told;
        }
        // Outcomes come by destination, as the batch has them.
        let batch = writer.batch(rows.clone());
        let records = batch
            .destinations
            .iter()
            .flat_map(|destination| destination.rows.iter());
        let bad: BTreeSet<RecordId> = records
            .zip(outcomes)
            .filter(|(_, outcome)| matches!(outcome, Outcome::Rejected(_)))
            .map(|(row, _)| row.record.clone())
            .collect();
        assert!(!bad.is_empty());
        rows.retain(|row| !bad.contains(&row.row.record));
    }
}

/// Releases until nothing more comes, running parked changes again; what was filled.
pub async fn settle(writer: &mut Writer, changes: &HashMap<(String, u64), Vec<Row>>) -> u64 {
    let (mut filled, mut before) = (0, Vec::new());
    for _ in 0..100 {
        let released = writer.release().await;
        filled += released.filled;
        let due = |change: &ParkedChange| (change.record.to_string(), change.version.counter());
        let ready: Vec<_> = released.changes.iter().map(due).collect();
        // A change that is rejected when it is run again stays: it comes with each release.
        if ready == before && released.filled == 0 {
            return filled;
        }
        for key in &ready {
            apply(writer, changes[key].clone()).await;
        }
        before = ready;
    }
    panic!("released for ever");
}

/// Everything there is, free of GSIDs and dates: a row is named by the records that hold it.
pub async fn picture(writer: &Writer) -> BTreeMap<(String, String), String> {
    let mut traced: Vec<(String, Traced)> = Vec::new();
    for n in 0..RECORDS {
        let record = format!("r{n}");
        traced.extend(
            writer
                .traced(&record)
                .await
                .into_iter()
                .map(|entry| (record.clone(), entry)),
        );
    }
    let mut holders: HashMap<Uuid, BTreeSet<&str>> = HashMap::new();
    for (record, entry) in &traced {
        if let Some(row) = &entry.row {
            holders.entry(row.gsid).or_default().insert(record);
        }
    }
    let mut rows = 0;
    for table in TABLES {
        rows += writer.all(table).await.len();
    }
    assert_eq!(rows, holders.len(), "a row without a record");
    let shown = |cell: &Cell| match cell {
        // A reference to a row that left is as good as none: it is right again when that comes back.
        Cell::Gsid(gsid) => holders
            .get(gsid)
            .map_or("Null".to_owned(), |holders| format!("{holders:?}")),
        Cell::DateTime(_) => "date".to_owned(),
        other => format!("{other:?}"),
    };
    let mut picture = BTreeMap::new();
    for (record, entry) in &traced {
        let columns = entry
            .row
            .iter()
            .flat_map(|row| &row.columns)
            .filter(|(name, _)| name != "gsid");
        let columns: Vec<_> = columns
            .map(|(name, cell)| format!("{name}={}", shown(cell)))
            .collect();
        let holders = entry.row.as_ref().map(|row| &holders[&row.gsid]);
        let told = format!("{} {holders:?} {columns:?}", entry.version);
        picture.insert((record.clone(), entry.table.clone()), told);
    }
    picture
}

/// Runs a history on a target; outcomes, and what is left.
pub async fn run(
    bench: &mut dyn Bench,
    plans: &Plans,
    batches: &[Vec<(u64, Step)>],
    releases: &[bool],
) -> (Vec<Vec<Vec<String>>>, Writer) {
    let mut writer = begin(bench).await;
    let changes = changes(plans, batches);
    let mut told = Vec::new();
    for (batch, release) in batches.iter().zip(releases.iter().cycle()) {
        let rows = batch
            .iter()
            .flat_map(|(version, step)| step.rows(plans, *version));
        told.push(apply(&mut writer, rows.collect()).await);
        if *release {
            let filled = settle(&mut writer, &changes).await;
            told.push(vec![vec![format!(
                "{filled} filled, {} parked",
                writer.parked().await
            )]]);
        }
    }
    (told, writer)
}

pub fn changes(plans: &Plans, batches: &[Vec<(u64, Step)>]) -> HashMap<(String, u64), Vec<Row>> {
    let steps = batches.iter().flatten();
    let rows = steps.map(|(version, step)| {
        let rows = step.rows(plans, *version);
        (
            (
                rows[0].row.record.to_string(),
                rows[0].row.version.counter(),
            ),
            rows,
        )
    });
    rows.collect()
}

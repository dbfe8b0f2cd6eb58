//! What a store must hold when everything has come to rest: the org's records, each once, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use uuid::Uuid;

use crate::flow::simulation::world::World;
use crate::mapping::plan::Cell;
use crate::model::change::Change;
use crate::model::name::ObjectName;
use crate::model::policy::{OnExit, OnNone};
use crate::model::record_id::RecordId;
use crate::model::value::Fields;
use crate::model::version::Version;
use crate::target::memory::MemoryTarget;
use crate::target::port::{RowsPage, StoredRow, Target, Traced};

use super::jobs::{Destination, Job, Jobs, Reference, STAGES, text_of};
use super::seams::Flaw;
use super::witness::Witness;

/// What of the store is not held against it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Excuses {
    /// A topic was lost with its deletes: rows of records of which nobody can tell any more may be left over.
    pub damaged: bool,
    /// What waits may have expired.
    pub expires: bool,
    /// Nobody publishes again who refers to what went since.
    pub unheard: bool,
    pub flaw: Flaw,
}

/// What was found besides being right.
#[derive(Debug, Clone, Copy, Default)]
pub struct Found {
    pub rows: usize,
    pub waiting: usize,
    pub references: usize,
    pub leftover: usize,
}

impl Found {
    pub fn add(&mut self, other: &Self) {
        self.rows += other.rows;
        self.waiting += other.waiting;
        self.references += other.references;
        self.leftover += other.leftover;
    }
}

/// A store laid open beside the org.
struct Open<'a> {
    witness: &'a Witness,
    excuses: Excuses,
    stored: BTreeMap<&'static str, BTreeMap<RecordId, Traced>>,
    rows: BTreeMap<&'static str, BTreeSet<Uuid>>,
    found: Found,
}

/// Whether a record's change waits.
enum Waits {
    Not,
    Surely,
    /// What waits is refused by now, or applied already.
    Perhaps,
}

/// One record on trial.
struct Case<'a> {
    job: &'a Job,
    record: &'a RecordId,
    live: Option<&'a Fields>,
    newest: &'a Change,
}

/// Compares a store with the org.
pub async fn judge(
    world: &World,
    jobs: &Jobs,
    target: &MemoryTarget,
    witness: &Witness,
    excuses: Excuses,
) -> Result<Found, String> {
    let mut open = Open {
        witness,
        excuses,
        stored: BTreeMap::new(),
        rows: BTreeMap::new(),
        found: Found::default(),
    };
    open.read(world, jobs, target).await?;
    for job in &jobs.all {
        let truth = world.org.truth(&job.object);
        let newest = newest(world, &job.object).await;
        let (mut waiting, mut perhaps) = (0, 0);
        let records: BTreeSet<&RecordId> = truth.keys().chain(newest.keys()).collect();
        for record in records {
            let Some(newest) = newest.get(record) else {
                return Err(format!("{}: topic lacks {record}", job.object));
            };
            let case = Case {
                job,
                record,
                live: truth.get(record),
                newest,
            };
            match open.record(&case)? {
                Waits::Not => {}
                Waits::Surely => waiting += 1,
                Waits::Perhaps => perhaps += 1,
            }
        }
        open.forgotten(job, &newest)?;
        open.waits(job, waiting..=waiting + perhaps, target).await?;
    }
    Ok(open.found)
}

async fn newest(world: &World, object: &ObjectName) -> BTreeMap<RecordId, Change> {
    let mut newest: BTreeMap<RecordId, Change> = BTreeMap::new();
    for change in world.changes(object).await {
        let held = newest.get(&change.id).map(|held| held.version);
        if held.is_none_or(|held| held <= change.version) {
            newest.insert(change.id.clone(), change);
        }
    }
    newest
}

impl Open<'_> {
    /// Reads every table, and what the ledger says of every record the org ever had.
    async fn read(
        &mut self,
        world: &World,
        jobs: &Jobs,
        target: &MemoryTarget,
    ) -> Result<(), String> {
        let records: Vec<_> = world.org.lock().records.keys().cloned().collect();
        for job in &jobs.all {
            for to in &job.destinations {
                self.stored.entry(to.table).or_default();
                let page = RowsPage {
                    limit: 100_000,
                    ..RowsPage::default()
                };
                let rows = target.rows(to.table, page).await.unwrap();
                let rows: BTreeSet<Uuid> = rows.iter().map(|row| row.gsid).collect();
                self.rows.insert(to.table, rows);
            }
        }
        for (object, record) in records {
            let traced = target.trace(&world.connection, &object, &record);
            for traced in traced.await.unwrap() {
                let (table, _) = self.rows.get_key_value(traced.table.as_str()).unwrap();
                let of = self.stored.entry(*table).or_default();
                of.insert(record.clone(), traced);
            }
        }
        for (table, rows) in &self.rows {
            let held = self.stored[table].values();
            let held: Vec<Uuid> = held.filter_map(|of| Some(of.row.as_ref()?.gsid)).collect();
            let distinct: BTreeSet<Uuid> = held.iter().copied().collect();
            if distinct.len() != held.len() || distinct != *rows {
                return Err(format!("{table} has rows {rows:?}, of records {held:?}"));
            }
            self.found.rows += rows.len();
        }
        Ok(())
    }

    fn record(&mut self, case: &Case) -> Result<Waits, String> {
        let Case { job, record, .. } = case;
        if case.live.is_some() != case.newest.is_alive() {
            return Err(format!(
                "{record} is {:?}, told {:?}",
                case.live, case.newest
            ));
        }
        let version = case.newest.version;
        if let Some(fields) = case.live.filter(|fields| job.refuses(fields)) {
            if !self.witness.has_letter(&job.object, record, version) {
                return Err(format!("{record} at {version} has no letter: {fields:?}"));
            }
            return Ok(Waits::Perhaps);
        }
        // A change that waits in one destination waits in those after it.
        let (mut lacks, mut waits) = (false, false);
        let expired = self.witness.has_letter(&job.object, record, version);
        for to in &job.destinations {
            match case.live {
                Some(fields) if job.takes(fields, to) => {
                    let mut references = to.references.iter();
                    lacks |=
                        references.any(|of| of.on_none == OnNone::Reject && self.lacks(of, fields));
                    waits |= self.present(case, fields, to, lacks)?;
                }
                Some(_) if lacks || expired => {}
                Some(_) => self.left(case, to, to.on_filter_exit, "filtered")?,
                None => self.left(case, to, to.on_delete, "deleted")?,
            }
        }
        // What has expired waits no more.
        Ok(match (waits && !expired, lacks) {
            (true, _) => Waits::Surely,
            // Applied while everything was there, and again when something had left.
            (false, true) => Waits::Perhaps,
            (false, false) => Waits::Not,
        })
    }

    fn traced(&self, table: &str, record: &RecordId) -> Option<&Traced> {
        self.stored[table].get(record)
    }

    fn row(&self, table: &str, record: &str) -> Option<&StoredRow> {
        let traced = self.traced(table, &RecordId::stored(record))?;
        traced.row.as_ref()
    }

    fn is_at(&self, traced: Option<&Traced>, version: Version) -> bool {
        let lax = self.excuses.flaw == Flaw::ForgetsVersions;
        traced.is_some_and(|traced| lax || traced.version == version)
    }

    fn lacks(&self, of: &Reference, fields: &Fields) -> bool {
        let parent = text_of(fields, of.field);
        parent.is_some_and(|parent| self.row(of.table, parent).is_none())
    }

    /// A record that is to have a row there; whether it waits instead.
    fn present(
        &mut self,
        case: &Case,
        fields: &Fields,
        to: &Destination,
        waits: bool,
    ) -> Result<bool, String> {
        let (table, record, version) = (to.table, case.record, case.newest.version);
        let mut references = to.references.iter();
        let may_wait =
            waits || references.any(|of| of.on_none == OnNone::Reject && self.lacks(of, fields));
        let traced = self.traced(table, record);
        if !self.is_at(traced, version) {
            let object = &case.job.object;
            let expired = self.excuses.expires && self.witness.has_letter(object, record, version);
            return if may_wait || expired {
                Ok(true)
            } else {
                Err(format!(
                    "{table} of {record} is {traced:?}, in the org at {version} {fields:?}"
                ))
            };
        }
        let Some(Traced {
            row: Some(row),
            parked,
            ..
        }) = traced.cloned()
        else {
            return Err(format!("{table} lacks {record} at {version}: {fields:?}"));
        };
        let cell = |column: &str| {
            let mut columns = row.columns.iter();
            let found = columns.find(|(name, _)| name == column);
            found.map_or(Cell::Null, |(_, cell)| cell.clone())
        };
        for (column, field) in &to.columns {
            let expected = expected(record, fields, field);
            if cell(column) != expected {
                let held = cell(column);
                return Err(format!(
                    "{table}.{column} of {record} is {held:?}, in the org {expected:?}"
                ));
            }
        }
        if cell("crm_state") != Cell::Null {
            return Err(format!("{table} of {record} is marked and lives: {row:?}"));
        }
        if let Some((column, other)) = to.sibling {
            let own = self.row(other, record.as_str()).map(|row| row.gsid);
            if own.is_none() || cell(column) != Cell::Gsid(own.unwrap_or_default()) {
                return Err(format!("{table}.{column} of {record} is not its {other}"));
            }
        }
        for of in &to.references {
            let held = cell(of.column);
            let is_parked = parked.iter().any(|column| column == of.column);
            self.reference(case, fields, of, &held, is_parked)
                .map_err(|why| format!("{table}.{} of {record}: {why}", of.column))?;
            self.found.references += usize::from(held != Cell::Null);
        }
        Ok(false)
    }

    fn reference(
        &self,
        case: &Case,
        fields: &Fields,
        of: &Reference,
        held: &Cell,
        parked: bool,
    ) -> Result<(), String> {
        let expired =
            self.excuses.expires && self.witness.has_expired(&case.job.object, case.record);
        let Some(parent) = text_of(fields, of.field) else {
            return match (held, parked) {
                (Cell::Null, false) => Ok(()),
                _ => Err(format!(
                    "{held:?}, parked {parked}; no reference in the org"
                )),
            };
        };
        if let Some(row) = self.row(of.table, parent) {
            let fits = *held == Cell::Gsid(row.gsid) && !parked;
            return if fits || (expired && *held == Cell::Null) {
                Ok(())
            } else {
                Err(format!(
                    "{held:?}, parked {parked}; {parent} is {}",
                    row.gsid
                ))
            };
        }
        match held {
            Cell::Null if of.on_none == OnNone::Null && (parked || expired) => Ok(()),
            // The parent left after, and is the same row when it comes back.
            Cell::Gsid(gsid) if !parked && self.excuses.unheard => {
                match self.witness.gsid(of.table, &RecordId::stored(parent)) {
                    Some(before) if before == *gsid => Ok(()),
                    before => Err(format!("{gsid} is not {parent}, which was {before:?}")),
                }
            }
            _ => Err(format!("{held:?}, parked {parked}; {parent} is not there")),
        }
    }

    /// A record that left, or never was there.
    fn left(
        &self,
        case: &Case,
        to: &Destination,
        policy: OnExit,
        state: &str,
    ) -> Result<(), String> {
        let (table, record, version) = (to.table, case.record, case.newest.version);
        let traced = self.traced(table, record);
        let Some(found) = traced else {
            return Err(format!(
                "{table} knows nothing of {record}, {state} at {version}"
            ));
        };
        if !self.is_at(traced, version) {
            return Err(format!(
                "{table} of {record}, {state} at {version}, is {found:?}"
            ));
        }
        let Some(row) = &found.row else {
            return Ok(());
        };
        let told = row.columns.iter().find(|(name, _)| name == "crm_state");
        let told = told.map(|(_, cell)| cell.clone());
        match policy {
            OnExit::Keep => Ok(()),
            OnExit::Mark if told == Some(Cell::Text(state.into())) => Ok(()),
            _ => Err(format!(
                "{table} of {record}, {state} at {version}, has {row:?}"
            )),
        }
    }

    /// Records that the store knows and the topic does not.
    fn forgotten(&mut self, job: &Job, newest: &BTreeMap<RecordId, Change>) -> Result<(), String> {
        for to in &job.destinations {
            let stored = self.stored[to.table].iter();
            for (record, traced) in stored.filter(|(record, _)| !newest.contains_key(*record)) {
                if !self.excuses.damaged {
                    return Err(format!("{} holds {record}: {traced:?}", to.table));
                }
                self.found.leftover += usize::from(traced.row.is_some());
            }
        }
        Ok(())
    }

    /// As many changes wait as there are reasons for.
    async fn waits(
        &mut self,
        job: &Job,
        waiting: RangeInclusive<usize>,
        target: &MemoryTarget,
    ) -> Result<(), String> {
        let parked = target.parked().await.unwrap();
        let of_job = parked.iter().filter(|(_, of, _)| of.as_str() == job.id);
        let all: u64 = of_job.map(|(_, _, count)| count).sum();
        let tables = job.destinations.iter().map(|to| &self.stored[to.table]);
        let columns: usize = tables
            .flat_map(BTreeMap::values)
            .map(|traced| traced.parked.len())
            .sum();
        let changes = usize::try_from(all).unwrap() - columns;
        self.found.waiting += changes;
        // What waited may have been lost with its topic, and nobody tells that it died.
        let lost = self.excuses.damaged && changes > *waiting.end();
        if waiting.contains(&changes)
            || lost
            || (self.excuses.expires && changes < *waiting.start())
        {
            return Ok(());
        }
        Err(format!(
            "{changes} changes of {} are parked, {waiting:?} have to wait",
            job.id
        ))
    }
}

fn expected(record: &RecordId, fields: &Fields, field: &str) -> Cell {
    let text = match field {
        "Id" => Some(record.as_str()),
        "Stage" => text_of(fields, field).map(|stage| {
            let mut stages = STAGES.iter();
            stages.find(|(from, _)| *from == stage).unwrap().1
        }),
        _ => text_of(fields, field),
    };
    text.map_or(Cell::Null, |text| Cell::Text(text.into()))
}

//! Verify: rows of the CRM beside what images and the store make of them, record by record. Nothing is changed.
//!
//! The daemon goes on meanwhile, so what differs is looked at twice: what a change on its way explains is equal then.

use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::crm::port::{Crm, Selection};
use crate::fault::Fault;
use crate::image::beside::ImagesBeside;
use crate::image::merge::{Image, Life};
use crate::mapping::compile::{Mapped, Mapping};
use crate::mapping::decimal;
use crate::mapping::plan::{self, Cell, DestinationPlan, MappedRow};
use crate::model::change::{Change, Op, Origin, WIRE_VERSION};
use crate::model::event::Row;
use crate::model::name::{FieldName, ObjectKey};
use crate::model::policy::OnExit;
use crate::model::record_id::RecordId;
use crate::model::value::{Fields, Value};
use crate::model::version::Version;
use crate::runtime::clock::Clock;
use crate::target::beside::StoreBeside;
use crate::target::port::review::Bond;
use crate::target::port::{StoredRow, Traced};

/// Images read, and records asked for, at a time.
const PAGE: usize = 500;
/// What an image is called among the fields and columns of a finding.
const IMAGE: &str = "image";
/// How many records are looked at twice; more than that are told as they are.
const MOST_DOUBTS: usize = 20_000;

/// What is compared with what.
pub struct Verify<'a> {
    /// The CRM.
    pub crm: &'a dyn Crm,
    /// The images.
    pub images: &'a dyn ImagesBeside,
    /// The store.
    pub store: &'a dyn StoreBeside,
    /// The date.
    pub clock: Arc<dyn Clock>,
    /// The object.
    pub key: ObjectKey,
    /// What its jobs select.
    pub fields: BTreeSet<FieldName>,
    /// Its jobs.
    pub mappings: Vec<Arc<Mapping>>,
    /// How long a change may be on its way.
    pub patience: Duration,
}

/// What was found of one object.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Records that were compared.
    pub compared: u64,
    /// Those that are equal everywhere.
    pub equal: u64,
    /// Those with other values.
    pub different: u64,
    /// Those that the CRM has and images or the store have not.
    pub missing: u64,
    /// Those that images or the store have and the CRM has not.
    pub extra: u64,
    /// In how many records each field or column differs: `field`, or `table.column`.
    pub fields: BTreeMap<String, u64>,
    /// The records that are not equal, as many as were asked for.
    pub found: Vec<Finding>,
}

/// A record that is not equal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The record.
    pub record: RecordId,
    /// How.
    pub how: How,
    /// The fields, and the columns with their tables; of a record that is missing or extra, `image` and the tables.
    pub fields: Vec<String>,
}

/// How a record differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// Values.
    Different,
    /// The CRM has it.
    Missing,
    /// The CRM has it not.
    Extra,
}

/// What one look at a record tells: nothing, if all agree.
type Verdict = Option<(How, BTreeSet<String>)>;

/// Records that get no row in a table.
type Ignored = HashSet<(RecordId, String)>;

impl Verify<'_> {
    /// Compares every record, or so many by chance; tells at most `tell` findings.
    ///
    /// # Errors
    /// A fault of the CRM, the images or the store.
    pub async fn run(&self, sample: Option<usize>, tell: usize) -> Result<Verified, Fault> {
        let mut verified = Verified::default();
        let ignored = self.ignored().await?;
        let doubts = match sample {
            Some(count) => self.look_at_some(count, &ignored, &mut verified).await?,
            None => self.look_at_all(&ignored, &mut verified).await?,
        };
        if !doubts.is_empty() {
            tokio::time::sleep(self.patience).await;
        }
        let doubts: Vec<RecordId> = doubts.into_iter().collect();
        for some in doubts.chunks(PAGE) {
            for (record, verdict) in self.look(some.to_vec(), &ignored).await? {
                verified.count(record, verdict, tell);
            }
        }
        Ok(verified)
    }

    /// Every record of the CRM, then the images that it did not tell of.
    async fn look_at_all(
        &self,
        ignored: &Ignored,
        verified: &mut Verified,
    ) -> Result<BTreeSet<RecordId>, Fault> {
        let (mut seen, mut doubts) = (HashSet::new(), BTreeSet::new());
        let mut pages = self.crm.read_all(&self.selection(), None).await?;
        while let Some(page) = pages.next().await? {
            for rows in page.rows.chunks(PAGE) {
                seen.extend(rows.iter().map(|row| row.record.clone()));
                for (record, verdict) in self.judge(rows, &[], ignored).await? {
                    verified.note(record, &verdict, &mut doubts);
                }
            }
        }
        self.look_for_others(&seen, &mut doubts).await?;
        verified.compared += doubts
            .iter()
            .filter(|record| !seen.contains(*record))
            .count() as u64;
        Ok(doubts)
    }

    /// What images and the store hold and the CRM did not tell of.
    async fn look_for_others(
        &self,
        seen: &HashSet<RecordId>,
        doubts: &mut BTreeSet<RecordId>,
    ) -> Result<(), Fault> {
        let mut after = None;
        loop {
            let images = self.images.page(&self.key, after.take(), PAGE).await?;
            let Some((last, _)) = images.last() else {
                break;
            };
            after = Some(last.clone());
            let live = images
                .into_iter()
                .filter(|(record, image)| image.life == Life::Live && !seen.contains(record));
            doubts.extend(live.map(|(record, _)| record));
        }
        let plans = self.mappings.iter().map(|mapping| mapping.plan());
        for destination in plans.flat_map(|plan| &plan.destinations) {
            let mut after: Option<RecordId> = None;
            loop {
                let table = &destination.table;
                let held = self.store.held(&self.key, table, after.as_ref(), PAGE);
                let held = held.await?;
                let Some(last) = held.last() else {
                    break;
                };
                after = Some(last.record.clone());
                let others = held.into_iter().filter(|held| {
                    let row = held.row.as_ref();
                    !seen.contains(&held.record)
                        && row.is_some_and(|row| !left_by(destination.on_delete, row))
                });
                doubts.extend(others.map(|held| held.record));
            }
        }
        Ok(())
    }

    /// Records that images hold, by chance, read by id.
    async fn look_at_some(
        &self,
        count: usize,
        ignored: &Ignored,
        verified: &mut Verified,
    ) -> Result<BTreeSet<RecordId>, Fault> {
        let chance = RandomState::new();
        let mut chosen: BinaryHeap<(u64, RecordId)> = BinaryHeap::new();
        let mut after = None;
        loop {
            let images = self.images.page(&self.key, after.take(), PAGE).await?;
            let Some((last, _)) = images.last() else {
                break;
            };
            after = Some(last.clone());
            for (record, image) in images {
                if image.life == Life::Live {
                    chosen.push((chance.hash_one(&record), record));
                }
                if chosen.len() > count {
                    chosen.pop();
                }
            }
        }
        let chosen: Vec<RecordId> = chosen.into_iter().map(|(_, record)| record).collect();
        let mut doubts = BTreeSet::new();
        for some in chosen.chunks(PAGE) {
            for (record, verdict) in self.look(some.to_vec(), ignored).await? {
                verified.note(record, &verdict, &mut doubts);
            }
        }
        Ok(doubts)
    }

    /// Reads records by id and judges them.
    async fn look(
        &self,
        records: Vec<RecordId>,
        ignored: &Ignored,
    ) -> Result<Vec<(RecordId, Verdict)>, Fault> {
        let found = self.crm.read_ids(&self.selection(), &records).await?;
        self.judge(&found.rows, &found.absent, ignored).await
    }

    fn selection(&self) -> Selection {
        Selection {
            object: self.key.object.clone(),
            fields: self.fields.iter().cloned().collect(),
        }
    }

    async fn judge(
        &self,
        rows: &[Row],
        absent: &[RecordId],
        ignored: &Ignored,
    ) -> Result<Vec<(RecordId, Verdict)>, Fault> {
        let records = rows.iter().map(|row| row.record.clone());
        let records: Vec<RecordId> = records.chain(absent.iter().cloned()).collect();
        let images = self.images.images(&self.key, records).await?;
        let mut verdicts = Vec::with_capacity(rows.len() + absent.len());
        for row in rows {
            let verdict = self.of_row(row, images.get(&row.record), ignored).await?;
            verdicts.push((row.record.clone(), verdict));
        }
        for record in absent {
            let verdict = self.of_absent(record, images.get(record)).await?;
            verdicts.push((record.clone(), verdict));
        }
        Ok(verdicts)
    }

    /// A record that the CRM has.
    async fn of_row(
        &self,
        row: &Row,
        image: Option<&Image>,
        ignored: &Ignored,
    ) -> Result<Verdict, Fault> {
        let Some(image) = image.filter(|image| image.life == Life::Live) else {
            return Ok(Some((How::Missing, [IMAGE.to_owned()].into())));
        };
        let mut differing: BTreeSet<String> = self
            .fields
            .iter()
            .filter(|field| field.as_str() != "Id")
            .filter(|field| value(&row.fields, field) != value(&image.fields, field))
            .map(|field| field.as_str().to_owned())
            .collect();
        let traced = self.trace(&row.record).await?;
        let (change, now) = (self.change(row, image.version), self.clock.now());
        let mut missing = false;
        for mapping in &self.mappings {
            // What is refused or lacks a field is told by `errors` and `holes`.
            let Mapped::Rows(rows) = mapping.map(&change, (0, 0), now) else {
                continue;
            };
            for (destination, row) in mapping.plan().destinations.iter().zip(rows) {
                let held = traced.iter().find(|held| held.table == destination.table);
                match stored(destination, &row, held) {
                    Stored::Equal => {}
                    Stored::Missing => {
                        let own = (row.record.clone(), destination.table.clone());
                        if !ignored.contains(&own) {
                            missing = true;
                            differing.insert(destination.table.clone());
                        }
                    }
                    Stored::Differs(columns) => {
                        if !self.is_shared(destination, held).await? {
                            differing.extend(columns);
                        }
                    }
                }
            }
        }
        Ok(match (missing, differing.is_empty()) {
            (true, _) => Some((How::Missing, differing)),
            (false, false) => Some((How::Different, differing)),
            (false, true) => None,
        })
    }

    /// A record that the CRM has not: no image of it lives, and its rows are what `on_delete` leaves.
    async fn of_absent(&self, record: &RecordId, image: Option<&Image>) -> Result<Verdict, Fault> {
        let mut extra = BTreeSet::new();
        if image.is_some_and(|image| image.life == Life::Live) {
            extra.insert(IMAGE.to_owned());
        }
        let traced = self.trace(record).await?;
        for mapping in &self.mappings {
            for destination in &mapping.plan().destinations {
                let held = traced.iter().find(|held| held.table == destination.table);
                let row = held.and_then(|held| held.row.as_ref());
                if row.is_some_and(|row| !left_by(destination.on_delete, row)) {
                    extra.insert(destination.table.clone());
                }
            }
        }
        Ok((!extra.is_empty()).then_some((How::Extra, extra)))
    }

    /// Whether several records hold a row: which of them wrote a column last, none of them says.
    async fn is_shared(
        &self,
        destination: &DestinationPlan,
        held: Option<&Traced>,
    ) -> Result<bool, Fault> {
        let Some(row) = held.and_then(|held| held.row.as_ref()) else {
            return Ok(false);
        };
        let holders = self.store.holders(&destination.table, &[row.gsid]).await?;
        Ok(holders.values().any(|holders| holders.len() > 1))
    }

    /// What a person said that it gets no row.
    async fn ignored(&self) -> Result<Ignored, Fault> {
        let bindings = self.store.bindings().await?.into_iter();
        let own = bindings.filter(|binding| {
            binding.bond == Bond::Ignored
                && (&binding.connection, &binding.object)
                    == (&self.key.connection, &self.key.object)
        });
        Ok(own.map(|binding| (binding.record, binding.table)).collect())
    }

    async fn trace(&self, record: &RecordId) -> Result<Vec<Traced>, Fault> {
        let (connection, object) = (&self.key.connection, &self.key.object);
        self.store.trace(connection, object, record).await
    }

    fn change(&self, row: &Row, version: Version) -> Change {
        Change {
            v: WIRE_VERSION,
            connection: self.key.connection.clone(),
            object: self.key.object.clone(),
            id: row.record.clone(),
            op: Op::Snapshot,
            version,
            committed_at: row.modified_at,
            origin: Origin::Reconcile,
            position: None,
            transaction: None,
            changed: Vec::new(),
            fields: row.fields.clone(),
            row: None,
            synced: None,
        }
    }
}

impl Verified {
    /// Whether source, images and store agree.
    #[must_use]
    pub const fn agrees(&self) -> bool {
        self.different == 0 && self.missing == 0 && self.extra == 0
    }

    /// Takes note of a first look.
    fn note(&mut self, record: RecordId, verdict: &Verdict, doubts: &mut BTreeSet<RecordId>) {
        self.compared += 1;
        match verdict {
            None => self.equal += 1,
            Some(_) if doubts.len() < MOST_DOUBTS => {
                doubts.insert(record);
            }
            Some((how, fields)) => self.tell(*how, fields),
        }
    }

    /// Takes note of a second look.
    fn count(&mut self, record: RecordId, verdict: Verdict, tell: usize) {
        let Some((how, fields)) = verdict else {
            self.equal += 1;
            return;
        };
        self.tell(how, &fields);
        if self.found.len() < tell {
            let fields = fields.into_iter().collect();
            self.found.push(Finding {
                record,
                how,
                fields,
            });
        }
    }

    fn tell(&mut self, how: How, fields: &BTreeSet<String>) {
        match how {
            How::Different => self.different += 1,
            How::Missing => self.missing += 1,
            How::Extra => self.extra += 1,
        }
        for field in fields {
            *self.fields.entry(field.clone()).or_default() += 1;
        }
    }
}

/// What the store has of a row that the mapping yields.
enum Stored {
    Equal,
    Missing,
    Differs(Vec<String>),
}

fn stored(destination: &DestinationPlan, row: &MappedRow, held: Option<&Traced>) -> Stored {
    let there = held.and_then(|held| held.row.as_ref());
    match (row.life, there) {
        (plan::Life::Present, None) => Stored::Missing,
        (plan::Life::Present, Some(there)) => {
            let columns = columns(destination, row, there);
            if columns.is_empty() {
                Stored::Equal
            } else {
                Stored::Differs(columns)
            }
        }
        (_, None) => Stored::Equal,
        (_, Some(there)) if left_by(destination.on_filter_exit, there) => Stored::Equal,
        (..) => Stored::Differs(vec![format!("{}.crm_state", destination.table)]),
    }
}

/// Whether a row may be there though its record takes no part.
fn left_by(policy: OnExit, row: &StoredRow) -> bool {
    match policy {
        OnExit::Keep => true,
        OnExit::Mark => cell(row, "crm_state").is_some_and(|state| *state != Cell::Null),
        OnExit::Delete => false,
    }
}

/// The columns that differ. Those that depend on the record's history are left out, scheduled ones too, and so are looked-up ones, which no
/// row of the CRM holds.
fn columns(destination: &DestinationPlan, row: &MappedRow, there: &StoredRow) -> Vec<String> {
    let mapped = destination.columns.iter().zip(&row.cells);
    let mut differing: Vec<String> = mapped
        .filter(|(column, _)| !column.insert_only && !destination.owners.contains_key(&column.name))
        .filter(|(column, _)| !destination.scheduled.contains(&column.name))
        .filter_map(|(column, wanted)| {
            let wanted = wanted.as_ref()?;
            let kept = column.keep_on_null && *wanted == Cell::Null;
            let held = cell(there, &column.name).unwrap_or(&Cell::Null);
            (!kept && !is_equal(wanted, held)).then_some(&column.name)
        })
        .map(|column| format!("{}.{column}", destination.table))
        .collect();
    if cell(there, "crm_state").is_some_and(|state| *state != Cell::Null) {
        differing.push(format!("{}.crm_state", destination.table));
    }
    differing
}

fn cell<'a>(row: &'a StoredRow, column: &str) -> Option<&'a Cell> {
    let mut columns = row.columns.iter();
    let found = columns.find(|(name, _)| name == column);
    found.map(|(_, cell)| cell)
}

fn is_equal(wanted: &Cell, held: &Cell) -> bool {
    match (wanted, held) {
        (Cell::Number(wanted), Cell::Number(held)) => decimal::compare(wanted, held).is_eq(),
        (Cell::DateTime(wanted), Cell::DateTime(held)) => micros(wanted) == micros(held),
        _ => wanted == held,
    }
}

/// Stores keep microseconds.
const fn micros(at: &DateTime<Utc>) -> i64 {
    at.timestamp_micros()
}

/// Absent and empty are one for a reader of all fields.
fn value<'a>(fields: &'a Fields, field: &FieldName) -> &'a Value {
    fields.get(field).unwrap_or(&Value::Null)
}

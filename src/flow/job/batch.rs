//! A batch: decoded, folded to one change per record, mapped; and what became of it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};

use crate::fault::{Fault, FaultKind};
use crate::log::port::Record;
use crate::mapping::compile::Mapped;
use crate::mapping::plan::{DestinationPlan, Life, MappedRow};
use crate::model::change::Origin;
use crate::model::change::selected::Selected;
use crate::model::name::ObjectName;
use crate::model::policy::OnExit;
use crate::model::record_id::RecordId;
use crate::state::runs::Taken;
use crate::target::port::brake::{Brake, Toll};
use crate::target::port::sweep::Unmet;
use crate::target::port::{Applied, Batch, DestinationBatch, Outcome, ParkedKey, ReaderKey};

use super::JobRoad;
use super::commit::Seat;
use super::letters::Letter;

/// Whether changes are applied in their turn, or again because what they waited for has come.
#[derive(Debug)]
pub(super) enum Run {
    /// The lag is measured.
    First,
    /// They are read again: what they are is settled, brakes count what that does, and the lag says nothing.
    Replay,
    /// They are parked still: what is refused has to be forgotten once its letter is written.
    Again(HashMap<RecordId, ParkedKey>),
}

/// A batch on its way into the target.
pub(super) struct Work {
    /// Letters of what could not be decoded or mapped; to be written before the commit.
    pub letters: Vec<Letter>,
    /// Records and rows by outcome.
    pub counts: BTreeMap<&'static str, u64>,
    /// The run that it is part of.
    pub counts_for: Arc<str>,
    /// Records, applied or refused.
    pub records: u64,
    /// The partition.
    pub partition: u32,
    /// Brakes count what lies at this offset or later.
    pub accepted_to: u64,
    /// What it took, as brakes count.
    pub took: Toll,
    /// And what they do not count.
    pub accepted: Taken,
    /// Rejected records that brakes have counted.
    pub rejected: u64,
    /// Commit stamps of the stream's changes.
    pub streamed: Vec<DateTime<Utc>>,
    /// Rows were written that others may wait for.
    pub wrote: bool,
    /// Rows whose change does not wait any more.
    pub settled: u64,
    /// The term since which the topic is what it is.
    pub since: u64,
    run: Run,
    /// Records that the ledger outranks and that were asked for again.
    asked_again: HashSet<RecordId>,
    object: ObjectName,
    destinations: Vec<DestinationBatch>,
    originals: HashMap<RecordId, Letter>,
}

/// A record of the topic, and the change that it is.
pub(super) struct Told<'a> {
    record: &'a Record,
    /// `None` for a tombstone: it says that the log forgot the record, whose delete came before.
    change: Option<Result<Selected<'a>, Fault>>,
}

impl Told<'_> {
    pub(super) const fn offset(&self) -> u64 {
        self.record.offset
    }

    /// Whether a read told it, and which: the stream's changes are [`Origin::Stream`] and what these owed. Nothing that
    /// can't be decoded says what it is.
    pub(super) fn is_read(&self) -> Option<bool> {
        let change = self.change.as_ref()?.as_ref().ok()?;
        Some(matches!(
            change.origin,
            Origin::Snapshot | Origin::Reconcile
        ))
    }
}

/// Reads one partition's records.
pub(super) fn decode<'a>(road: &JobRoad, records: &'a [Record]) -> Vec<Told<'a>> {
    let read = |record: &'a Record| {
        let change = record.value.as_ref().map(|value| {
            let change = road.mapping.read(value);
            change.map_err(|error| Fault::new(FaultKind::Record, "decoding change").source(error))
        });
        Told { record, change }
    };
    records.iter().map(read).collect()
}

/// The records that are told of; a tombstone tells of one that is no more.
pub(super) fn met(told: &[Told<'_>]) -> Vec<RecordId> {
    let met = told.iter().filter_map(|told| match told.change.as_ref()? {
        Ok(change) => Some(change.id.clone()),
        Err(_) => {
            let key = String::from_utf8_lossy(&told.record.key);
            Some(RecordId::stored(key))
        }
    });
    let met: BTreeSet<RecordId> = met.collect();
    met.into_iter().collect()
}

/// Decodes, folds and maps one partition's records.
pub(super) fn prepare(road: &JobRoad, records: &[Record], run: Run) -> Work {
    fold(road, decode(road, records), run)
}

/// Folds and maps what one partition's records told.
pub(super) fn fold(road: &JobRoad, told: Vec<Told<'_>>, run: Run) -> Work {
    let mut work = Work::empty(road, run);
    let now = road.clock.now();
    work.partition = told.first().map_or(0, |told| told.record.partition);
    let changes = work.newest(told);
    if work.is_first() {
        work.records = (changes.len() + work.letters.len()) as u64;
    }
    let mut rows: Vec<Vec<MappedRow>> = Vec::new();
    rows.resize_with(work.destinations.len(), || {
        Vec::with_capacity(changes.len())
    });
    let mut images = Vec::with_capacity(changes.len());
    for (record, change) in changes {
        if let Some(mapped) = work.map(road, record, &change, now) {
            rows.iter_mut()
                .zip(mapped)
                .for_each(|(rows, row)| rows.push(row));
            images.push(record.value.clone().unwrap_or_default());
        }
    }
    // Every destination has a row of every change.
    let images = Arc::new(images);
    for (destination, rows) in work.destinations.iter_mut().zip(rows) {
        destination.rows = Arc::new(rows);
        destination.images = Arc::clone(&images);
    }
    work
}

/// What the target said of a batch that it did not commit.
pub(super) struct HeldUp {
    /// Letters of the records that it rejects.
    pub letters: Vec<Letter>,
    /// Records of which the ledger holds a version that the topic's owner does not know: one of a higher term, or
    /// one that the topic lost.
    pub outranked: Vec<RecordId>,
}

impl Work {
    /// Nothing to be written.
    pub(super) fn empty(road: &JobRoad, run: Run) -> Self {
        let plan = road.mapping.plan();
        let destinations = plan
            .destinations
            .iter()
            .map(|destination| DestinationBatch {
                plan: Arc::clone(destination),
                rows: Arc::default(),
                images: Arc::default(),
            });
        Self {
            letters: Vec::new(),
            counts: BTreeMap::new(),
            counts_for: Arc::from(""),
            records: 0,
            partition: 0,
            accepted_to: 0,
            took: Toll::default(),
            accepted: Taken::default(),
            rejected: 0,
            streamed: Vec::new(),
            wrote: false,
            settled: 0,
            since: 0,
            run,
            asked_again: HashSet::new(),
            object: plan.source.clone(),
            destinations: destinations.collect(),
            originals: HashMap::new(),
        }
    }

    /// Deletes of records that a replay has not met, at the versions at which they held their rows.
    pub(super) fn leaving(road: &JobRoad, partition: u32, unmet: &[Unmet]) -> Self {
        let mut work = Self::empty(road, Run::Replay);
        work.partition = partition;
        for destination in &mut work.destinations {
            let plan = &destination.plan;
            let of_table = unmet.iter().filter(|one| one.table == plan.table);
            let leaves = |one: &Unmet| MappedRow {
                record: one.record.clone(),
                version: one.version,
                place: (partition, 0),
                synced: None,
                committed_at: None,
                life: Life::Deleted,
                cells: vec![None; plan.columns.len()],
                references: vec![None; plan.derives.len()],
            };
            let rows: Vec<MappedRow> = of_table.map(leaves).collect();
            destination.images = Arc::new(vec![Bytes::new(); rows.len()]);
            destination.rows = Arc::new(rows);
        }
        for one in unmet {
            let letter = Letter {
                key: Bytes::copy_from_slice(one.record.as_str().as_bytes()),
                value: None,
                reason: String::new(),
                destination: None,
                partition,
                offset: 0,
            };
            work.originals.insert(one.record.clone(), letter);
        }
        work.records = work.originals.len() as u64;
        work.asked_again = work.originals.keys().cloned().collect();
        work
    }

    /// The newest change of each record, lowest offset first. The highest version wins, not the last (a request
    /// of a dead process may land late); of equal versions the last.
    fn newest<'a>(&mut self, told: Vec<Told<'a>>) -> Vec<(&'a Record, Selected<'a>)> {
        let mut newest: HashMap<RecordId, (&Record, Selected<'_>)> =
            HashMap::with_capacity(told.len());
        for Told { record, change } in told {
            let change = match change {
                None => continue,
                Some(Ok(change)) => change,
                Some(Err(fault)) => {
                    self.set_aside(Letter::of(record, fault.report()));
                    continue;
                }
            };
            if matches!(self.run, Run::First) && change.origin == Origin::Stream {
                self.streamed.extend(change.committed_at);
            }
            match newest.get(&change.id) {
                Some((_, held)) if held.version > change.version => self.count("folded"),
                held => {
                    if held.is_some() {
                        self.count("folded");
                    }
                    newest.insert(change.id.clone(), (record, change));
                }
            }
        }
        let mut changes: Vec<_> = newest.into_values().collect();
        changes.sort_unstable_by_key(|(record, _)| record.offset);
        changes
    }

    /// A change's row per destination.
    fn map(
        &mut self,
        road: &JobRoad,
        record: &Record,
        change: &Selected<'_>,
        now: DateTime<Utc>,
    ) -> Option<Vec<MappedRow>> {
        match road
            .mapping
            .map_selected(change, (record.partition, record.offset), now)
        {
            Mapped::Rows(rows) => {
                self.originals
                    .insert(change.id.clone(), Letter::of(record, String::new()));
                return Some(rows);
            }
            // The completed change follows (I5).
            Mapped::NotEvaluated(missing) => {
                self.count("not_evaluated");
                tracing::debug!(record = %change.id, ?missing, "change lacks fields, not evaluated");
            }
            Mapped::Rejected(reason) => self.set_aside(Letter::of(record, reason)),
        }
        None
    }

    /// The letter of a record that does not get as far as the target.
    fn set_aside(&mut self, letter: Letter) {
        self.count("rejected");
        self.letters.push(letter);
    }

    /// The transaction for the target; of `part` of the records, if not of all.
    pub(super) fn batch(
        &self,
        reader: &ReaderKey,
        seat: Seat,
        part: Option<&HashSet<RecordId>>,
        brake: Option<Brake>,
        now: DateTime<Utc>,
    ) -> Batch {
        let destinations = match part {
            None => self.destinations.clone(),
            Some(part) => self
                .destinations
                .iter()
                .map(|all| chosen(all, part))
                .collect(),
        };
        Batch {
            reader: reader.clone(),
            partition: seat.partition,
            epoch: seat.epoch,
            expect: seat.expect,
            next: seat.next,
            object: self.object.clone(),
            destinations,
            since: self.since,
            asked_again: self.asked_again.clone(),
            rematch: false,
            brake,
            now,
        }
    }

    /// The records that are still to be written, lowest offset first.
    pub(super) fn records(&self) -> Vec<RecordId> {
        let mut seen = HashSet::new();
        let mut places: Vec<(u64, &RecordId)> = self
            .destinations
            .iter()
            .flat_map(|destination| destination.rows.iter())
            .filter(|row| seen.insert(&row.record))
            .map(|row| (row.place.1, &row.record))
            .collect();
        places.sort_unstable_by_key(|(offset, _)| *offset);
        places
            .into_iter()
            .map(|(_, record)| record.clone())
            .collect()
    }

    pub(super) fn holds(&self, record: &RecordId) -> bool {
        self.originals.contains_key(record)
    }

    /// Takes note of what a committed batch did; a part is done with then.
    ///
    /// # Errors
    /// `Protocol`, if the outcomes are not those of the rows.
    pub(super) fn settle(
        &mut self,
        applied: Applied,
        part: Option<&HashSet<RecordId>>,
    ) -> Result<(), Fault> {
        self.check_shape(&applied, part)?;
        let (took, accepted) = self.toll(&applied, part);
        self.took = self.took.and(took);
        self.accepted.gone += accepted.gone;
        self.accepted.emptied += accepted.emptied;
        for outcome in applied.outcomes.iter().flatten() {
            self.count(outcome.label());
            let wrote = matches!(
                outcome,
                Outcome::Inserted | Outcome::Associated | Outcome::Updated | Outcome::Emptied
            );
            self.wrote |= wrote;
            self.settled += u64::from(!matches!(outcome, Outcome::Parked | Outcome::Review));
        }
        if let Some(part) = part {
            self.drop_records(part);
        }
        Ok(())
    }

    /// Whether nothing is to be written.
    pub(super) fn is_empty(&self) -> bool {
        self.destinations
            .iter()
            .all(|destination| destination.rows.is_empty())
    }

    /// Whether these are changes that come for the first time, or are read again: brakes count them.
    pub(super) const fn is_first(&self) -> bool {
        matches!(self.run, Run::First | Run::Replay)
    }

    /// Whether they are read again.
    pub(super) const fn is_replayed(&self) -> bool {
        matches!(self.run, Run::Replay)
    }

    /// Whether it may delete or mark a row that brakes count.
    pub(super) fn may_take(&self) -> bool {
        let takes = |plan: &DestinationPlan, row: &MappedRow| match row.life {
            Life::Present => false,
            Life::Deleted => plan.on_delete != OnExit::Keep,
            Life::Filtered => plan.on_filter_exit != OnExit::Keep,
        };
        let counts = |row: &&MappedRow| row.place.1 >= self.accepted_to;
        self.is_first()
            && self.destinations.iter().any(|destination| {
                let mut rows = destination.rows.iter().filter(counts);
                rows.any(|row| takes(&destination.plan, row))
            })
    }

    /// What a batch of these outcomes takes, as brakes count; and what they do not count.
    pub(super) fn toll(&self, applied: &Applied, part: Option<&HashSet<RecordId>>) -> (Toll, Toll) {
        let destinations = self.destinations.iter().zip(&applied.outcomes);
        let rows = destinations.flat_map(|(destination, outcomes)| {
            let rows = destination.rows.iter().filter(|row| is_in(part, row));
            rows.zip(outcomes)
        });
        Toll::of(rows, self.accepted_to)
    }

    /// Takes the rejected records out that a batch was not committed for, and says what else kept it back. Outranked
    /// rows keep it back until their records were asked for.
    ///
    /// # Errors
    /// `Protocol`, if there is nothing: the target neither committed nor said why.
    pub(super) fn refuse(
        &mut self,
        applied: &Applied,
        part: Option<&HashSet<RecordId>>,
    ) -> Result<HeldUp, Fault> {
        self.check_shape(applied, part)?;
        let mut reasons: BTreeMap<RecordId, (String, String)> = BTreeMap::new();
        let mut outranked: BTreeSet<RecordId> = BTreeSet::new();
        for (destination, outcomes) in self.destinations.iter().zip(&applied.outcomes) {
            let rows = destination.rows.iter().filter(|row| is_in(part, row));
            for (row, outcome) in rows.zip(outcomes) {
                if let Outcome::Rejected(reason) = outcome {
                    let label = &destination.plan.label;
                    let reasons = reasons.entry(row.record.clone());
                    reasons.or_insert_with(|| (label.clone(), format!("{label}: {reason}")));
                } else if outcome.outranks(row.version, self.since)
                    && !self.asked_again.contains(&row.record)
                {
                    outranked.insert(row.record.clone());
                }
            }
        }
        if reasons.is_empty() && outranked.is_empty() {
            return Err(protocol(
                "target did not commit a batch of which it rejects no row",
            ));
        }
        let gone: HashSet<RecordId> = reasons.keys().cloned().collect();
        let letters = reasons
            .into_iter()
            .filter_map(|(record, (destination, reason))| {
                let mut letter = self.letter(&record, reason)?;
                letter.destination = Some(destination);
                Some(letter)
            })
            .collect();
        self.drop_records(&gone);
        Ok(HeldUp {
            letters,
            outranked: outranked.into_iter().collect(),
        })
    }

    /// Takes note that records were asked for again: they may be passed over now.
    pub(super) fn pass_over(&mut self, outranked: Vec<RecordId>) {
        self.asked_again.extend(outranked);
    }

    /// Which parked changes some letters tell of.
    pub(super) fn parked(&self, letters: &[Letter]) -> Vec<ParkedKey> {
        let Run::Again(parked) = &self.run else {
            return Vec::new();
        };
        let key_of = |letter: &Letter| {
            let record = RecordId::stored(String::from_utf8_lossy(&letter.key));
            parked.get(&record).cloned()
        };
        letters.iter().filter_map(key_of).collect()
    }

    /// Takes one record out; its letter.
    pub(super) fn refuse_record(&mut self, record: &RecordId, reason: String) -> Option<Letter> {
        let letter = self.letter(record, reason);
        self.drop_records(&HashSet::from([record.clone()]));
        letter
    }

    fn letter(&mut self, record: &RecordId, reason: String) -> Option<Letter> {
        let original = self.originals.get(record)?;
        let letter = Letter {
            reason,
            ..original.clone()
        };
        self.count("rejected");
        Some(letter)
    }

    fn drop_records(&mut self, gone: &HashSet<RecordId>) {
        if gone.is_empty() {
            return;
        }
        self.originals.retain(|record, _| !gone.contains(record));
        for destination in &mut self.destinations {
            let rows = Arc::make_mut(&mut destination.rows);
            let stays: Vec<bool> = rows.iter().map(|row| !gone.contains(&row.record)).collect();
            let (mut row, mut image) = (stays.iter(), stays.iter());
            rows.retain(|_| row.next().is_none_or(|stays| *stays));
            Arc::make_mut(&mut destination.images)
                .retain(|_| image.next().is_none_or(|stays| *stays));
        }
    }

    fn check_shape(
        &self,
        applied: &Applied,
        part: Option<&HashSet<RecordId>>,
    ) -> Result<(), Fault> {
        let expected = self.destinations.iter().map(|destination| {
            destination
                .rows
                .iter()
                .filter(|row| is_in(part, row))
                .count()
        });
        if expected.eq(applied.outcomes.iter().map(Vec::len)) {
            return Ok(());
        }
        Err(protocol(
            "target answered with other outcomes than one per row",
        ))
    }

    fn count(&mut self, outcome: &'static str) {
        *self.counts.entry(outcome).or_default() += 1;
    }
}

fn protocol(what: &str) -> Fault {
    Fault::new(FaultKind::Protocol, what)
}

fn is_in(part: Option<&HashSet<RecordId>>, row: &MappedRow) -> bool {
    part.is_none_or(|part| part.contains(&row.record))
}

/// A destination with the rows of some records.
fn chosen(all: &DestinationBatch, part: &HashSet<RecordId>) -> DestinationBatch {
    let pairs = all.rows.iter().zip(all.images.iter());
    let (rows, images): (Vec<MappedRow>, Vec<Bytes>) = pairs
        .filter(|(row, _)| part.contains(&row.record))
        .map(|(row, image)| (row.clone(), image.clone()))
        .unzip();
    DestinationBatch {
        plan: Arc::clone(&all.plan),
        rows: Arc::new(rows),
        images: Arc::new(images),
    }
}

//! A batch: decoded, folded to one change per record, mapped; and what became of it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};

use crate::fault::{Fault, FaultKind};
use crate::log::port::Record;
use crate::mapping::compile::Mapped;
use crate::mapping::plan::MappedRow;
use crate::model::change::{Change, Origin};
use crate::model::name::ObjectName;
use crate::model::record_id::RecordId;
use crate::target::port::{Applied, Batch, DestinationBatch, Outcome, ReaderKey};

use super::JobRoad;
use super::commit::Seat;
use super::letters::Letter;

/// Whether changes are applied in their turn, or again because what they waited for has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Run {
    /// What is refused becomes a letter, and the lag is measured.
    First,
    /// What is refused stays parked until its time to live ends, and becomes a letter then.
    Again,
}

/// A batch on its way into the target.
pub(super) struct Work {
    /// Letters of what could not be decoded or mapped; to be written before the commit.
    pub letters: Vec<Letter>,
    /// Records and rows by outcome.
    pub counts: BTreeMap<&'static str, u64>,
    /// Commit stamps of the stream's changes.
    pub streamed: Vec<DateTime<Utc>>,
    /// Records of which the ledger holds a version that the topic's owner does not know: one of a higher term, or
    /// one that the topic lost.
    pub outranked: Vec<RecordId>,
    /// The term since which the topic is what it is.
    pub since: u64,
    /// Rows were written that others may wait for.
    pub wrote: bool,
    /// Rows whose change does not wait any more.
    pub settled: u64,
    /// Of [`Run::Again`]: what was refused.
    pub refused: Vec<RecordId>,
    run: Run,
    object: ObjectName,
    destinations: Vec<DestinationBatch>,
    originals: HashMap<RecordId, Letter>,
}

/// Decodes, folds and maps one partition's records.
pub(super) fn prepare(road: &JobRoad, records: &[Record], run: Run) -> Work {
    let mut work = Work::empty(road, run);
    let now = road.clock.now();
    for (record, change) in work.newest(records) {
        work.map(road, record, &change, now);
    }
    work
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
                rows: Vec::new(),
                images: Vec::new(),
            });
        Self {
            letters: Vec::new(),
            counts: BTreeMap::new(),
            streamed: Vec::new(),
            outranked: Vec::new(),
            since: 0,
            wrote: false,
            settled: 0,
            refused: Vec::new(),
            run,
            object: plan.source.clone(),
            destinations: destinations.collect(),
            originals: HashMap::new(),
        }
    }

    /// The newest change of each record, lowest offset first. The highest version wins, not the last (a request
    /// of a dead process may land late); of equal versions the last.
    fn newest<'a>(&mut self, records: &'a [Record]) -> Vec<(&'a Record, Change)> {
        let mut newest: HashMap<RecordId, (&Record, Change)> =
            HashMap::with_capacity(records.len());
        for record in records {
            // A tombstone says that the log forgot the record; its delete came before.
            let Some(value) = &record.value else { continue };
            let change = match Change::decode(value) {
                Ok(change) => change,
                Err(error) => {
                    let fault = Fault::new(FaultKind::Record, "decoding change").source(error);
                    self.set_aside(Letter::of(record, fault.report()));
                    continue;
                }
            };
            if self.run == Run::First && change.origin == Origin::Stream {
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

    fn map(&mut self, road: &JobRoad, record: &Record, change: &Change, now: DateTime<Utc>) {
        match road
            .mapping
            .map(change, (record.partition, record.offset), now)
        {
            Mapped::Rows(rows) => {
                let image = record.value.clone().unwrap_or_default();
                for (destination, row) in self.destinations.iter_mut().zip(rows) {
                    destination.rows.push(row);
                    destination.images.push(image.clone());
                }
                self.originals
                    .insert(change.id.clone(), Letter::of(record, String::new()));
            }
            // The completed change follows (I5).
            Mapped::NotEvaluated(missing) => {
                self.count("not_evaluated");
                tracing::debug!(record = %change.id, ?missing, "change lacks fields, not evaluated");
            }
            Mapped::Rejected(reason) => self.set_aside(Letter::of(record, reason)),
        }
    }

    /// The letter of a record that does not get as far as the target.
    fn set_aside(&mut self, letter: Letter) {
        self.count("rejected");
        match self.run {
            Run::First => self.letters.push(letter),
            Run::Again => self.hold_back(&letter),
        }
    }

    fn hold_back(&mut self, letter: &Letter) {
        let record = RecordId::stored(String::from_utf8_lossy(&letter.key));
        tracing::warn!(%record, reason = letter.reason, "parked change is refused, stays parked");
        self.refused.push(record);
    }

    /// The transaction for the target; of `part` of the records, if not of all.
    pub(super) fn batch(
        &self,
        reader: &ReaderKey,
        seat: Seat,
        part: Option<&HashSet<RecordId>>,
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
            now,
        }
    }

    /// The records that are still to be written, lowest offset first.
    pub(super) fn records(&self) -> Vec<RecordId> {
        let mut seen = HashSet::new();
        let mut places: Vec<(u64, &RecordId)> = self
            .destinations
            .iter()
            .flat_map(|destination| &destination.rows)
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
        let mut counts = Vec::new();
        for (row, outcome) in self.rows(part).zip(applied.outcomes.iter().flatten()) {
            if let Outcome::Stale(held) = outcome
                && (held.term() > row.version.term() || held.term() < self.since)
                && !self.outranked.contains(&row.record)
            {
                counts.push((outcome.label(), Some(row.record.clone())));
            } else {
                counts.push((outcome.label(), None));
            }
        }
        for (label, outranked) in counts {
            self.count(label);
            self.outranked.extend(outranked);
        }
        for outcome in applied.outcomes.iter().flatten() {
            let wrote = matches!(
                outcome,
                Outcome::Inserted | Outcome::Associated | Outcome::Updated
            );
            self.wrote |= wrote;
            self.settled += u64::from(!matches!(outcome, Outcome::Parked));
        }
        if let Some(part) = part {
            self.drop_records(part);
        }
        Ok(())
    }

    /// Takes the records out that a batch was not committed for; their letters.
    ///
    /// # Errors
    /// `Protocol`, if there is none: the target neither committed nor said why.
    pub(super) fn refuse(
        &mut self,
        applied: &Applied,
        part: Option<&HashSet<RecordId>>,
    ) -> Result<Vec<Letter>, Fault> {
        self.check_shape(applied, part)?;
        let mut reasons: BTreeMap<RecordId, String> = BTreeMap::new();
        for (destination, outcomes) in self.destinations.iter().zip(&applied.outcomes) {
            let rows = destination.rows.iter().filter(|row| is_in(part, row));
            for (row, outcome) in rows.zip(outcomes) {
                if let Outcome::Rejected(reason) = outcome {
                    let reason = format!("{}: {reason}", destination.plan.label);
                    reasons.entry(row.record.clone()).or_insert(reason);
                }
            }
        }
        if reasons.is_empty() {
            return Err(protocol(
                "target did not commit a batch of which it rejects no row",
            ));
        }
        Ok(reasons
            .into_iter()
            .filter_map(|(record, reason)| self.refuse_record(&record, reason))
            .collect())
    }

    /// Takes one record out; its letter, if it is to become one.
    pub(super) fn refuse_record(&mut self, record: &RecordId, reason: String) -> Option<Letter> {
        let original = self.originals.get(record)?;
        let letter = Letter {
            reason,
            ..original.clone()
        };
        self.drop_records(&HashSet::from([record.clone()]));
        self.count("rejected");
        if self.run == Run::Again {
            self.hold_back(&letter);
            return None;
        }
        Some(letter)
    }

    fn drop_records(&mut self, gone: &HashSet<RecordId>) {
        self.originals.retain(|record, _| !gone.contains(record));
        for destination in &mut self.destinations {
            let pairs = std::mem::take(&mut destination.rows)
                .into_iter()
                .zip(std::mem::take(&mut destination.images));
            (destination.rows, destination.images) =
                pairs.filter(|(row, _)| !gone.contains(&row.record)).unzip();
        }
    }

    fn rows<'a>(
        &'a self,
        part: Option<&'a HashSet<RecordId>>,
    ) -> impl Iterator<Item = &'a MappedRow> {
        self.destinations
            .iter()
            .flat_map(|destination| &destination.rows)
            .filter(move |row| is_in(part, row))
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

fn chosen(all: &DestinationBatch, part: &HashSet<RecordId>) -> DestinationBatch {
    let pairs = all.rows.iter().zip(&all.images);
    let (rows, images): (Vec<MappedRow>, Vec<Bytes>) = pairs
        .filter(|(row, _)| part.contains(&row.record))
        .map(|(row, image)| (row.clone(), image.clone()))
        .unzip();
    DestinationBatch {
        plan: Arc::clone(&all.plan),
        rows,
        images,
    }
}

//! A batch: decoded, folded to one change per record, mapped; and what became of it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};

use crate::fault::Fault;
use crate::log::port::Record;
use crate::mapping::compile::Mapped;
use crate::mapping::plan::MappedRow;
use crate::model::change::{Change, Origin};
use crate::model::record_id::RecordId;
use crate::target::port::{Applied, Batch, DestinationBatch, Outcome, ReaderKey};

use super::JobRoad;
use super::letters::Letter;

/// A batch on its way into the target.
pub(super) struct Work {
    /// To be written before the commit.
    pub letters: Vec<Letter>,
    /// Rows by outcome, known after the commit.
    pub counts: BTreeMap<&'static str, u64>,
    /// Commit stamps of the stream's changes.
    pub streamed: Vec<DateTime<Utc>>,
    /// The offset after the batch.
    pub next: u64,
    /// Records of which the ledger holds a version of a higher term.
    pub outranked: Vec<RecordId>,
    /// Rows were written that others may wait for.
    pub released: bool,
    destinations: Vec<DestinationBatch>,
    originals: HashMap<RecordId, Record>,
    object: crate::model::name::ObjectName,
}

/// Decodes, folds and maps one partition's records.
pub(super) fn prepare(road: &JobRoad, records: &[Record]) -> Result<Work, Fault> {
    let plan = road.mapping.plan();
    let mut work = Work {
        letters: Vec::new(),
        counts: BTreeMap::new(),
        streamed: Vec::new(),
        next: records.last().map_or(0, |record| record.offset + 1),
        outranked: Vec::new(),
        released: false,
        destinations: plan
            .destinations
            .iter()
            .map(|destination| DestinationBatch {
                plan: Arc::clone(destination),
                rows: Vec::new(),
                images: Vec::new(),
            })
            .collect(),
        originals: HashMap::new(),
        object: plan.source.clone(),
    };
    let now = road.clock.now();
    for (record, change) in newest(records, &mut work) {
        work.map(road, record, &change, now);
    }
    Ok(work)
}

/// The newest change of each record, lowest offset first. The highest version wins, not the last (a request
/// of a dead process may land late); of equal versions the last.
fn newest<'a>(records: &'a [Record], work: &mut Work) -> Vec<(&'a Record, Change)> {
    let mut newest: HashMap<RecordId, (&Record, Change)> = HashMap::new();
    for record in records {
        // A tombstone says that the log forgot the record; its delete came before.
        let Some(value) = &record.value else { continue };
        match Change::decode(value) {
            Ok(change) => {
                if change.origin == Origin::Stream
                    && let Some(at) = change.committed_at
                {
                    work.streamed.push(at);
                }
                let folded = newest
                    .get(&change.id)
                    .is_some_and(|(_, held)| held.version > change.version);
                if folded {
                    work.count("folded");
                } else if newest.insert(change.id.clone(), (record, change)).is_some() {
                    work.count("folded");
                }
            }
            Err(error) => {
                let reason = Fault::new(crate::fault::FaultKind::Record, "decoding change")
                    .source(error)
                    .report();
                work.letters.push(Letter::of(record, reason));
            }
        }
    }
    let mut changes: Vec<_> = newest.into_values().collect();
    changes.sort_by_key(|(record, _)| record.offset);
    changes
}

impl Work {
    fn map(&mut self, road: &JobRoad, record: &Record, change: &Change, now: DateTime<Utc>) {
        match road.mapping.map(change, (record.partition, record.offset), now) {
            Mapped::Rows(rows) => {
                let image = record.value.clone().unwrap_or_default();
                for (destination, row) in self.destinations.iter_mut().zip(rows) {
                    if let Some(row) = row {
                        destination.rows.push(row);
                        destination.images.push(image.clone());
                    }
                }
                self.originals.insert(change.id.clone(), record.clone());
            }
            // The completed change follows (I5).
            Mapped::NotEvaluated(missing) => {
                self.count("not_evaluated");
                tracing::debug!(record = %change.id, ?missing, "change lacks fields, not evaluated");
            }
            Mapped::Rejected(reason) => self.letters.push(Letter::of(record, reason)),
        }
    }

    /// The transaction for the target.
    pub(super) fn batch(
        &self,
        reader: &ReaderKey,
        partition: u32,
        epoch: u64,
        expect: u64,
        now: DateTime<Utc>,
    ) -> Batch {
        Batch {
            reader: reader.clone(),
            partition,
            epoch,
            expect,
            next: self.next.max(expect),
            object: self.object.clone(),
            destinations: self.destinations.clone(),
            now,
        }
    }

    /// A transaction of some records that does not move the offset.
    pub(super) fn probe(
        &self,
        reader: &ReaderKey,
        partition: u32,
        (epoch, expect): (u64, u64),
        records: &[RecordId],
        now: DateTime<Utc>,
    ) -> Batch {
        let chosen: HashSet<&RecordId> = records.iter().collect();
        let mut batch = self.batch(reader, partition, epoch, expect, now);
        batch.next = expect;
        for destination in &mut batch.destinations {
            retain(destination, |row| chosen.contains(&row.record));
        }
        batch
    }

    /// The records in the batch.
    pub(super) fn records(&self) -> Vec<RecordId> {
        let mut seen = HashSet::new();
        self.destinations
            .iter()
            .flat_map(|destination| &destination.rows)
            .map(|row| &row.record)
            .filter(|record| seen.insert(*record))
            .cloned()
            .collect()
    }

    /// Takes the records out that the target rejected; their letters.
    pub(super) fn refuse(&mut self, road: &JobRoad, applied: Applied) -> Vec<Letter> {
        let mut reasons: BTreeMap<RecordId, String> = BTreeMap::new();
        for (destination, outcomes) in self.destinations.iter().zip(applied.outcomes) {
            for (row, outcome) in destination.rows.iter().zip(outcomes) {
                if let Outcome::Rejected(reason) = outcome {
                    reasons.entry(row.record.clone()).or_insert(reason);
                }
            }
        }
        reasons
            .into_iter()
            .flat_map(|(record, reason)| self.refuse_record(road, &record, &reason))
            .collect()
    }

    /// Takes one record out; its letter.
    pub(super) fn refuse_record(
        &mut self,
        _road: &JobRoad,
        record: &RecordId,
        reason: &str,
    ) -> Vec<Letter> {
        for destination in &mut self.destinations {
            retain(destination, |row| row.record != *record);
        }
        self.count("rejected");
        self.originals
            .get(record)
            .map(|original| Letter::of(original, reason))
            .into_iter()
            .collect()
    }

    /// Counts what became of the rows.
    pub(super) fn take_outcomes(&mut self, applied: Applied) {
        let rows = self.destinations.iter().flat_map(|destination| &destination.rows);
        for (row, outcome) in rows.zip(applied.outcomes.iter().flatten()) {
            if let Outcome::Stale(held) = outcome
                && held.term() > row.version.term()
            {
                self.outranked.push(row.record.clone());
            }
        }
        for outcome in applied.outcomes.into_iter().flatten() {
            self.released |=
                matches!(outcome, Outcome::Inserted | Outcome::Associated | Outcome::Updated);
            self.count(outcome.label());
        }
    }

    fn count(&mut self, outcome: &'static str) {
        *self.counts.entry(outcome).or_default() += 1;
    }
}

fn retain(destination: &mut DestinationBatch, keep: impl Fn(&MappedRow) -> bool) {
    let (rows, images): (Vec<MappedRow>, Vec<Bytes>) = std::mem::take(&mut destination.rows)
        .into_iter()
        .zip(std::mem::take(&mut destination.images))
        .filter(|(row, _)| keep(row))
        .unzip();
    destination.rows = rows;
    destination.images = images;
}

//! What identifiers say of records that have rows already: for a look at what would change, and for the change itself.
//!
//! A page of the topic is mapped as the job maps it, and offered to the target as a batch that is never committed and
//! asks every identity anew. Who is to move gets an undone decision in the ledger and is published again by the
//! connection's owner, from its image; the job then asks its identifiers. So no CRM is called, and whichever daemon has
//! the record's partition moves it.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use uuid::Uuid;

use crate::fault::Fault;
use crate::log::port::{Bounds, Delivery, From, Record};
use crate::model::record_id::RecordId;
use crate::target::port::review::{Binding, Bond};
use crate::target::port::{Outcome, ReaderKey};

use super::batch::{self, Run};
use super::commit::Seat;
use super::{JobRoad, MAX_BYTES, MAX_RECORDS, WAIT};

/// Whose offsets in the ledger these batches name; they never move.
const READER: &str = "rematch";

/// A part of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// The partition.
    pub partition: u32,
    /// The first offset.
    pub from: u64,
    /// The offset before which to end.
    pub until: u64,
}

/// What a page holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Looked {
    /// Where the next page begins; its `until` once all is read.
    pub next: u64,
    /// Records that were read.
    pub read: u64,
    /// Records that are another row than they have.
    pub moves: Vec<Move>,
}

/// A record that is another row than it has, by its identifiers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Move {
    /// The record.
    pub record: RecordId,
    /// The table.
    pub table: String,
    /// The row that it has.
    pub from: Uuid,
    /// What its identifiers say.
    pub to: Becomes,
}

/// What a record's identifiers say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Becomes {
    /// It is a row that is there.
    Another,
    /// No row has them: a new one.
    New,
    /// Several rows have them, and its own has not: a person decides.
    Review,
}

/// The topic's bounds, by partition.
///
/// # Errors
/// A fault of the log.
pub async fn bounds(road: &JobRoad) -> Result<BTreeMap<u32, Bounds>, Fault> {
    road.log.bounds(&road.topic).await
}

/// Looks at a page, and moves nothing.
///
/// # Errors
/// A fault of the log or the target.
pub async fn look(road: &JobRoad, page: Page) -> Result<Looked, Fault> {
    let records = read(road, page).await?;
    let next = match records.last() {
        Some(last) => last.offset + 1,
        // Compaction may have left nothing up to the end.
        None => page.until,
    };
    let moves = moves(road, page.partition, &records).await?;
    Ok(Looked {
        next,
        read: records.len() as u64,
        moves,
    })
}

/// Has the records of a page moved.
///
/// # Errors
/// A fault of the target or the state.
pub async fn carry_out(road: &JobRoad, moves: &[Move], by: Option<&str>) -> Result<(), Fault> {
    let plan = road.mapping.plan();
    for one in moves {
        let binding = Binding {
            connection: plan.connection.clone(),
            object: plan.source.clone(),
            record: one.record.clone(),
            table: one.table.clone(),
            bond: Bond::Open,
            by: by.map(str::to_owned),
            at: road.clock.now(),
        };
        road.target.decide(&binding).await?;
    }
    let records: BTreeSet<&RecordId> = moves.iter().map(|one| &one.record).collect();
    for record in records {
        road.state
            .request_republish(&plan.connection, &plan.source, record)
            .await?;
    }
    Ok(())
}

async fn read(road: &JobRoad, page: Page) -> Result<Vec<Record>, Fault> {
    if page.from >= page.until {
        return Ok(Vec::new());
    }
    let from = From::Partitions(BTreeMap::from([(page.partition, page.from)]));
    let mut reader = road.log.reader(&road.topic, from).await?;
    loop {
        match reader.next(MAX_RECORDS, MAX_BYTES, WAIT).await? {
            Delivery::Batch(mut records) => {
                records.retain(|record| record.offset < page.until);
                return Ok(records);
            }
            Delivery::Idle => {
                // Only what compaction removed can be missing below the end.
                let bounds = road.log.bounds(&road.topic).await?;
                let end = bounds.get(&page.partition).map_or(0, |ends| ends.end);
                if end <= page.until {
                    return Ok(Vec::new());
                }
            }
            Delivery::Assigned(_) | Delivery::Revoked(_) => {}
        }
    }
}

/// Offers the records to the target, which commits nothing.
async fn moves(road: &JobRoad, partition: u32, records: &[Record]) -> Result<Vec<Move>, Fault> {
    let work = batch::prepare(road, records, Run::First);
    if work.records().is_empty() {
        return Ok(Vec::new());
    }
    let plan = road.mapping.plan();
    let reader = ReaderKey {
        connection: plan.connection.clone(),
        job: plan.job.clone(),
        reader: READER.to_owned(),
        generation: READER.to_owned(),
    };
    let assigned = road.target.assign(&reader, partition).await?;
    let seat = Seat {
        partition,
        epoch: assigned.epoch,
        expect: assigned.next,
        next: assigned.next,
    };
    let mut batch = work.batch(&reader, seat, None, None, road.clock.now());
    batch.rematch = true;
    let offered = batch.destinations.clone();
    let applied = road.target.apply(batch).await?;
    let bound: BTreeSet<(String, RecordId)> = road
        .target
        .bindings()
        .await?
        .into_iter()
        .filter(|binding| {
            (&binding.connection, &binding.object) == (&plan.connection, &plan.source)
        })
        .map(|binding| (binding.table, binding.record))
        .collect();
    let mut moves = Vec::new();
    for (part, outcomes) in offered.iter().zip(applied.outcomes) {
        for (row, outcome) in part.rows.iter().zip(outcomes) {
            let to = match outcome {
                Outcome::Associated => Becomes::Another,
                Outcome::Inserted => Becomes::New,
                Outcome::Review => Becomes::Review,
                _ => continue,
            };
            let key = (part.plan.table.clone(), row.record.clone());
            if bound.contains(&key) {
                continue;
            }
            let (table, record) = key;
            let traced = road
                .target
                .trace(&plan.connection, &plan.source, &record)
                .await?;
            let held = traced.into_iter().find(|traced| traced.table == table);
            // Who has no row yet does not move.
            if let Some(from) = held.and_then(|held| held.row) {
                moves.push(Move {
                    record,
                    table,
                    from: from.gsid,
                    to,
                });
            }
        }
    }
    Ok(moves)
}

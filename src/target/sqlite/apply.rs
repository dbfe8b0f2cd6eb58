//! A batch: the offset first, then destinations in order, rows by offset; all of it or nothing.

use std::collections::HashMap;

use rusqlite::Transaction;
use uuid::ContextV7;

use super::cell::instant;
use super::derive::Hindrance;
use super::destination::{Destination, Item};
use super::parked::{Changes, wake};
use super::{ledger, schema};
use crate::mapping::plan::Life;
use crate::model::record_id::RecordId;
use crate::sqlite::error::JobError;
use crate::target::port::{Applied, Batch, DestinationBatch, Outcome};

/// Applies a batch in a transaction of its own. If [`Applied::committed`] is false, the caller has to undo it.
pub(super) fn apply(
    transaction: &Transaction<'_>,
    batch: &Batch,
    gsids: &ContextV7,
) -> Result<Applied, JobError> {
    ledger::advance(transaction, batch)?;
    let now = instant(batch.now);
    let mut run = Run {
        transaction,
        batch,
        now: &now,
        gsids,
        settled: HashMap::new(),
        changes: Changes::new(transaction, batch)?,
    };
    let mut outcomes = Vec::with_capacity(batch.destinations.len());
    for destination in &batch.destinations {
        outcomes.push(run.destination(destination)?);
    }
    Ok(Applied {
        committed: batch.may_commit(&outcomes),
        outcomes,
    })
}

/// A batch under way.
pub(super) struct Run<'a> {
    pub transaction: &'a Transaction<'a>,
    pub batch: &'a Batch,
    /// The batch's date as it is stored.
    pub now: &'a str,
    pub gsids: &'a ContextV7,
    /// Records that an earlier destination kept out.
    settled: HashMap<&'a RecordId, Outcome>,
    pub changes: Changes<'a>,
}

impl<'a> Run<'a> {
    fn destination(&mut self, batch: &'a DestinationBatch) -> Result<Vec<Outcome>, JobError> {
        schema::check_table(self.transaction, &batch.plan.table)?;
        let mut destination = Destination::new(self, batch)?;
        let outcomes = if destination.may_be_hindered() {
            self.again_and_again(&mut destination, batch)?
        } else {
            let mut outcomes = self.rows(&mut destination, batch, &HashMap::new())?;
            destination.look_into_own_table(self, batch, &mut outcomes)?;
            outcomes
        };
        wake(self.transaction, &batch.plan.table, &destination.touched)?;
        for (row, outcome) in batch.rows.iter().zip(&outcomes) {
            if matches!(
                outcome,
                Outcome::Parked | Outcome::Review | Outcome::Rejected(_)
            ) {
                self.settled.insert(&row.record, outcome.clone());
            }
        }
        Ok(outcomes)
    }

    /// A look-up into the own table that keeps its row out sees rows that come after it, and the row it keeps
    /// out may be what another one finds: so all rows are written, and again without those that found none,
    /// until none is kept out.
    fn again_and_again(
        &mut self,
        destination: &mut Destination<'a>,
        batch: &'a DestinationBatch,
    ) -> Result<Vec<Outcome>, JobError> {
        let mut hindered: HashMap<usize, Hindrance<'a>> = HashMap::new();
        loop {
            self.transaction.execute_batch("SAVEPOINT destination")?;
            let mut outcomes = self.rows(destination, batch, &hindered)?;
            let more = destination.look_into_own_table(self, batch, &mut outcomes)?;
            if more.is_empty() {
                self.transaction.execute_batch("RELEASE destination")?;
                return Ok(outcomes);
            }
            self.transaction
                .execute_batch("ROLLBACK TO destination; RELEASE destination")?;
            destination.begin_again();
            hindered.extend(more);
        }
    }

    fn rows(
        &mut self,
        destination: &mut Destination<'a>,
        batch: &'a DestinationBatch,
        hindered: &HashMap<usize, Hindrance<'a>>,
    ) -> Result<Vec<Outcome>, JobError> {
        let mut outcomes = Vec::with_capacity(batch.rows.len());
        for index in 0..batch.rows.len() {
            outcomes.push(self.row(destination, batch, index, hindered.get(&index))?);
        }
        Ok(outcomes)
    }

    fn row(
        &mut self,
        destination: &mut Destination<'a>,
        batch: &'a DestinationBatch,
        index: usize,
        hindrance: Option<&Hindrance<'a>>,
    ) -> Result<Outcome, JobError> {
        let row = &batch.rows[index];
        if let Some(outcome) = self.settled.get(&row.record) {
            return Ok(outcome.clone());
        }
        let entry = destination.entry(&row.record)?;
        let waiting = self.changes.version(&row.record)?;
        let held = entry.as_ref().map(|entry| entry.version).max(waiting);
        if let Some(held) = held.filter(|held| *held > row.version) {
            return Ok(Outcome::Stale(held));
        }
        if waiting.is_some() {
            self.changes.delete(&row.record)?;
        }
        match row.life {
            Life::Present => {
                let image = batch.images.get(index).map_or(&[][..], |image| &image[..]);
                let item = Item { index, row, image };
                destination.present(self, item, entry.as_ref(), hindrance)
            }
            Life::Deleted => {
                destination.leave(self, row, entry.as_ref(), batch.plan.on_delete, "deleted")
            }
            Life::Filtered => destination.leave(
                self,
                row,
                entry.as_ref(),
                batch.plan.on_filter_exit,
                "filtered",
            ),
        }
    }
}

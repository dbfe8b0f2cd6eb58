//! The ledger of the memory target: crosswalk, offsets, and what is parked.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::sweep::Noted;
use crate::fault::{Fault, FaultKind};
use crate::mapping::plan::{DerivePlan, Reference};
use crate::model::name::{ConnectionId, JobId, ObjectName};
use crate::model::record_id::RecordId;
use crate::model::version::Version;
use crate::target::port::review::Binding;
use crate::target::port::sweep::SweepKey;
use crate::target::port::{Assignment, Batch, ReaderKey};

/// What a target remembers besides its rows. Its order makes ranges of a record's entries.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub entries: BTreeMap<Association, Entry>,
    /// Who has a row, gone ones left out.
    pub holders: HashMap<(Arc<str>, Uuid), BTreeSet<Association>>,
    pub references: BTreeMap<ReferenceKey, ParkedReference>,
    pub changes: BTreeMap<ChangeKey, WaitingChange>,
    pub bindings: BTreeMap<Association, Binding>,
    /// Rows that records of a connection have left, in their order.
    pub left: BTreeMap<u64, (ConnectionId, Uuid)>,
    /// Who held a row when a replay began, and was not met since.
    pub unmet: BTreeMap<SweepKey, Noted>,
    offsets: HashMap<(ReaderKey, u32), Assignment>,
}

/// A crosswalk key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Association {
    pub connection: ConnectionId,
    pub table: Arc<str>,
    pub record: RecordId,
    pub object: ObjectName,
}

/// A crosswalk entry.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    /// `None` for a record that was deleted or filtered before it was stored.
    pub gsid: Option<Uuid>,
    pub version: Version,
    pub standing: Standing,
}

/// What a record is to its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    Present,
    /// With the date and the value of `crm_state`.
    Marked(DateTime<Utc>, &'static str),
    Gone,
}

/// A column that waits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ReferenceKey {
    pub connection: ConnectionId,
    pub job: JobId,
    pub table: Arc<str>,
    pub record: RecordId,
    pub column: String,
}

/// What a column waits for.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ParkedReference {
    pub object: ObjectName,
    pub version: Version,
    pub since: DateTime<Utc>,
    pub place: (u32, u64),
    pub derive: DerivePlan,
    pub reference: Reference,
    /// Whose column it is where they hold the row.
    pub owners: BTreeSet<ConnectionId>,
}

/// A record of a job.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ChangeKey {
    pub connection: ConnectionId,
    pub job: JobId,
    pub record: RecordId,
}

/// A change that waits.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct WaitingChange {
    /// The destination that lacks rows.
    pub association: Association,
    pub version: Version,
    pub since: DateTime<Utc>,
    pub place: (u32, u64),
    pub image: Bytes,
    pub waits: Vec<(DerivePlan, Reference)>,
    /// It waits for a person.
    pub ambiguity: Option<Ambiguity>,
}

/// Several rows that have a record's identifiers.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Ambiguity {
    pub identifiers: Vec<(String, String)>,
    pub candidates: Vec<Uuid>,
}

impl Ledger {
    /// Raises the epoch of a partition.
    pub(super) fn assign(&mut self, reader: &ReaderKey, partition: u32) -> Assignment {
        let held = self
            .offsets
            .entry((reader.clone(), partition))
            .or_insert(Assignment { next: 0, epoch: 0 });
        held.epoch += 1;
        *held
    }

    /// Forgets what readers of a job have of every topic.
    pub(super) fn forget_offsets(
        &mut self,
        connection: &ConnectionId,
        job: &JobId,
        reader: impl Fn(&str) -> bool,
    ) {
        self.offsets.retain(|(held, _), _| {
            (&held.connection, &held.job) != (connection, job) || !reader(&held.reader)
        });
    }

    /// The compare of a batch's compare-and-set.
    pub(super) fn check_owner(&self, batch: &Batch) -> Result<(), Fault> {
        let held = self.offsets.get(&(batch.reader.clone(), batch.partition));
        let claimed = Assignment {
            next: batch.expect,
            epoch: batch.epoch,
        };
        if held == Some(&claimed) {
            return Ok(());
        }
        let ReaderKey {
            connection,
            job,
            reader,
            ..
        } = &batch.reader;
        let what = format!(
            "partition {} of {connection}/{job} ({reader}): {claimed:?} was expected, {held:?} is stored",
            batch.partition
        );
        Err(Fault::new(FaultKind::Fenced, what).remedy("another owner writes; assign again"))
    }

    /// The set of a batch's compare-and-set.
    pub(super) fn pass(&mut self, batch: &Batch) {
        let held = Assignment {
            next: batch.next,
            epoch: batch.epoch,
        };
        self.offsets
            .insert((batch.reader.clone(), batch.partition), held);
    }

    /// The rows that a record of any object has in a table.
    pub(super) fn rows_of_record(
        &self,
        connection: &ConnectionId,
        table: &Arc<str>,
        record: &RecordId,
    ) -> BTreeSet<Uuid> {
        let from = Association {
            connection: connection.clone(),
            table: Arc::clone(table),
            record: record.clone(),
            object: ObjectName::new(""),
        };
        self.entries
            .range(&from..)
            .take_while(|(key, _)| {
                (&key.connection, &key.table, &key.record)
                    == (&from.connection, &from.table, &from.record)
            })
            .filter(|(_, entry)| entry.standing != Standing::Gone)
            .filter_map(|(_, entry)| entry.gsid)
            .collect()
    }

    /// What a row says of those who have it: present if one of them is, else the newest mark.
    pub(super) fn standing_of(&self, table: &Arc<str>, gsid: Uuid) -> Standing {
        let Some(holders) = self.holders.get(&(Arc::clone(table), gsid)) else {
            return Standing::Gone;
        };
        let standings = holders
            .iter()
            .filter_map(|holder| self.entries.get(holder))
            .map(|entry| entry.standing);
        let mut newest = Standing::Gone;
        for standing in standings {
            match (standing, newest) {
                (Standing::Present, _) => return Standing::Present,
                (Standing::Marked(..), Standing::Gone) => newest = standing,
                (Standing::Marked(..), _) => newest = newest.max(standing),
                (Standing::Gone, _) => {}
            }
        }
        newest
    }

    /// What the columns of a record wait for.
    pub(super) fn references_of(&self, key: &ReferenceKey) -> Vec<(ReferenceKey, ParkedReference)> {
        let from = ReferenceKey {
            column: String::new(),
            ..key.clone()
        };
        self.references
            .range(&from..)
            .take_while(|(other, _)| {
                (&other.connection, &other.job, &other.table, &other.record)
                    == (&key.connection, &key.job, &key.table, &key.record)
            })
            .map(|(key, parked)| (key.clone(), parked.clone()))
            .collect()
    }
}

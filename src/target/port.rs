//! What jobs ask of a target: make its tables, take a batch with its offset in one transaction, read back.
//!
//! Contract for every engine:
//! * **J1** [`Target::apply`] writes rows, ledger (crosswalk, parked references, claims) and the offset in one
//!   transaction of its own. Its first statement is the compare-and-set of (epoch, next) in the offset row;
//!   when that fails, nothing is written and the fault is `Fenced`.
//! * **J2** A row whose version is lower than the crosswalk's is skipped, an equal one is applied. Rows that
//!   would not change are not written.
//! * **J4** Identity first by crosswalk (connection, object, record, table), then by identifiers.
//! * A row acts in the order of its offset: it sees the identifiers and the rows that an earlier one of its batch
//!   left, and of two that write one row the later one's cells stay. Self look-ups alone see the whole batch.
//! * Numbers keep their value to the last digit and are equal by value (`0.10` = `0.1`), so a target may
//!   spell them without needless zeros. Instants keep microseconds.
//! * Texts are compared without ASCII white space at their ends; case-blind means the case of ASCII letters. An
//!   identifier without a value (one of several is enough) matches nothing. `@id` finds the rows of a record of
//!   this connection in the looked-up table, whatever its object, if it is not gone from it.
//! * A record that left for good (`on_delete = delete`) keeps its crosswalk entry with GSID and version: older
//!   changes stay older (J2), and when it comes back its row gets the same GSID. References to its row are
//!   left as they are, and are right again then. A record that was deleted or filtered before it was stored leaves
//!   an entry without GSID, so that what is older stays older; when it comes, it is matched by identifiers.
//! * `keep`, `mark` and `delete` raise the version. A row is deleted when no record holds it: a kept or marked
//!   one still does. A row is marked when all records that hold it are, with the newest mark.
//! * `mark` writes the columns `crm_state` (`deleted`, `filtered`; null once it is present again) and
//!   `crm_state_at` (the change's `committed_at`, else the batch's `now` at the first delivery), which every table
//!   has besides `gsid`, `created_date` and `modified_date`. It and `delete` leave the mapped columns alone. A row
//!   that is kept or marked goes on waiting for what its columns lack, at the new version.
//! * **J5** An empty reference is no reference. A reference without a row is parked (key: connection, job, table,
//!   record, column), and released by [`Target::release`], which both sides call after commit. A write of the
//!   record replaces or clears what it parked; a reference that the image lacks goes on waiting at the new version.
//! * A change that waits (`on_none = reject`) is parked once per connection, job and record. It writes nothing for
//!   the destination that lacks the row and for those after it, which answer [`Outcome::Parked`] too. It counts as
//!   the version held: a lower one is stale. Any other outcome but stale and rejected clears it; equal
//!   versions replace it.
//! * A scheduled column of the row that a record has is written by what a full sync told, and by the next change if that
//!   was not met ([`MappedRow::spares_scheduled`]); whatever brings a record to a row, or back, writes all columns.
//! * A column that is another connection's where that holds the row is left to it, also by what waited for its own.
//! * What is parked again at the same version keeps the date from which its time to live counts.
//! * `on_none = skip` writes nothing, neither row nor version nor parked references.
//! * A [`Outcome::Rejected`] row has the same outcome in the destinations after it.
//! * Of several rows that have a record's identifiers none is guessed: it waits for a person ([`review`]).
//! * What is told is kept until the caller says otherwise: what waited too long leaves the ledger by [`Target::forget`],
//!   once its letter is durable, and only as what was told.
//! * Destinations come in config order; each sees the rows of those before it.
//! * Statements are set-based: their number does not grow with the batch.
//! * A future may be dropped; the transaction it started still ends whole, committed or not. A caller that
//!   can't tell reads the offset again with [`Target::assign`].
//! * Faults with fate `Retry` left nothing behind. `Record` means that the batch holds a record which the
//!   target refuses: the caller bisects.

pub mod brake;
pub mod review;
pub mod sweep;

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use uuid::Uuid;

use crate::fault::Fault;
use crate::mapping::plan::{Cell, DestinationPlan, JobPlan, MappedRow};
use crate::model::name::{ConnectionId, JobId, ObjectName};
use crate::model::policy::OnMove;
use crate::model::record_id::RecordId;
use crate::model::stored::StoredObject;
use crate::model::version::Version;

use brake::Brake;
use review::Reviews;
use sweep::Sweeps;

/// A store of rows with its ledger.
#[async_trait]
pub trait Target: Reviews + Sweeps {
    /// Creates missing tables, columns and ledger; drops nothing. A column of another type is `Config`.
    async fn ensure(&self, objects: &[StoredObject]) -> Result<(), Fault>;

    /// Makes what the matches of a job need to be quick (indexes on identifiers and looked-up columns); called
    /// after [`Target::ensure`], before the job's first batch.
    async fn prepare(&self, plan: &JobPlan) -> Result<(), Fault>;

    /// Takes over a partition: raises its epoch and says where to go on. A new reader starts at 0.
    async fn assign(&self, reader: &ReaderKey, partition: u32) -> Result<Assignment, Fault>;

    /// Applies a batch; see the module's contract.
    async fn apply(&self, batch: Batch) -> Result<Applied, Fault>;

    /// How many batches, of different partitions, it takes side by side; more than that wait for one another.
    fn side_by_side(&self) -> usize {
        1
    }

    /// Fills parked references whose rows have come, and returns the parked *changes* (`on_none = reject`)
    /// whose rows have come, for the job to run again. Called after each commit and each minute.
    ///
    /// References are those of the whole connection; changes those of one job, from some partitions of its topic, so
    /// that nobody's stand in the way of another owner's. Acts only if the record's version is still the parked one.
    /// What has found several rows where that is an error goes on waiting; what waits for a person does until it is
    /// [decided](Reviews::decide). A returned change stays parked until
    /// the record is applied again or [`Target::forget`] is told: a crash between loses nothing. At most `limit`
    /// references and as many changes a call, oldest first.
    async fn release(
        &self,
        connection: &ConnectionId,
        job: &JobId,
        partitions: &[u32],
        limit: usize,
    ) -> Result<Released, Fault>;

    /// Parked references and changes older than their time to live (parked before `older_than`), for the dead
    /// letters: of one job, from some partitions of its topic; not what waits for a person. Removes nothing. At most `limit` references and as
    /// many changes a call, oldest first.
    async fn expired(
        &self,
        connection: &ConnectionId,
        job: &JobId,
        partitions: &[u32],
        older_than: chrono::DateTime<chrono::Utc>,
        limit: usize,
    ) -> Result<Vec<Expired>, Fault>;

    /// Removes parked things of a job whose letters are durable; each only if it is still the very one, at the same
    /// version from the same place. How many were removed; to say it again removes no more.
    async fn forget(
        &self,
        connection: &ConnectionId,
        job: &JobId,
        parked: &[ParkedKey],
    ) -> Result<u64, Fault>;

    /// What may refer to the wrong row, since a record of the connection is another row than before, or none any more, or
    /// changed columns by which look-ups find its row ([`DestinationPlan::keys`]): who holds a row that refers to that
    /// row, whatever the connection. Noted in the transaction that did it; told until [`Target::forget_strays`].
    async fn strays(&self, connection: &ConnectionId) -> Result<Strays, Fault> {
        let _ = connection;
        Ok(Strays::default())
    }

    /// Forgets rows that were left, once everything that referred to them is to be published again.
    async fn forget_strays(&self, marks: &[u64]) -> Result<(), Fault> {
        let _ = marks;
        Ok(())
    }

    /// Rows of a table, newest first (by `modified_date`, then GSID), for `rows` and tests. An unknown table or
    /// column is `Missing`.
    async fn rows(&self, table: &str, page: RowsPage) -> Result<Vec<StoredRow>, Fault>;

    /// The stored rows of one record, by table, for `explain`.
    async fn trace(
        &self,
        connection: &ConnectionId,
        object: &ObjectName,
        record: &RecordId,
    ) -> Result<Vec<Traced>, Fault>;

    /// How many records of an object hold a row of a table, marked ones left out: what a brake measures by.
    async fn held(
        &self,
        connection: &ConnectionId,
        object: &ObjectName,
        table: &str,
    ) -> Result<u64, Fault>;

    /// How many references and changes wait for a row, per job.
    async fn parked(&self) -> Result<Vec<(ConnectionId, JobId, u64)>, Fault>;

    /// Finishes what was taken, and closes.
    async fn close(&self) -> Result<(), Fault>;
}

/// Whose offsets: a job's live reader, or a replay's id, on one generation of a topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ReaderKey {
    /// The connection.
    pub connection: ConnectionId,
    /// The job.
    pub job: JobId,
    /// `live`, or a replay's id.
    pub reader: String,
    /// The topic's generation id.
    pub generation: String,
}

/// What [`Target::assign`] answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Assignment {
    /// The offset to read next.
    pub next: u64,
    /// The epoch under which this owner writes.
    pub epoch: u64,
}

/// One transaction's worth: a part of one partition.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Whose offsets.
    pub reader: ReaderKey,
    /// The partition.
    pub partition: u32,
    /// The owner's epoch.
    pub epoch: u64,
    /// The offset row's value before this batch.
    pub expect: u64,
    /// Its value after. Equal to `expect` for a part of a batch that was refused whole; lower when a job goes back
    /// because its topic was cut.
    pub next: u64,
    /// The source object.
    pub object: ObjectName,
    /// Rows per destination, in config order. A record comes at most once per destination.
    pub destinations: Vec<DestinationBatch>,
    /// The term since which the topic is what it is: what is of a lower one was lost with an earlier topic.
    pub since: u64,
    /// Records that were asked for again because the ledger [outranks](Outcome::outranks) their changes. A batch with
    /// such a row of any other record is not committed, so that nothing is passed over before it is asked for (I7).
    pub asked_again: HashSet<RecordId>,
    /// Only to see what identifiers say of records that have rows: identities are asked anew, as under `on_move = new`,
    /// unless they were decided; and nothing is committed.
    pub rematch: bool,
    /// How much it may take away; a batch that takes more is not committed.
    pub brake: Option<Brake>,
    /// When this batch is applied, for `created_date` and `modified_date`.
    pub now: chrono::DateTime<chrono::Utc>,
}

impl Batch {
    /// Whether the identifiers of a record are asked that has a row.
    #[must_use]
    pub fn asks_anew(&self, plan: &DestinationPlan) -> bool {
        self.rematch || plan.on_move == OnMove::New
    }

    /// Whether it matters which of the updated rows lose a value.
    #[must_use]
    pub fn asks_for_emptied(&self) -> bool {
        self.brake.as_ref().is_some_and(Brake::asks_for_emptied)
    }

    /// Whether a batch of these outcomes is to be committed; see [`Applied::committed`].
    #[must_use]
    pub fn may_commit(&self, outcomes: &[Vec<Outcome>]) -> bool {
        if self.rematch {
            return false;
        }
        let rows = || self.destinations.iter().flat_map(|part| part.rows.iter());
        if let Some(brake) = &self.brake
            && !brake.take(rows().zip(outcomes.iter().flatten()))
        {
            return false;
        }
        rows()
            .zip(outcomes.iter().flatten())
            .all(|(row, outcome)| match outcome {
                Outcome::Rejected(_) => false,
                outcome => {
                    !outcome.outranks(row.version, self.since)
                        || self.asked_again.contains(&row.record)
                }
            })
    }
}

/// The rows of one destination. A clone shares them, so that a batch that is offered again copies none.
#[derive(Debug, Clone)]
pub struct DestinationBatch {
    /// The plan that the rows' cells follow.
    pub plan: Arc<DestinationPlan>,
    /// The rows, lowest offset first.
    pub rows: Arc<Vec<MappedRow>>,
    /// For `on_none = reject`: the change's bytes of a row, to be parked whole.
    pub images: Arc<Vec<bytes::Bytes>>,
}

/// What a batch did.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Applied {
    /// Whether it was committed. A batch with a [`Outcome::Rejected`] row is not: nothing is written, so that
    /// the dead letters can be acknowledged before the commit that passes their records (J1). The caller
    /// takes those records out and applies again. Nor is one with a row that the ledger outranks, unless its record
    /// was [asked for again](Batch::asked_again). Nor is one that [only asks](Batch::rematch), or that takes
    /// more than its [brake](Batch::brake) lets.
    pub committed: bool,
    /// An outcome per destination and row, in their order.
    pub outcomes: Vec<Vec<Outcome>>,
}

/// What became of one row.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// A new row.
    Inserted,
    /// An existing row got its first association with this record.
    Associated,
    /// Columns changed.
    Updated,
    /// Columns changed, and a mapped one lost its value; `Updated` where no [brake](Batch::brake) asks.
    Emptied,
    /// Nothing would have changed.
    Unchanged,
    /// The crosswalk holds a higher version; carries it, so that the caller sees a lower term (I7).
    Stale(Version),
    /// The record left the row, and the row went if no other record holds it.
    Deleted,
    /// Marked as deleted or filtered out.
    Marked,
    /// A delete, or a filtered record, that has no row; or `keep`.
    Ignored,
    /// The whole change waits for a row (`on_none = reject`).
    Parked,
    /// Several rows have its identifiers: the whole change waits for a person.
    Review,
    /// `on_none = skip`, or a person said that the record gets no row.
    Skipped,
    /// For the dead letters: refused value, empty identifier, look-up that finds several.
    Rejected(String),
}

impl Outcome {
    /// Whether the ledger holds a version that the topic's owner does not know (I7): one of a higher term than the
    /// change's, since the owner lost state, or one of a term before `since`, since the topic was lost.
    #[must_use]
    pub fn outranks(&self, version: Version, since: u64) -> bool {
        matches!(self, Self::Stale(held) if held.term() > version.term() || held.term() < since)
    }

    /// Its label in metrics and on pages.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Inserted => "inserted",
            Self::Associated => "associated",
            Self::Updated | Self::Emptied => "updated",
            Self::Unchanged => "unchanged",
            Self::Stale(_) => "stale",
            Self::Deleted => "deleted",
            Self::Marked => "marked",
            Self::Ignored => "ignored",
            Self::Parked => "parked",
            Self::Review => "review",
            Self::Skipped => "skipped",
            Self::Rejected(_) => "rejected",
        }
    }
}

/// What [`Target::release`] did.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Released {
    /// References filled.
    pub filled: u64,
    /// Changes to run again, with their place in the topic.
    pub changes: Vec<ParkedChange>,
    /// Whether more may be waiting.
    pub more: bool,
}

/// What [`Target::strays`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Strays {
    /// The rows that were left, for [`Target::forget_strays`].
    pub marks: Vec<u64>,
    /// Records that hold rows which refer to them.
    pub records: Vec<(ConnectionId, ObjectName, RecordId)>,
}

/// A parked change that may go on.
#[derive(Debug, Clone, PartialEq)]
pub struct ParkedChange {
    /// The record.
    pub record: RecordId,
    /// Its version: run again only if this is still the parked one.
    pub version: Version,
    /// Topic partition and offset.
    pub place: (u32, u64),
    /// The change's bytes.
    pub image: bytes::Bytes,
}

impl ParkedChange {
    /// What [`Target::forget`] takes.
    #[must_use]
    pub fn key(&self) -> ParkedKey {
        ParkedKey {
            record: self.record.clone(),
            reference: None,
            version: self.version,
            place: self.place,
        }
    }
}

/// Names a parked thing of a job as it was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParkedKey {
    /// The record.
    pub record: RecordId,
    /// Table and column of a reference; `None` for a whole change.
    pub reference: Option<(String, String)>,
    /// The version at which it waits.
    pub version: Version,
    /// Topic partition and offset from which it was parked.
    pub place: (u32, u64),
}

/// A parked thing whose time to live is over.
#[derive(Debug, Clone, PartialEq)]
pub struct Expired {
    /// Which it is.
    pub key: ParkedKey,
    /// What it waited for.
    pub waited_for: String,
    /// The change's bytes, where the whole change was parked.
    pub image: Option<bytes::Bytes>,
}

/// Which rows [`Target::rows`] returns.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RowsPage {
    /// At most this many; 0 means 100.
    pub limit: usize,
    /// Skip this many.
    pub offset: usize,
    /// Only rows where the column equals the text, spelled as in [`StoredRow::to_json`]; a null equals none.
    pub filter: Vec<(String, String)>,
}

/// A stored row: columns by name, `gsid`, `created_date` and `modified_date` among them.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredRow {
    /// The row's GSID.
    pub gsid: Uuid,
    /// Column and value, in the table's order.
    pub columns: Vec<(String, Cell)>,
}

impl StoredRow {
    /// The row as a JSON object; numbers that a JSON reader would round are texts.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Map<String, serde_json::Value> {
        let mut json = serde_json::Map::new();
        json.insert("gsid".to_owned(), self.gsid.to_string().into());
        for (column, cell) in &self.columns {
            json.insert(column.clone(), cell.to_json());
        }
        json
    }
}

/// One association of a record.
#[derive(Debug, Clone, PartialEq)]
pub struct Traced {
    /// The table.
    pub table: String,
    /// The version applied last.
    pub version: Version,
    /// The row; `None` once it is deleted, and if it was never stored.
    pub row: Option<StoredRow>,
    /// Columns that wait for a row.
    pub parked: Vec<String>,
}

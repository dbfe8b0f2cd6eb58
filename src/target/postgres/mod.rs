//! The PostgreSQL target: tables in one schema, the ledger in another, written by a few connections side by side.
//!
//! A table is named as its object's file: `gsid` (UUIDv7, the primary key), `created_date`, `modified_date`,
//! `crm_state`, `crm_state_at`, and the object's fields as `text`, `numeric`, `boolean`, `date`, `timestamptz` and
//! `uuid`.
//!
//! A batch is one READ COMMITTED transaction on the connection of its partition. What the batch needs to know is
//! read set by set, thought through in memory row by row, and written set by set (`facts.rs`). What was read without
//! a lock is true still when it is written, or the batch is run again:
//! * The offset's row is updated first, so a partition has one writer at a time.
//! * A crosswalk entry is written only if it is the very one that was read; that is checked before any row is
//!   written.
//! * Whoever comes to hold a row, ceases to, or changes its mark locks the row first. Who holds it already and goes
//!   on to needs no lock: nobody deletes a row that another one holds.
//! * Rows without an entry are claimed by their identifiers before they are looked for (J4).
//!
//! Look-ups by record id are kept from batch to batch, for as long as the ledger's counts say that no record has let
//! go of its row (`recall.rs`, J7). All others are made anew: another daemon may change what they find, and nothing
//! would tell.
//!
//! Keys are locked in their order. Where two transactions lock in a circle all the same, PostgreSQL ends one of them,
//! and it is run again.

mod apply;
mod ask;
mod derive;
mod expired;
mod facts;
mod layout;
mod ledger;
mod lookup;
mod orders;
mod parked;
mod pass;
mod read;
mod read_held;
pub mod read_only;
mod recall;
mod release;
mod review;
mod schema;
mod scratch;
mod stage;
mod stray;
mod sweep;
#[cfg(test)]
mod tests;
mod value;
mod view;
mod wake;
mod write;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use uuid::ContextV7;

use self::recall::Recall;
use self::release::Share;
use crate::fault::{Fault, FaultKind};
use crate::mapping::plan::JobPlan;
use crate::model::name::{ConnectionId, JobId, ObjectName};
use crate::model::record_id::RecordId;
use crate::model::stored::StoredObject;
use crate::postgres::worker::Worker;
use crate::postgres::{Server, Settings};
use crate::runtime::clock::Clock;
use crate::target::port::review::{Binding, Decided, InReview, Review, Reviews, Which};
use crate::target::port::sweep::{SweepKey, Sweeps, Unmet};
use crate::target::port::{
    Applied, Assignment, Batch, Expired, ParkedKey, ReaderKey, Released, RowsPage, StoredRow,
    Strays, Target, Traced,
};

/// More writers wait for one another on one server.
const MAX_WRITERS: usize = 8;

/// How rows get to a server.
#[derive(Debug, Clone)]
pub struct PostgresSettings {
    /// The server.
    pub server: Settings,
    /// Connections that write, each with its own partitions; 0: one per core, at most 8.
    pub writers: usize,
    /// The schema of the rows.
    pub store: String,
    /// The schema of the ledger.
    pub ledger: String,
}

impl PostgresSettings {
    /// A server with everything else as usual: schemas `store` and `tributary`.
    #[must_use]
    pub fn new(server: Settings) -> Self {
        Self {
            server,
            writers: 0,
            store: "store".to_owned(),
            ledger: "tributary".to_owned(),
        }
    }
}

impl PostgresSettings {
    fn into_schemas(self) -> Schemas {
        Schemas {
            store: self.store,
            ledger: self.ledger,
            statement_timeout: self.server.statement_timeout,
        }
    }
}

/// Where tables lie.
#[derive(Debug)]
struct Schemas {
    store: String,
    ledger: String,
    statement_timeout: Duration,
}

impl Schemas {
    /// A table of the store, as SQL takes it.
    fn table(&self, name: &str) -> String {
        format!("{}.{}", lookup::quote(&self.store), lookup::quote(name))
    }

    /// A table of the ledger.
    fn ledger(&self, name: &str) -> String {
        format!("{}.{}", lookup::quote(&self.ledger), lookup::quote(name))
    }
}

/// Rows and ledger in a PostgreSQL database.
pub struct PostgresTarget {
    name: String,
    schemas: Arc<Schemas>,
    writers: Vec<Worker>,
    /// What each writer's connection keeps of look-ups.
    recall: Vec<Arc<Mutex<Recall>>>,
    /// Releases what waits.
    keeper: Worker,
    /// Makes tables and indexes, which may take long.
    smith: Worker,
    reader: Worker,
    clock: Arc<dyn Clock>,
    gsids: Arc<Mutex<ContextV7>>,
    /// Something that waits may have missed its row: another owner may have died before it told.
    missed: Arc<AtomicBool>,
}

impl PostgresTarget {
    /// Connects and makes the ledger; `clock` dates what is filled later.
    ///
    /// # Errors
    /// As [`PostgresTarget::new`] and [`Target::ensure`].
    pub async fn open(settings: PostgresSettings, clock: Arc<dyn Clock>) -> Result<Self, Fault> {
        let target = Self::new(settings, clock)?;
        target.ensure(&[]).await?;
        Ok(target)
    }

    /// Connects at the first call, which has to be [`Target::ensure`]: the server need not be there yet. Must be
    /// called within a runtime.
    ///
    /// # Errors
    /// `Config` for settings that make no sense.
    pub fn new(settings: PostgresSettings, clock: Arc<dyn Clock>) -> Result<Self, Fault> {
        if settings.store == settings.ledger {
            let what = format!(
                "rows and ledger can't both lie in schema `{}`",
                settings.store
            );
            return Err(Fault::new(FaultKind::Config, what).remedy("give them a schema each"));
        }
        let server = Arc::new(Server::new(&settings.server)?);
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let writers = match settings.writers {
            0 => cores().min(MAX_WRITERS),
            some => some,
        };
        let start = || Worker::start(Arc::clone(&server));
        Ok(Self {
            name: server.name().to_owned(),
            schemas: Arc::new(settings.into_schemas()),
            writers: (0..writers).map(|_| start()).collect(),
            recall: (0..writers)
                .map(|_| Arc::new(Mutex::new(Recall::of(writers))))
                .collect(),
            keeper: start(),
            smith: start(),
            reader: start(),
            clock,
            gsids: Arc::default(),
            missed: Arc::new(AtomicBool::new(true)),
        })
    }

    /// Makes both schemas empty, for a replay; to be called before [`Target::ensure`].
    ///
    /// # Errors
    /// `Config` if one of them is there, unless a replay has made it and `replace` is said.
    pub async fn make_scratch(&self, replace: bool) -> Result<(), Fault> {
        let order = orders::MakeScratch {
            schemas: self.schemas(),
            replace,
        };
        self.smith.run(order).await
    }

    /// Drops both schemas of a replay.
    ///
    /// # Errors
    /// `Config` if no replay has made one of them.
    pub async fn remove_scratch(&self) -> Result<(), Fault> {
        let order = orders::RemoveScratch {
            schemas: self.schemas(),
        };
        self.smith.run(order).await
    }

    /// The place of a partition's connection; those of one topic lie on different ones.
    fn place(&self, reader: &ReaderKey, partition: u32) -> usize {
        let mut hasher = DefaultHasher::new();
        (&reader.connection, &reader.job).hash(&mut hasher);
        let first = hasher.finish() as usize;
        first.wrapping_add(partition as usize) % self.writers.len()
    }

    fn schemas(&self) -> Arc<Schemas> {
        Arc::clone(&self.schemas)
    }
}

#[async_trait]
impl Target for PostgresTarget {
    async fn ensure(&self, objects: &[StoredObject]) -> Result<(), Fault> {
        let order = orders::Ensure {
            schemas: self.schemas(),
            objects: objects.to_vec(),
        };
        self.smith.run(order).await
    }

    async fn prepare(&self, plan: &JobPlan) -> Result<(), Fault> {
        let order = orders::Prepare {
            schemas: self.schemas(),
            plan: plan.clone(),
        };
        self.smith.run(order).await
    }

    async fn assign(&self, reader: &ReaderKey, partition: u32) -> Result<Assignment, Fault> {
        let order = orders::Assign {
            schemas: self.schemas(),
            reader: reader.clone(),
            partition,
        };
        let writer = &self.writers[self.place(reader, partition)];
        let assigned = writer.run(order).await?;
        if assigned.epoch > 1 {
            self.missed
                .store(true, std::sync::atomic::Ordering::Relaxed);
        }
        Ok(assigned)
    }

    async fn apply(&self, batch: Batch) -> Result<Applied, Fault> {
        let place = self.place(&batch.reader, batch.partition);
        let order = apply::Apply {
            batch,
            schemas: self.schemas(),
            gsids: Arc::clone(&self.gsids),
            done: None,
            missed: Arc::clone(&self.missed),
            recall: Arc::clone(&self.recall[place]),
        };
        self.writers[place].run(order).await
    }

    /// One that waits per writer: it begins when the one before has ended, not when the job has heard of that.
    fn side_by_side(&self) -> usize {
        self.writers.len() * 2
    }

    async fn release(
        &self,
        connection: &ConnectionId,
        job: &JobId,
        partitions: &[u32],
        limit: usize,
    ) -> Result<Released, Fault> {
        let order = orders::Release {
            schemas: self.schemas(),
            share: Share::new(connection, job, partitions),
            limit,
            now: self.clock.now(),
            missed: Arc::clone(&self.missed),
        };
        self.keeper.run(order).await
    }

    async fn expired(
        &self,
        connection: &ConnectionId,
        job: &JobId,
        partitions: &[u32],
        older_than: DateTime<Utc>,
        limit: usize,
    ) -> Result<Vec<Expired>, Fault> {
        let order = orders::ListExpired {
            schemas: self.schemas(),
            share: Share::new(connection, job, partitions),
            older_than,
            limit,
        };
        self.keeper.run(order).await
    }

    async fn forget(
        &self,
        connection: &ConnectionId,
        job: &JobId,
        parked: &[ParkedKey],
    ) -> Result<u64, Fault> {
        let order = orders::Forget {
            schemas: self.schemas(),
            connection: connection.clone(),
            job: job.clone(),
            parked: parked.to_vec(),
        };
        self.keeper.run(order).await
    }

    async fn rows(&self, table: &str, page: RowsPage) -> Result<Vec<StoredRow>, Fault> {
        let order = orders::Rows {
            schemas: self.schemas(),
            table: table.to_owned(),
            page,
        };
        self.reader.run(order).await
    }

    async fn trace(
        &self,
        connection: &ConnectionId,
        object: &ObjectName,
        record: &RecordId,
    ) -> Result<Vec<Traced>, Fault> {
        let order = orders::Trace {
            schemas: self.schemas(),
            connection: connection.clone(),
            object: object.clone(),
            record: record.clone(),
        };
        self.reader.run(order).await
    }

    async fn held(
        &self,
        connection: &ConnectionId,
        object: &ObjectName,
        table: &str,
    ) -> Result<u64, Fault> {
        let order = orders::Held {
            schemas: self.schemas(),
            connection: connection.clone(),
            object: object.clone(),
            table: table.to_owned(),
        };
        self.reader.run(order).await
    }

    async fn parked(&self) -> Result<Vec<(ConnectionId, JobId, u64)>, Fault> {
        let order = orders::Parked {
            schemas: self.schemas(),
        };
        self.reader.run(order).await
    }

    async fn strays(&self, connection: &ConnectionId) -> Result<Strays, Fault> {
        let order = orders::ListStrays {
            schemas: self.schemas(),
            connection: connection.clone(),
        };
        self.keeper.run(order).await
    }

    async fn forget_strays(&self, marks: &[u64]) -> Result<(), Fault> {
        let order = orders::ForgetStrays {
            schemas: self.schemas(),
            marks: marks.to_vec(),
        };
        self.keeper.run(order).await
    }

    async fn close(&self) -> Result<(), Fault> {
        let others = [&self.keeper, &self.smith, &self.reader];
        let workers = self.writers.iter().chain(others);
        let closed = futures_util::future::join_all(workers.map(Worker::close)).await;
        closed.into_iter().collect()
    }
}

#[async_trait]
impl Reviews for PostgresTarget {
    async fn reviews(&self, which: &Which) -> Result<Vec<Review>, Fault> {
        let order = orders::Reviews {
            schemas: self.schemas(),
            which: which.clone(),
        };
        self.reader.run(order).await
    }

    async fn bindings(&self) -> Result<Vec<Binding>, Fault> {
        let order = orders::Bindings {
            schemas: self.schemas(),
        };
        self.reader.run(order).await
    }

    async fn in_review(&self, connection: &ConnectionId, job: &JobId) -> Result<InReview, Fault> {
        let order = orders::CountReviews {
            schemas: self.schemas(),
            connection: connection.clone(),
            job: job.clone(),
        };
        self.reader.run(order).await
    }

    async fn decide(&self, binding: &Binding) -> Result<Decided, Fault> {
        let order = orders::Decide {
            schemas: self.schemas(),
            binding: binding.clone(),
        };
        self.keeper.run(order).await
    }
}

#[async_trait]
impl Sweeps for PostgresTarget {
    async fn begin_replay(&self, of: &SweepKey, tables: &[String]) -> Result<u64, Fault> {
        let order = orders::BeginReplay {
            schemas: self.schemas(),
            of: of.clone(),
            tables: tables.to_vec(),
        };
        self.smith.run(order).await
    }

    async fn met(&self, of: &SweepKey, records: &[RecordId]) -> Result<(), Fault> {
        let order = orders::Met {
            schemas: self.schemas(),
            of: of.clone(),
            records: records.to_vec(),
        };
        self.keeper.run(order).await
    }

    async fn unmet(&self, of: &SweepKey, limit: usize) -> Result<Vec<Unmet>, Fault> {
        let order = orders::ListUnmet {
            schemas: self.schemas(),
            of: of.clone(),
            limit,
        };
        self.reader.run(order).await
    }

    async fn swept(&self, of: &SweepKey, swept: &[Unmet]) -> Result<(), Fault> {
        let order = orders::Swept {
            schemas: self.schemas(),
            of: of.clone(),
            swept: swept.to_vec(),
        };
        self.keeper.run(order).await
    }

    async fn end_replay(&self, of: &SweepKey) -> Result<(), Fault> {
        let order = orders::EndReplay {
            schemas: self.schemas(),
            of: of.clone(),
        };
        self.keeper.run(order).await
    }
}

impl std::fmt::Debug for PostgresTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresTarget")
            .field("server", &self.name)
            .finish_non_exhaustive()
    }
}

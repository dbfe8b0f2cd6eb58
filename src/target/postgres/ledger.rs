//! The ledger's tables, offsets, and what the crosswalk says of a record.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::Schemas;
use super::lookup::quote;
use crate::fault::{Fault, FaultKind};
use crate::model::version::Version;
use crate::postgres::error::OrderError;
use crate::postgres::session::Session;
use crate::target::port::{Assignment, Batch, ReaderKey};

/// The ledger's schema, step by step; steps are only ever added. `{l}` is the ledger's schema. Texts are compared byte
/// by byte. An entry without GSID is `gone`. `ready` is 1 when something that waits has to be looked at, 2 when several
/// rows were found where that is an error, 3 when a person is waited for; `woken` counts how often it was, so that nobody puts to sleep what was
/// woken meanwhile. `claim` (a digest of destination, identifiers and their values) never holds a row that another
/// transaction sees: whoever wants the same claim waits for the end of who has it. `feed` has the objects whose records
/// hold rows of a table, and counts the batches in which such a record let go of its row (`recall.rs`). `owners` are the
/// connections to which a column belongs where they hold the row. `stray` has the rows that records are not any more, until
/// what refers to them was asked for again. `unmet` has who held a row when a replay into the live tables began, and was not
/// met since.
const STEPS: &[&str] = &["
CREATE TABLE {l}.\"offset\" (
    connection text COLLATE \"C\", job text COLLATE \"C\", reader text COLLATE \"C\", generation text COLLATE \"C\",
    partition int NOT NULL, next bigint NOT NULL, epoch bigint NOT NULL,
    PRIMARY KEY (connection, job, reader, generation, partition)
) WITH (fillfactor = 50);
CREATE TABLE {l}.crosswalk (
    connection text COLLATE \"C\", destination text COLLATE \"C\", record text COLLATE \"C\",
    object text COLLATE \"C\", gsid uuid, version text COLLATE \"C\" NOT NULL, gone boolean NOT NULL,
    crm_state text COLLATE \"C\", crm_state_at timestamptz,
    PRIMARY KEY (connection, destination, record, object)
) WITH (fillfactor = 80);
CREATE INDEX crosswalk_by_gsid ON {l}.crosswalk (gsid);
CREATE TABLE {l}.parked_reference (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    connection text COLLATE \"C\" NOT NULL, job text COLLATE \"C\" NOT NULL,
    destination text COLLATE \"C\" NOT NULL, record text COLLATE \"C\" NOT NULL,
    \"column\" text COLLATE \"C\" NOT NULL, object text COLLATE \"C\" NOT NULL,
    version text COLLATE \"C\" NOT NULL, partition bigint NOT NULL, \"offset\" bigint NOT NULL,
    takes_any boolean NOT NULL, lookup text COLLATE \"C\" NOT NULL, looked_up text COLLATE \"C\" NOT NULL,
    key text COLLATE \"C\" NOT NULL, digest uuid NOT NULL, since timestamptz NOT NULL,
    ready smallint NOT NULL DEFAULT 1, woken bigint NOT NULL DEFAULT 0,
    UNIQUE (connection, job, destination, record, \"column\")
);
CREATE INDEX parked_reference_waits ON {l}.parked_reference (looked_up, lookup, digest);
CREATE INDEX parked_reference_since ON {l}.parked_reference (connection, job, since);
CREATE INDEX parked_reference_ready ON {l}.parked_reference (connection, since, id) WHERE ready = 1;
CREATE INDEX parked_reference_several ON {l}.parked_reference (looked_up) WHERE ready = 2;
CREATE TABLE {l}.parked_change (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    connection text COLLATE \"C\" NOT NULL, job text COLLATE \"C\" NOT NULL,
    destination text COLLATE \"C\" NOT NULL, record text COLLATE \"C\" NOT NULL,
    object text COLLATE \"C\" NOT NULL, version text COLLATE \"C\" NOT NULL,
    partition bigint NOT NULL, \"offset\" bigint NOT NULL, image bytea NOT NULL, since timestamptz NOT NULL,
    ready smallint NOT NULL DEFAULT 1, woken bigint NOT NULL DEFAULT 0,
    UNIQUE (connection, job, record)
);
CREATE INDEX parked_change_since ON {l}.parked_change (connection, job, since);
CREATE INDEX parked_change_ready ON {l}.parked_change (connection, since, id) WHERE ready = 1;
CREATE INDEX parked_change_several ON {l}.parked_change (id) WHERE ready = 2;
CREATE TABLE {l}.parked_wait (
    change bigint NOT NULL REFERENCES {l}.parked_change (id) ON DELETE CASCADE,
    \"column\" text COLLATE \"C\" NOT NULL, takes_any boolean NOT NULL, lookup text COLLATE \"C\" NOT NULL,
    looked_up text COLLATE \"C\" NOT NULL, key text COLLATE \"C\" NOT NULL, digest uuid NOT NULL,
    PRIMARY KEY (change, \"column\")
);
CREATE INDEX parked_wait_waits ON {l}.parked_wait (looked_up, lookup, digest);
CREATE UNLOGGED TABLE {l}.claim (digest uuid PRIMARY KEY);
", "
DROP INDEX {l}.parked_change_ready;
CREATE INDEX parked_change_ready ON {l}.parked_change (connection, job, since, id) WHERE ready = 1;
", "
CREATE TABLE {l}.feed (
    connection text COLLATE \"C\", destination text COLLATE \"C\", object text COLLATE \"C\",
    lost bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (connection, destination, object)
) WITH (fillfactor = 50);
INSERT INTO {l}.feed SELECT DISTINCT connection, destination, object FROM {l}.crosswalk;
", "
CREATE TABLE {l}.review (
    change bigint PRIMARY KEY REFERENCES {l}.parked_change (id) ON DELETE CASCADE,
    identifiers text NOT NULL, candidates text NOT NULL
);
CREATE INDEX parked_change_review ON {l}.parked_change (connection, job, since, id) WHERE ready = 3;
CREATE TABLE {l}.binding (
    connection text COLLATE \"C\", destination text COLLATE \"C\", record text COLLATE \"C\",
    object text COLLATE \"C\", kind text COLLATE \"C\" NOT NULL, gsid uuid, author text, at timestamptz NOT NULL,
    PRIMARY KEY (connection, destination, record, object)
);
", "
ALTER TABLE {l}.parked_reference ADD COLUMN owners jsonb NOT NULL DEFAULT '[]';
CREATE TABLE {l}.stray (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, connection text COLLATE \"C\" NOT NULL, gsid uuid NOT NULL
);
CREATE INDEX stray_of ON {l}.stray (connection, id);
", "
CREATE TABLE {l}.unmet (
    connection text COLLATE \"C\", job text COLLATE \"C\", replay text COLLATE \"C\", record text COLLATE \"C\",
    destination text COLLATE \"C\", version text COLLATE \"C\" NOT NULL,
    PRIMARY KEY (connection, job, replay, record, destination)
);
"];

/// Makes both schemas and brings the ledger up to date; within a transaction that holds the lock of `ensure`.
pub(super) async fn migrate(session: &mut Session, schemas: &Schemas) -> Result<(), OrderError> {
    for schema in [&schemas.store, &schemas.ledger] {
        let known = "SELECT 1 FROM pg_namespace WHERE nspname = $1::text";
        if session.query(known, &[schema]).await?.is_empty() {
            session
                .run(&format!("CREATE SCHEMA {}", quote(schema)))
                .await?;
        }
    }
    let step = schemas.ledger("step");
    session
        .run(&format!(
            "CREATE TABLE IF NOT EXISTS {step} (number int PRIMARY KEY, at timestamptz NOT NULL DEFAULT now())"
        ))
        .await?;
    let count = format!("SELECT count(*) FROM {step}");
    let row = session.client().query_one(&count, &[]).await?;
    let done = usize::try_from(row.try_get::<_, i64>(0)?).unwrap_or_default();
    if done > STEPS.len() {
        let what = format!(
            "a later build wrote the ledger in schema `{}`",
            schemas.ledger
        );
        return Err(Fault::new(FaultKind::Config, what)
            .remedy("run that build")
            .into());
    }
    for (number, sql) in STEPS.iter().enumerate().skip(done) {
        session
            .run(&sql.replace("{l}", &quote(&schemas.ledger)))
            .await?;
        session
            .run(&format!("INSERT INTO {step} (number) VALUES ({number})"))
            .await?;
    }
    Ok(())
}

/// The compare-and-set of (epoch, next): the first statement of a batch.
pub(super) fn advance_sql(schemas: &Schemas) -> String {
    format!(
        "UPDATE {} SET next = $8 WHERE connection = $1 AND job = $2 AND reader = $3 AND generation = $4
         AND partition = $5 AND epoch = $6 AND next = $7",
        schemas.ledger("offset")
    )
}

/// Another owner has taken over, or the offset was passed.
pub(super) fn fenced(batch: &Batch) -> Fault {
    let ReaderKey {
        connection,
        job,
        reader,
        ..
    } = &batch.reader;
    let what = format!(
        "partition {} of {connection}/{job} ({reader}) is not at epoch {} and offset {} any more",
        batch.partition, batch.epoch, batch.expect
    );
    Fault::new(FaultKind::Fenced, what).remedy("another owner writes: assign the partition again")
}

/// Raises the epoch of a partition.
pub(super) async fn assign(
    session: &mut Session,
    schemas: &Schemas,
    reader: &ReaderKey,
    partition: u32,
) -> Result<Assignment, OrderError> {
    let sql = format!(
        "INSERT INTO {} AS o VALUES ($1, $2, $3, $4, $5, 0, 1)
         ON CONFLICT (connection, job, reader, generation, partition) DO UPDATE SET epoch = o.epoch + 1
         RETURNING next, epoch",
        schemas.ledger("offset")
    );
    let partition = signed_partition(partition);
    let rows = session
        .query(
            &sql,
            &[
                &reader.connection.as_str(),
                &reader.job.as_str(),
                &reader.reader,
                &reader.generation,
                &partition,
            ],
        )
        .await?;
    let row = rows.first().ok_or(OrderError::Overtaken("the offset"))?;
    Ok(Assignment {
        next: row.try_get::<_, i64>(0)?.cast_unsigned(),
        epoch: row.try_get::<_, i64>(1)?.cast_unsigned(),
    })
}

/// The offset of a batch's partition with its epoch, once whoever writes it has ended.
pub(super) async fn offset(
    session: &mut Session,
    schemas: &Schemas,
    batch: &Batch,
) -> Result<Option<(u64, u64)>, OrderError> {
    let sql = format!(
        "SELECT next, epoch FROM {} WHERE connection = $1 AND job = $2 AND reader = $3 AND generation = $4
         AND partition = $5 FOR UPDATE",
        schemas.ledger("offset")
    );
    let reader = &batch.reader;
    let partition = signed_partition(batch.partition);
    let rows = session
        .query(
            &sql,
            &[
                &reader.connection.as_str(),
                &reader.job.as_str(),
                &reader.reader,
                &reader.generation,
                &partition,
            ],
        )
        .await?;
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    let (next, epoch): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
    Ok(Some((next.cast_unsigned(), epoch.cast_unsigned())))
}

pub(super) fn signed_partition(partition: u32) -> i32 {
    i32::try_from(partition).unwrap_or(i32::MAX)
}

/// A number as PostgreSQL keeps it.
pub(super) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Reads a version that the ledger keeps.
pub(super) fn parse_version(text: &str) -> Result<Version, Fault> {
    text.parse().map_err(|error| {
        Fault::new(FaultKind::Corrupt, "reading the target's ledger")
            .source(error)
            .remedy("restore the database from a backup")
    })
}

/// Why a record left, as `crm_state` has it. The order is that of the texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum State {
    Deleted,
    Filtered,
}

impl State {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Deleted => "deleted",
            Self::Filtered => "filtered",
        }
    }
}

/// `crm_state` and `crm_state_at`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub state: State,
    pub at: DateTime<Utc>,
}

impl Mark {
    /// From two columns; null means no mark.
    pub(super) fn read(
        state: Option<&str>,
        at: Option<DateTime<Utc>>,
    ) -> Result<Option<Self>, Fault> {
        let (Some(state), Some(at)) = (state, at) else {
            return Ok(None);
        };
        let state = match state {
            "deleted" => State::Deleted,
            "filtered" => State::Filtered,
            other => {
                let what = format!("`{other}` is no crm_state");
                return Err(Fault::new(FaultKind::Corrupt, what));
            }
        };
        Ok(Some(Self { state, at }))
    }

    /// The order in which marks win: the newest.
    pub(super) fn rank(&self) -> (DateTime<Utc>, State) {
        (self.at, self.state)
    }
}

/// What the crosswalk holds of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    /// `None` for a record that was deleted or filtered before it was stored.
    pub gsid: Option<Uuid>,
    pub version: Version,
    /// It left its row for good.
    pub gone: bool,
    pub mark: Option<Mark>,
}

impl Entry {
    /// The row that it holds.
    pub(super) fn held(&self) -> Option<Uuid> {
        self.gsid.filter(|_| !self.gone)
    }
}

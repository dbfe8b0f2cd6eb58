//! Who owns a connection: leases by the server's clock, and the comparison of terms within the writing transaction.
//!
//! A write holds the lease's row by its key (`FOR KEY SHARE`) until it commits. Taking the connection over needs the
//! row alone (`FOR UPDATE`), so it waits for writes of the term that it ends, and finds them or refuses them. Renewing
//! changes no key and waits for nobody: a long write doesn't cost the lease.

use std::time::Duration;

use futures_util::future::join;

use super::schema::Schema;
use crate::fault::Fault;
use crate::model::name::ConnectionId;
use crate::postgres::error::OrderError;
use crate::postgres::session::Session;
use crate::state::port::fenced;

/// A daemon that was stopped within a transaction must not hold a takeover up: its transaction ends well before its
/// lease.
pub(super) const BEGIN: &str = "BEGIN; SET LOCAL idle_in_transaction_session_timeout = 5000";

/// Whether it is ours to take.
const IS_HELD: &str =
    "SELECT 1 FROM {s}.lease WHERE connection = $1 AND owner <> $2 AND until > clock_timestamp()";
/// A row to lock.
const MAKE: &str =
    "INSERT INTO {s}.lease VALUES ($1, '', 0, '-infinity') ON CONFLICT (connection) DO NOTHING";
const LOCK: &str = "SELECT 1 FROM {s}.lease WHERE connection = $1 FOR UPDATE";
const TAKE: &str =
    "UPDATE {s}.lease SET owner = $2, until = clock_timestamp() + $3::float8 * interval '1 second',
        term = greatest(term + 1, floor(extract(epoch FROM clock_timestamp()))::bigint)
     WHERE connection = $1 AND (owner = $2 OR until <= clock_timestamp()) RETURNING term";
const RENEW: &str =
    "UPDATE {s}.lease SET until = clock_timestamp() + $3::float8 * interval '1 second'
     WHERE connection = $1 AND term = $2";
const RELEASE: &str =
    "UPDATE {s}.lease SET until = '-infinity' WHERE connection = $1 AND term = $2";
const TERM: &str = "SELECT term FROM {s}.lease WHERE connection = $1";
const HOLD: &str = "SELECT term FROM {s}.lease WHERE connection = $1 FOR KEY SHARE";

/// Takes a connection over, if nobody else holds it.
pub(super) async fn acquire(
    session: &mut Session,
    schema: &Schema,
    connection: &ConnectionId,
    owner: &str,
    lease: Duration,
) -> Result<Option<u64>, OrderError> {
    let connection = connection.as_str();
    // Whoever only looks disturbs nobody.
    let held = session
        .query(&schema.sql(IS_HELD), &[&connection, &owner])
        .await?;
    if !held.is_empty() {
        return Ok(None);
    }
    session.run(BEGIN).await?;
    session.execute(&schema.sql(MAKE), &[&connection]).await?;
    session.query(&schema.sql(LOCK), &[&connection]).await?;
    let seconds = lease.as_secs_f64();
    let taken = session
        .query(&schema.sql(TAKE), &[&connection, &owner, &seconds])
        .await?;
    session.run("COMMIT").await?;
    let term = taken.first().map(|row| row.try_get::<_, i64>(0));
    Ok(term.transpose()?.map(i64::cast_unsigned))
}

/// Prolongs a lease.
pub(super) async fn renew(
    session: &mut Session,
    schema: &Schema,
    connection: &ConnectionId,
    term: u64,
    lease: Duration,
) -> Result<(), OrderError> {
    let (stored, seconds) = (term.cast_signed(), lease.as_secs_f64());
    let renewed = session
        .execute(
            &schema.sql(RENEW),
            &[&connection.as_str(), &stored, &seconds],
        )
        .await?;
    held(session, schema, connection, term, renewed).await
}

/// Gives a lease up.
pub(super) async fn release(
    session: &mut Session,
    schema: &Schema,
    connection: &ConnectionId,
    term: u64,
) -> Result<(), OrderError> {
    let stored = term.cast_signed();
    let released = session
        .execute(&schema.sql(RELEASE), &[&connection.as_str(), &stored])
        .await?;
    held(session, schema, connection, term, released).await
}

async fn held(
    session: &mut Session,
    schema: &Schema,
    connection: &ConnectionId,
    term: u64,
    written: u64,
) -> Result<(), OrderError> {
    if written == 1 {
        return Ok(());
    }
    let stored = session
        .query(&schema.sql(TERM), &[&connection.as_str()])
        .await?;
    let stored = stored.first().map(|row| row.try_get::<_, i64>(0));
    let stored = stored.transpose()?.unwrap_or_default().cast_unsigned();
    Err(fenced(connection, term, stored).into())
}

/// Begins a transaction that nobody can take the connection over before the end of (I7).
pub(super) async fn begin(
    session: &mut Session,
    schema: &Schema,
    connection: &ConnectionId,
    term: u64,
) -> Result<(), OrderError> {
    let hold = session.statement(&schema.sql(HOLD)).await?;
    let (client, connection_id) = (session.client(), connection.as_str());
    let params: [&(dyn tokio_postgres::types::ToSql + Sync); 1] = [&connection_id];
    // Both go out at once.
    let (begun, stored) = join(client.batch_execute(BEGIN), client.query(&hold, &params)).await;
    begun?;
    let stored = stored?;
    let stored = stored.first().map(|row| row.try_get::<_, i64>(0));
    let stored = stored.transpose()?.map(i64::cast_unsigned);
    if stored == Some(term) {
        return Ok(());
    }
    let fault: Fault = fenced(connection, term, stored.unwrap_or_default());
    Err(fault.into())
}

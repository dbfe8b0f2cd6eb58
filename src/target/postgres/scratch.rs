//! Schemas of a replay: made beside the live ones, and dropped only if a replay has made them.

use super::Schemas;
use super::lookup::quote;
use crate::fault::{Fault, FaultKind};
use crate::postgres::error::OrderError;
use crate::postgres::session::Session;

/// The comment by which such a schema is known.
const MARK: &str = "made by a replay of tributary";

/// Makes both schemas empty; those of an earlier replay only give way if `replace`.
pub(super) async fn make(
    session: &mut Session,
    schemas: &Schemas,
    replace: bool,
) -> Result<(), OrderError> {
    session.run("BEGIN").await?;
    for schema in [&schemas.store, &schemas.ledger] {
        if is_there(session, schema).await? {
            if !replace {
                let what = format!("schema `{schema}` is there already");
                return Err(Fault::new(FaultKind::Config, what)
                    .remedy("take another name, or say --replace")
                    .into());
            }
            session
                .run(&format!("DROP SCHEMA {} CASCADE", quote(schema)))
                .await?;
        }
        let name = quote(schema);
        session
            .run(&format!(
                "CREATE SCHEMA {name}; COMMENT ON SCHEMA {name} IS '{MARK}'"
            ))
            .await?;
    }
    session.run("COMMIT").await
}

/// Drops both schemas with all that is in them.
pub(super) async fn remove(session: &mut Session, schemas: &Schemas) -> Result<(), OrderError> {
    session.run("BEGIN").await?;
    for schema in [&schemas.store, &schemas.ledger] {
        if is_there(session, schema).await? {
            session
                .run(&format!("DROP SCHEMA {} CASCADE", quote(schema)))
                .await?;
        }
    }
    session.run("COMMIT").await
}

/// Whether a replay has made the schema; `Config` if somebody else has.
async fn is_there(session: &mut Session, schema: &str) -> Result<bool, OrderError> {
    let sql =
        "SELECT obj_description(oid, 'pg_namespace') FROM pg_namespace WHERE nspname = $1::text";
    let found = session.query(sql, &[&schema]).await?;
    let Some(row) = found.first() else {
        return Ok(false);
    };
    if row.try_get::<_, Option<&str>>(0)? == Some(MARK) {
        return Ok(true);
    }
    let what = format!("schema `{schema}` was not made by a replay");
    Err(Fault::new(FaultKind::Config, what)
        .remedy("take another name: it may be somebody's only copy")
        .into())
}

//! The state's tables, made and brought up to date by whoever opens them first.

use crate::fault::{Fault, FaultKind};
use crate::postgres::error::OrderError;
use crate::postgres::session::Session;

/// Steps are only ever added; `{s}` is the schema.
const STEPS: &[&str] = &[
    "
CREATE TABLE {s}.lease (
    connection text COLLATE \"C\" PRIMARY KEY, owner text NOT NULL, term bigint NOT NULL, until timestamptz NOT NULL
) WITH (fillfactor = 50);
CREATE TABLE {s}.position (
    connection text COLLATE \"C\" PRIMARY KEY, position text, confirmed_at timestamptz NOT NULL
) WITH (fillfactor = 50);
CREATE TABLE {s}.owed (
    connection text COLLATE \"C\", object text COLLATE \"C\", record text COLLATE \"C\", stamp timestamptz NOT NULL,
    PRIMARY KEY (connection, object, record)
);
CREATE INDEX owed_by_age ON {s}.owed (connection, object, stamp);
CREATE TABLE {s}.hole (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    connection text COLLATE \"C\" NOT NULL, object text COLLATE \"C\" NOT NULL, cause text COLLATE \"C\" NOT NULL,
    scope jsonb NOT NULL, state text COLLATE \"C\" NOT NULL, opened_at timestamptz NOT NULL,
    closed_at timestamptz, evidence jsonb
);
CREATE UNIQUE INDEX hole_open ON {s}.hole (connection, object, cause, scope) WHERE state <> 'closed';
CREATE TABLE {s}.object (
    connection text COLLATE \"C\", object text COLLATE \"C\", state jsonb NOT NULL,
    PRIMARY KEY (connection, object)
);
CREATE TABLE {s}.republish (
    connection text COLLATE \"C\", object text COLLATE \"C\", record text COLLATE \"C\",
    PRIMARY KEY (connection, object, record)
);
", "
CREATE TABLE {s}.hint (
    connection text COLLATE \"C\", object text COLLATE \"C\", record text COLLATE \"C\", at timestamptz NOT NULL,
    PRIMARY KEY (connection, object, record)
);
CREATE INDEX hint_by_age ON {s}.hint (connection, at);
", "
CREATE TABLE {s}.org (connection text COLLATE \"C\" PRIMARY KEY, id text NOT NULL, url text NOT NULL);
CREATE TABLE {s}.credential (
    connection text COLLATE \"C\" PRIMARY KEY, revision bigint NOT NULL, key_id text, sealed bytea
);
", "
CREATE TABLE {s}.job_order (
    connection text COLLATE \"C\", job text COLLATE \"C\", revision bigint NOT NULL, body jsonb NOT NULL,
    PRIMARY KEY (connection, job)
);
", "
CREATE TABLE {s}.sync_asked (
    connection text COLLATE \"C\", object text COLLATE \"C\", asked bigint NOT NULL, done bigint NOT NULL,
    body jsonb NOT NULL, PRIMARY KEY (connection, object)
);
", "
CREATE TABLE {s}.description (
    connection text COLLATE \"C\", object text COLLATE \"C\", read_at timestamptz NOT NULL, body text NOT NULL,
    PRIMARY KEY (connection, object)
);
CREATE TABLE {s}.refresh_asked (connection text COLLATE \"C\" PRIMARY KEY, at timestamptz NOT NULL);
", "
CREATE TABLE {s}.run (
    connection text COLLATE \"C\", job text COLLATE \"C\", id text COLLATE \"C\", began timestamptz NOT NULL,
    body jsonb NOT NULL, PRIMARY KEY (connection, job, id)
);
CREATE INDEX run_by_age ON {s}.run (began, id);
CREATE TABLE {s}.run_part (
    connection text COLLATE \"C\", job text COLLATE \"C\", id text COLLATE \"C\", writer text COLLATE \"C\",
    body jsonb NOT NULL, PRIMARY KEY (connection, job, id, writer)
) WITH (fillfactor = 50);
", "
CREATE TABLE {s}.notice_mark (subject text COLLATE \"C\" PRIMARY KEY, mark text NOT NULL, at timestamptz NOT NULL);
CREATE TABLE {s}.letter (
    id text COLLATE \"C\" PRIMARY KEY, body text NOT NULL, written timestamptz NOT NULL, due timestamptz NOT NULL,
    tries int NOT NULL
);
"];

/// One daemon at a time makes tables.
const LOCK: &str = "SELECT pg_advisory_xact_lock(hashtextextended('tributary state', 0))";

/// Where the tables lie.
#[derive(Debug, Clone)]
pub(super) struct Schema(String);

impl Schema {
    /// # Errors
    /// `Config` for a name that would have to be quoted.
    pub fn new(name: &str) -> Result<Self, Fault> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        let starts = name.starts_with(|c: char| c.is_ascii_lowercase());
        if starts && name.len() <= 63 && name.chars().all(plain) {
            return Ok(Self(name.to_owned()));
        }
        let what = format!("the state can't lie in a schema `{name}`");
        Err(Fault::new(FaultKind::Config, what)
            .remedy("write a-z, 0-9 and _, a letter first, 63 at most"))
    }

    /// SQL with the schema in place of `{s}`.
    pub fn sql(&self, text: &str) -> String {
        text.replace("{s}", &self.0)
    }
}

/// Makes what is missing, all or nothing.
pub(super) async fn migrate(session: &mut Session, schema: &Schema) -> Result<(), OrderError> {
    session
        .run("BEGIN; SET LOCAL statement_timeout = 0")
        .await?;
    session.run(LOCK).await?;
    // A role without the right to make schemas may find one that was made for it.
    let known = "SELECT 1 FROM pg_namespace WHERE nspname = $1::text";
    if session.query(known, &[&schema.0]).await?.is_empty() {
        session.run(&schema.sql("CREATE SCHEMA {s}")).await?;
    }
    let step = "CREATE TABLE IF NOT EXISTS {s}.step (number int PRIMARY KEY, at timestamptz NOT NULL DEFAULT now())";
    session.run(&schema.sql(step)).await?;
    let count = schema.sql("SELECT count(*) FROM {s}.step");
    let row = session.client().query_one(&count, &[]).await?;
    let done = usize::try_from(row.try_get::<_, i64>(0)?).unwrap_or_default();
    if done > STEPS.len() {
        let what = format!("a later build wrote the state in schema `{}`", schema.0);
        let fault = Fault::new(FaultKind::Config, what);
        return Err(fault.remedy("run that build").into());
    }
    for (number, sql) in STEPS.iter().enumerate().skip(done) {
        session.run(&schema.sql(sql)).await?;
        let note = format!("INSERT INTO {{s}}.step (number) VALUES ({number})");
        session.run(&schema.sql(&note)).await?;
    }
    session.run("COMMIT").await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_sql_would_read_otherwise_is_refused() {
        for name in ["", "State", "a b", "1a", "a\"; DROP TABLE x; --", "ä"] {
            let fault = Schema::new(name).unwrap_err();
            assert_eq!(fault.kind(), FaultKind::Config, "{name}");
        }
        let schema = Schema::new("tributary_state").unwrap();
        assert_eq!(schema.sql("{s}.hole"), "tributary_state.hole");
    }
}

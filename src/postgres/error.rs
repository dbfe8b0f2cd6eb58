//! What PostgreSQL's errors mean: one table from SQLSTATE to fault.

use std::error::Error as _;

use tokio_postgres::error::{DbError, SqlState};

use crate::fault::{Fault, FaultKind};

/// What ends an order early.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    /// PostgreSQL's own error.
    #[error(transparent)]
    Postgres(#[from] tokio_postgres::Error),
    /// Another transaction came between reading and writing: the order has to be run again.
    #[error("another transaction changed {0} meanwhile")]
    Overtaken(&'static str),
    /// A fault of the order itself.
    #[error(transparent)]
    Fault(#[from] Fault),
}

impl OrderError {
    /// Whether the same order may well succeed at once: another one was in its way.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Overtaken(_) => true,
            Self::Postgres(error) => matches!(
                error.code(),
                Some(&SqlState::T_R_DEADLOCK_DETECTED | &SqlState::T_R_SERIALIZATION_FAILURE)
            ),
            Self::Fault(_) => false,
        }
    }

    /// Whether the connection can't be used any more.
    #[must_use]
    pub fn ends_session(&self) -> bool {
        let Self::Postgres(error) = self else {
            return false;
        };
        match error.code() {
            None => !is_client_side(error),
            // A plan that was made before a table changed, or a statement that a pooler lost.
            Some(code) => {
                matches!(
                    code.code().get(..2),
                    Some("08" | "57" | "0A" | "26" | "58" | "XX")
                ) && *code != SqlState::QUERY_CANCELED
            }
        }
    }
}

impl From<OrderError> for Fault {
    fn from(error: OrderError) -> Self {
        match error {
            OrderError::Fault(fault) => fault,
            OrderError::Postgres(error) => fault(error),
            overtaken @ OrderError::Overtaken(_) => {
                Self::new(FaultKind::Unavailable, "other writers are in the way").source(overtaken)
            }
        }
    }
}

/// A value that can't be encoded or decoded never reached the server.
fn is_client_side(error: &tokio_postgres::Error) -> bool {
    let text = error.to_string();
    text.starts_with("error serializing") || text.starts_with("error deserializing")
}

/// Says what an error of PostgreSQL means.
#[must_use]
pub fn fault(error: tokio_postgres::Error) -> Fault {
    if let Some(error) = error.as_db_error() {
        return refused(error);
    }
    if error.to_string().starts_with("error deserializing") {
        return Fault::new(FaultKind::Corrupt, "reading what PostgreSQL holds").source(error);
    }
    if is_client_side(&error) {
        return Fault::new(FaultKind::Record, "a value can't be sent to PostgreSQL").source(error);
    }
    let text = error.to_string();
    let tls = text.contains("TLS");
    if tls && caused_by(&error, "certificate") {
        return Fault::new(
            FaultKind::Config,
            "the certificate of PostgreSQL is not trusted",
        )
        .source(error)
        .remedy("set `ca_file` to the authority that signed it, and the host by the name in it");
    }
    if tls && caused_by(&error, "server does not support TLS") {
        return Fault::new(FaultKind::Config, "PostgreSQL does not speak TLS")
            .source(error)
            .remedy("set ssl = on in its configuration, or ssl_mode = \"disable\" on a network of trust");
    }
    if text.contains("authentication") {
        return Fault::new(FaultKind::Credentials, "logging in to PostgreSQL")
            .source(error)
            .remedy("check user and password");
    }
    Fault::new(FaultKind::Unavailable, "PostgreSQL can't be reached").source(error)
}

/// The client library tells what went wrong in words only.
fn caused_by(error: &tokio_postgres::Error, words: &str) -> bool {
    let mut cause = error.source();
    while let Some(inner) = cause {
        if inner.to_string().contains(words) {
            return true;
        }
        cause = inner.source();
    }
    false
}

/// The table (PostgreSQL documentation, "PostgreSQL Error Codes").
fn kind(code: &str) -> FaultKind {
    match code {
        // Too many connections; a lock or a slot is taken.
        "53300" | "55P03" => FaultKind::Throttled,
        // The disk is full.
        "53100" => FaultKind::Storage,
        // A read-only server: a standby that has not taken over yet.
        "25006" => FaultKind::Unavailable,
        // Privileges, also of a schema or a role.
        "42501" => FaultKind::Permission,
        // Undefined table, column, function, object, schema, database.
        "42P01" | "42703" | "42883" | "42704" | "3F000" | "3D000" => FaultKind::Missing,
        "XX001" | "XX002" => FaultKind::Corrupt,
        _ => match code.get(..2).unwrap_or_default() {
            // Connection, rollback, resources, state, operator (also a statement's time), system, internal.
            "08" | "25" | "26" | "40" | "53" | "55" | "57" | "58" | "0A" | "XX" => {
                FaultKind::Unavailable
            }
            // Data, constraints, limits (a value too long for an index).
            "22" | "23" | "44" | "54" => FaultKind::Record,
            "28" => FaultKind::Credentials,
            "F0" => FaultKind::Config,
            _ => FaultKind::Protocol,
        },
    }
}

fn remedy(code: &str) -> Option<&'static str> {
    Some(match code {
        "42501" => "grant the role what docs/postgresql.md says",
        "3D000" => "create the database",
        "53300" => "raise max_connections, or lower `writers`",
        "53100" => "free space on the server",
        "57014" => "raise `statement_timeout` if the server is slow for a reason",
        "28P01" | "28000" => "check user, password and pg_hba.conf",
        _ => return None,
    })
}

fn refused(error: &DbError) -> Fault {
    let code = error.code().code();
    let mut what = format!("PostgreSQL says {}", error.message());
    for (name, value) in [
        ("table", error.table()),
        ("column", error.column()),
        ("constraint", error.constraint()),
    ] {
        if let Some(value) = value
            && !what.contains(value)
        {
            what.push_str(&format!(", {name} `{value}`"));
        }
    }
    if let Some(detail) = error.detail() {
        what.push_str(&format!(": {detail}"));
    }
    what.push_str(&format!(" (SQLSTATE {code})"));
    let fault = Fault::new(kind(code), what);
    match remedy(code) {
        Some(remedy) => fault.remedy(remedy),
        None => fault,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Fate;

    #[test]
    fn every_class_has_its_fate() {
        for (codes, fate) in [
            (
                &[
                    "08006", "08P01", "40001", "40P01", "53300", "53100", "53200", "55P03",
                    "57014", "57P01", "57P03", "58030", "25006", "XX000",
                ][..],
                Fate::Retry,
            ),
            (
                &[
                    "22001", "22003", "22021", "22P02", "23502", "23505", "23514", "54000",
                ],
                Fate::DeadLetter,
            ),
            (
                &[
                    "28000", "28P01", "42501", "42P01", "42703", "3D000", "3F000", "XX001",
                ],
                Fate::Stop,
            ),
        ] {
            for code in codes {
                assert_eq!(kind(code).fate(), fate, "{code}");
            }
        }
        assert_eq!(kind("28P01"), FaultKind::Credentials);
        assert_eq!(kind("42501"), FaultKind::Permission);
        assert_eq!(kind("42P01"), FaultKind::Missing);
        assert_eq!(kind("53300"), FaultKind::Throttled);
        assert_eq!(kind("53100"), FaultKind::Storage);
    }
}

//! Matches that a person decides (J4): what waits for that, what was decided, and how long it holds.
//!
//! Contract for every engine:
//! * A record whose identifiers several rows have is parked whole and answers [`super::Outcome::Review`], as do its
//!   destinations after that one. It is parked like a change that waits for a row, but no row releases it and no time ends it: a later
//!   write of the record asks its identifiers again, a delete and a filter exit end the wait.
//! * A decision is a row of the ledger per connection, object, record and table. It comes before the crosswalk, in every
//!   batch, until it is undone. [`super::Target::release`] hands out the change that waited for it.
//! * [`Bond::Open`] undoes: the identifiers are asked as if the record had never had a row there, and the bond goes with
//!   the batch in which they say which one it is.
//! * A record that a decision moves to another row lets go of the one before, which goes if no other record holds it:
//!   it was never that record's.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde_json::{Map, Value as Json, json};
use uuid::Uuid;

use crate::fault::{Fault, FaultKind};
use crate::model::name::{ConnectionId, JobId, ObjectName};
use crate::model::record_id::RecordId;
use crate::model::version::Version;
use crate::target::port::StoredRow;

/// Candidates that are kept of an ambiguous match, and told; there may be more.
pub const CANDIDATES: usize = 6;
/// Columns that are shown of a candidate, and characters of each.
const SHOWN: usize = 8;
const SHOWN_CHARACTERS: usize = 80;
/// What the columns are called by which people know a row.
const TELLING: [&str; 7] = [
    "name", "email", "title", "subject", "city", "website", "domain",
];

/// The part of a target that a person decides on.
#[async_trait]
pub trait Reviews: Send + Sync {
    /// What waits for a decision, oldest first.
    async fn reviews(&self, which: &Which) -> Result<Vec<Review>, Fault>;

    /// What was decided and holds, by connection, object, record and table.
    async fn bindings(&self) -> Result<Vec<Binding>, Fault>;

    /// How much of a job waits for a decision, and how much of that is decided.
    async fn in_review(&self, connection: &ConnectionId, job: &JobId) -> Result<InReview, Fault>;

    /// Notes a decision in place of the one before. A row that is not there can't be bound to: `Missing`.
    async fn decide(&self, binding: &Binding) -> Result<Decided, Fault>;
}

/// Which reviews [`Reviews::reviews`] returns; what is absent excludes nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Which {
    /// Those of a connection.
    pub connection: Option<ConnectionId>,
    /// Those of a job.
    pub job: Option<JobId>,
    /// Those of a CRM object.
    pub object: Option<ObjectName>,
    /// Those of a record.
    pub record: Option<RecordId>,
    /// At most this many; 0 means 100.
    pub limit: usize,
}

impl Which {
    /// At most how many.
    #[must_use]
    pub const fn most(&self) -> usize {
        if self.limit == 0 { 100 } else { self.limit }
    }
}

/// A record that waits for a person to say which row it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Review {
    /// The connection.
    pub connection: ConnectionId,
    /// The job.
    pub job: JobId,
    /// The CRM object.
    pub object: ObjectName,
    /// The record.
    pub record: RecordId,
    /// The table in which several rows fit.
    pub table: String,
    /// The version that waits.
    pub version: Version,
    /// Since when.
    pub since: DateTime<Utc>,
    /// The identifiers with the values that were looked for.
    pub identifiers: Vec<(String, String)>,
    /// The rows that had them, lowest GSID first; [`CANDIDATES`] at most.
    pub candidates: Vec<Candidate>,
}

/// A row that a record may be.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// Its GSID.
    pub gsid: Uuid,
    /// The row as it is now; `None` if it is gone.
    pub row: Option<StoredRow>,
}

impl Review {
    /// Why it waits, in words.
    #[must_use]
    pub fn reason(&self) -> String {
        let pairs = self.identifiers.iter();
        let pairs: Vec<_> = pairs
            .map(|(column, value)| format!("{column} = `{value}`"))
            .collect();
        let gsids: Vec<_> = self
            .candidates
            .iter()
            .map(|candidate| candidate.gsid.to_string())
            .collect();
        format!(
            "a row of `{}` with {} is what several rows have: {}",
            self.table,
            pairs.join(" and "),
            gsids.join(", ")
        )
    }

    /// What of a candidate tells it from the others: the identifiers, then columns by which people know a row, as
    /// far as they have values.
    #[must_use]
    pub fn shown(&self, candidate: &Candidate) -> Vec<(String, Json)> {
        let Some(row) = &candidate.row else {
            return Vec::new();
        };
        let is_identifier =
            |column: &str| self.identifiers.iter().any(|(known, _)| known == column);
        let is_telling = |column: &str| TELLING.iter().any(|word| column.contains(word));
        let mut columns: Vec<_> = row
            .columns
            .iter()
            .filter(|(column, _)| is_identifier(column) || is_telling(column))
            .map(|(column, cell)| (column.clone(), cut(cell.to_json())))
            .filter(|(_, value)| !value.is_null())
            .collect();
        columns.sort_by_key(|(column, _)| !is_identifier(column));
        columns.truncate(SHOWN);
        columns
    }

    /// As pages and programs get it.
    #[must_use]
    pub fn to_json(&self) -> Json {
        let candidates = self.candidates.iter().map(|candidate| {
            let columns: Map<String, Json> = self.shown(candidate).into_iter().collect();
            json!({ "gsid": candidate.gsid, "is_there": candidate.row.is_some(), "columns": columns })
        });
        let identifiers: Map<String, Json> = self
            .identifiers
            .iter()
            .map(|(column, value)| (column.clone(), value.as_str().into()))
            .collect();
        json!({
            "connection": self.connection, "job": self.job, "object": self.object, "record": self.record,
            "table": self.table, "version": self.version, "since": self.since, "reason": self.reason(),
            "identifiers": identifiers, "candidates": candidates.collect::<Vec<_>>(),
        })
    }
}

fn cut(value: Json) -> Json {
    match value {
        Json::String(text) if text.chars().count() > SHOWN_CHARACTERS => {
            let start = text.chars().take(SHOWN_CHARACTERS - 1);
            Json::String(start.chain(['…']).collect())
        }
        value => value,
    }
}

/// What holds of a record, whatever its identifiers say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bond {
    /// It is this row.
    Row(Uuid),
    /// It is this row, which was made for it.
    New(Uuid),
    /// It has no row and gets none; one that it has stays as it is.
    Ignored,
    /// Nothing any more: its identifiers are asked.
    Open,
}

impl Bond {
    /// As ledgers and pages spell it.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Row(_) => "bind",
            Self::New(_) => "create",
            Self::Ignored => "ignore",
            Self::Open => "open",
        }
    }

    /// The row that it names.
    #[must_use]
    pub const fn gsid(&self) -> Option<Uuid> {
        match self {
            Self::Row(gsid) | Self::New(gsid) => Some(*gsid),
            Self::Ignored | Self::Open => None,
        }
    }

    /// From a ledger's label and GSID.
    ///
    /// # Errors
    /// `Corrupt` for what no ledger holds.
    pub fn read(label: &str, gsid: Option<Uuid>) -> Result<Self, Fault> {
        match (label, gsid) {
            ("bind", Some(gsid)) => Ok(Self::Row(gsid)),
            ("create", Some(gsid)) => Ok(Self::New(gsid)),
            ("ignore", _) => Ok(Self::Ignored),
            ("open", _) => Ok(Self::Open),
            _ => {
                let what = format!("the ledger holds a decision `{label}` that is none");
                Err(Fault::new(FaultKind::Corrupt, what).remedy("run the build that wrote it"))
            }
        }
    }
}

/// A decision.
#[derive(Debug, Clone, PartialEq)]
pub struct Binding {
    /// The connection.
    pub connection: ConnectionId,
    /// The CRM object.
    pub object: ObjectName,
    /// The record.
    pub record: RecordId,
    /// The table.
    pub table: String,
    /// What was decided.
    pub bond: Bond,
    /// By whom.
    pub by: Option<String>,
    /// When.
    pub at: DateTime<Utc>,
}

impl Binding {
    /// As pages and programs get it.
    #[must_use]
    pub fn to_json(&self) -> Json {
        json!({
            "connection": self.connection, "object": self.object, "record": self.record, "table": self.table,
            "decision": self.bond.label(), "gsid": self.bond.gsid(), "by": self.by, "at": self.at,
        })
    }
}

/// What [`Reviews::decide`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decided {
    /// What held before.
    pub before: Option<Bond>,
    /// Whether the record waits for a decision on that table, so that its change is at hand.
    pub waits: bool,
}

/// How much of a job waits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct InReview {
    /// Records that wait for a decision.
    pub waiting: u64,
    /// Those of them for which there is one: a release hands them out.
    pub decided: u64,
}

/// No row of that GSID can be bound to.
#[must_use]
pub fn no_row(table: &str, gsid: Uuid) -> Fault {
    Fault::new(
        FaultKind::Missing,
        format!("table `{table}` has no row {gsid}"),
    )
    .remedy("`tributary review list` names the candidates, `tributary rows` others")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mapping::plan::Cell;

    #[test]
    fn a_candidate_is_shown_by_what_tells_it_apart() {
        let text = |text: &str| Cell::Text(text.into());
        let gsid = Uuid::from_u128(7);
        let row = StoredRow {
            gsid,
            columns: vec![
                ("gsid".to_owned(), Cell::Gsid(gsid)),
                ("first_name".to_owned(), text(&"A".repeat(200))),
                ("middle_name".to_owned(), Cell::Null),
                ("external_id".to_owned(), text("7")),
                ("notes".to_owned(), text("private")),
            ],
        };
        let candidate = Candidate {
            gsid,
            row: Some(row),
        };
        let review = Review {
            connection: "acme".into(),
            job: "sync".into(),
            object: "Contact".into(),
            record: RecordId::stored("003"),
            table: "person".to_owned(),
            version: Version::new(1, 1),
            since: DateTime::UNIX_EPOCH,
            identifiers: vec![("external_id".to_owned(), "7".to_owned())],
            candidates: vec![candidate],
        };
        let shown = review.shown(&review.candidates[0]);
        let names: Vec<&str> = shown.iter().map(|(column, _)| column.as_str()).collect();
        assert_eq!(names, ["external_id", "first_name"]);
        let name = shown[1].1.as_str().unwrap();
        assert_eq!(name.chars().count(), SHOWN_CHARACTERS);
        assert!(review.reason().contains("external_id = `7`"));
        let json = review.to_json();
        assert_eq!(json["candidates"][0]["gsid"], gsid.to_string());
        assert_eq!(json["candidates"][0]["columns"]["external_id"], "7");
    }

    #[test]
    fn a_bond_is_read_as_it_was_written() {
        let gsid = Uuid::from_u128(3);
        for bond in [Bond::Row(gsid), Bond::New(gsid), Bond::Ignored, Bond::Open] {
            assert_eq!(Bond::read(bond.label(), bond.gsid()).unwrap(), bond);
        }
        assert_eq!(
            Bond::read("bind", None).unwrap_err().kind(),
            FaultKind::Corrupt
        );
    }
}

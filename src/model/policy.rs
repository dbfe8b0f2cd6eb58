//! What a job does where there is a choice: its policies, as config names them and plans carry them.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// `on_multiple`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnMultiple {
    /// The lowest GSID.
    Any,
    /// The record is rejected.
    Error,
}

/// `on_none`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnNone {
    /// The column is null and the reference is parked until its row comes.
    Null,
    /// The whole change is parked until its row comes.
    Reject,
    /// This destination is skipped for the record.
    Skip,
    /// A fixed GSID.
    Default(Uuid),
}

/// `on_delete`, `on_filter_exit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnExit {
    /// The row stays as it is.
    Keep,
    /// `crm_state` and `crm_state_at` are written.
    Mark,
    /// The row goes with its last association.
    Delete,
}

/// `on_move`: a known record whose identifiers are not those of its row any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnMove {
    /// Its row is changed.
    Update,
    /// It is the row that its identifiers say, a new one if none has them; the one before is left as by a delete.
    New,
}

/// `on_empty_identifier`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnEmptyIdentifier {
    /// The record goes to the dead letters.
    Reject,
    /// A row is inserted.
    Insert,
}

/// `refresh`: when formulas of a record are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refresh {
    /// With full syncs, and once with a new record.
    #[default]
    FullSync,
    /// At each change of the record.
    OnChange,
}

/// `on_lost_field`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnLostField {
    /// The job goes on with the other fields; the field's columns stay as they are.
    #[default]
    Continue,
    /// The job pauses.
    Pause,
}

//! A wait for something outside of the daemon: why, and since when.

use chrono::{DateTime, Utc};
use serde::Serialize;

/// What the daemon waits for does not answer, or answers that it can't.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Waiting {
    /// What was told last.
    pub cause: String,
    /// Since when.
    pub since: DateTime<Utc>,
}

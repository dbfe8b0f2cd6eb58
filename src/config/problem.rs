//! A mistake in a config file: where it stands, what it says, what would be right.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

/// A place in a config file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Spot {
    /// The file, relative to the config's root.
    pub file: Arc<str>,
    /// The line, from 1.
    pub line: usize,
    /// The key's dotted path within its file (`to.Company.map.industry`).
    pub key: String,
}

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    /// Its place.
    pub spot: Spot,
}

/// A mistake. All of a config's are reported at once.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    /// Where.
    #[serde(flatten)]
    pub spot: Spot,
    /// What stands there, as far as it may be shown; never a secret.
    pub value: Option<String>,
    /// What is wrong (lower case, no full stop).
    pub what: String,
    /// What to do.
    pub remedy: String,
}

impl Problem {
    /// A mistake at `spot`.
    pub fn new(spot: &Spot, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            spot: spot.clone(),
            value: None,
            what: what.into(),
            remedy: remedy.into(),
        }
    }

    /// Adds what stands there.
    #[must_use]
    pub fn value(mut self, value: impl Into<String>) -> Self {
        self.value = Some(value.into());
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Spot { file, line, key } = &self.spot;
        write!(f, "{file}:{line}: `{key}`")?;
        if let Some(value) = &self.value {
            write!(f, " = {value}")?;
        }
        write!(f, ": {} (remedy: {})", self.what, self.remedy)
    }
}

//! A mistake in a config file: where it stands, what it says, what would be right.

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use crate::fault::{Fault, FaultKind};

/// Ends the name of a file that is compiled in.
pub(super) const BUILT_IN: &str = " (built in)";

/// A place in a config file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Spot {
    /// The file, relative to the config's root.
    pub file: Arc<str>,
    /// The line, from 1; 0 where there are no lines (a variable of the environment, a folder).
    pub line: usize,
    /// The key's dotted path within its file (`to.Company.map.industry`), parts quoted as TOML would have them;
    /// empty for a file as a whole.
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
        write!(f, "{}", self.spot)?;
        if let Some(value) = &self.value {
            write!(f, " = {value}")?;
        }
        write!(f, ": {} (remedy: {})", self.what, self.remedy)
    }
}

impl Spot {
    /// A file or a folder as a whole.
    pub fn whole(file: impl AsRef<str>) -> Self {
        Self {
            file: Arc::from(file.as_ref()),
            line: 0,
            key: String::new(),
        }
    }

    /// A key below this one, on `line`.
    #[must_use]
    pub fn below(&self, key: &str, line: usize) -> Self {
        let bare = !key.is_empty()
            && key
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
        let mut path = self.key.clone();
        if !path.is_empty() {
            path.push('.');
        }
        if bare {
            path.push_str(key);
        } else {
            path.push_str(&format!("{key:?}"));
        }
        Self {
            file: Arc::clone(&self.file),
            line,
            key: path,
        }
    }
}

impl fmt::Display for Spot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        if !self.key.is_empty() {
            write!(f, ": `{}`", self.key)?;
        }
        Ok(())
    }
}

impl<T> Located<T> {
    /// `value` as it stands at `spot`.
    pub const fn new(value: T, spot: Spot) -> Self {
        Self { value, spot }
    }

    /// The same place with another value.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Located<U> {
        Located {
            value: change(self.value),
            spot: self.spot,
        }
    }
}

/// All mistakes of a config, ordered by file and line, each once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// Orders `problems` and drops repetitions.
    pub fn new(problems: impl IntoIterator<Item = Problem>) -> Self {
        let ordered: BTreeSet<Problem> = problems.into_iter().collect();
        Self(ordered.into_iter().collect())
    }

    /// The mistakes.
    #[must_use]
    pub fn as_slice(&self) -> &[Problem] {
        &self.0
    }

    /// The mistakes, to keep.
    #[must_use]
    pub fn into_vec(self) -> Vec<Problem> {
        self.0
    }
}

/// A line each, and how many there are.
impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.0 {
            writeln!(f, "{problem}")?;
        }
        match self.0.len() {
            1 => f.write_str("1 problem"),
            count => write!(f, "{count} problems"),
        }
    }
}

impl Error for Problems {}

impl From<Problems> for Fault {
    fn from(problems: Problems) -> Self {
        let count = problems.0.len();
        let noun = if count == 1 { "problem" } else { "problems" };
        Self::new(FaultKind::Config, format!("the config has {count} {noun}"))
            .remedy("correct the files; `tributary check` names every place")
            .source(problems)
    }
}

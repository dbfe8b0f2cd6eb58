//! What can go wrong, and what becomes of it: one table from a fault's kind to its fate.
//!
//! Every module has typed errors of its own (`thiserror`); at a port they become a [`Fault`]: a
//! [`FaultKind`], a sentence that names the thing and the value, the remedy, and the cause. Whoever
//! handles a fault looks at [`FaultKind::fate`] and at nothing else.

use std::error::Error;
use std::fmt;
use std::time::Duration;

/// A failure at a port: its kind decides its fate, its text is for the operator.
pub struct Fault {
    kind: FaultKind,
    what: String,
    remedy: Option<String>,
    retry_after: Option<Duration>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

/// What a handler does with a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Try again with backoff, for ever, and show it.
    Retry,
    /// Set the one record aside with its reason and go on.
    DeadLetter,
    /// Stop this connection or job, keep its position, tell.
    Stop,
    /// Hold until an operator decides.
    Ask,
}

/// The closed list of fault kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// A file or a setting is wrong.
    Config,
    /// Credentials are wrong, revoked or expired beyond refresh.
    Credentials,
    /// The peer knows us and refuses: permission, licence, edition.
    Permission,
    /// The peer can't be reached, or answered with a fault that passes by itself.
    Unavailable,
    /// The peer asked us to slow down, or a quota is spent.
    Throttled,
    /// A named thing (object, field, record, topic, table) is not there.
    Missing,
    /// A position in a stream is no longer valid: a hole, never a skip.
    PositionLost,
    /// One record can't be read, mapped or accepted.
    Record,
    /// A look-up or an identifier matched several rows.
    Ambiguous,
    /// Another owner has taken over: a higher term or epoch was met.
    Fenced,
    /// No space, or a file can't be written.
    Storage,
    /// Stored data contradicts itself.
    Corrupt,
    /// The peer broke its own protocol, or we broke ours.
    Protocol,
    /// The daemon is stopping.
    Stopping,
}

impl FaultKind {
    /// Every kind, for tables and tests.
    pub const ALL: [Self; 14] = [
        Self::Config,
        Self::Credentials,
        Self::Permission,
        Self::Unavailable,
        Self::Throttled,
        Self::Missing,
        Self::PositionLost,
        Self::Record,
        Self::Ambiguous,
        Self::Fenced,
        Self::Storage,
        Self::Corrupt,
        Self::Protocol,
        Self::Stopping,
    ];

    /// The one table from kind to fate.
    #[must_use]
    pub const fn fate(self) -> Fate {
        match self {
            // A full disk is emptied by an operator while the daemon keeps what it has.
            Self::Unavailable | Self::Throttled | Self::Storage => Fate::Retry,
            // An unknown answer may pass (a gateway's page); it is retried, shown, and never skipped.
            Self::Protocol => Fate::Retry,
            Self::Record | Self::Ambiguous => Fate::DeadLetter,
            Self::Config
            | Self::Credentials
            | Self::Permission
            | Self::Missing
            | Self::Fenced
            | Self::Corrupt
            | Self::Stopping => Fate::Stop,
            // Expired positions are repaired by ingest, which records the hole first.
            Self::PositionLost => Fate::Ask,
        }
    }

    /// The label of this kind in metrics, logs and JSON.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Credentials => "credentials",
            Self::Permission => "permission",
            Self::Unavailable => "unavailable",
            Self::Throttled => "throttled",
            Self::Missing => "missing",
            Self::PositionLost => "position_lost",
            Self::Record => "record",
            Self::Ambiguous => "ambiguous",
            Self::Fenced => "fenced",
            Self::Storage => "storage",
            Self::Corrupt => "corrupt",
            Self::Protocol => "protocol",
            Self::Stopping => "stopping",
        }
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

impl Fault {
    /// A fault of `kind`; `what` names the thing and the value (lower case, no full stop).
    pub fn new(kind: FaultKind, what: impl Into<String>) -> Self {
        Self {
            kind,
            what: what.into(),
            remedy: None,
            retry_after: None,
            source: None,
        }
    }

    /// Adds what the operator can do about it.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Adds how long the peer asked us to wait.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// Puts what was being done before the text ("reading page of Account"): once per boundary.
    #[must_use]
    pub fn context(mut self, doing: impl fmt::Display) -> Self {
        self.what = format!("{doing}: {}", self.what);
        self
    }

    /// The kind.
    #[must_use]
    pub const fn kind(&self) -> FaultKind {
        self.kind
    }

    /// What becomes of it.
    #[must_use]
    pub const fn fate(&self) -> Fate {
        self.kind.fate()
    }

    /// How long the peer asked us to wait, if it did.
    #[must_use]
    pub const fn wait_hint(&self) -> Option<Duration> {
        self.retry_after
    }

    /// The remedy, if one is known.
    #[must_use]
    pub fn remedy_text(&self) -> Option<&str> {
        self.remedy.as_deref()
    }

    /// Whether an error of this type is among the causes.
    #[must_use]
    pub fn is_caused_by<T: Error + 'static>(&self) -> bool {
        let mut cause = Error::source(self);
        while let Some(inner) = cause {
            if inner.is::<T>() {
                return true;
            }
            cause = inner.source();
        }
        false
    }

    /// The whole text on one line: what, causes, remedy.
    #[must_use]
    pub fn report(&self) -> String {
        let text = self.told();
        match &self.remedy {
            Some(remedy) => format!("{text} (remedy: {remedy})"),
            None => text,
        }
    }

    /// What happened and its causes on one line, for who shows the remedy beside it.
    #[must_use]
    pub fn told(&self) -> String {
        use fmt::Write;
        let mut text = self.what.clone();
        let mut cause = Error::source(self);
        while let Some(inner) = cause {
            let inner_text = inner.to_string();
            // Library errors often repeat their cause in their own text.
            if !text.ends_with(&inner_text) {
                // Writing into a String can't fail.
                write!(text, ": {inner_text}").ok();
            }
            cause = inner.source();
        }
        text
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if let Some(remedy) = &self.remedy {
            write!(f, " (remedy: {remedy})")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fault[{}] {}", self.kind.label(), self.report())
    }
}

impl Error for Fault {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source
            .as_deref()
            .map(|cause| cause as &(dyn Error + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_distinct() {
        let mut labels: Vec<_> = FaultKind::ALL.iter().map(|kind| kind.label()).collect();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), FaultKind::ALL.len());
    }

    #[test]
    fn report_keeps_causes_and_remedy() {
        let inner = std::io::Error::other("disk is gone");
        let fault = Fault::new(FaultKind::Storage, "writing `log.db`")
            .source(inner)
            .remedy("free some space")
            .context("appending 3 entries");
        assert_eq!(
            fault.report(),
            "appending 3 entries: writing `log.db`: disk is gone (remedy: free some space)"
        );
        assert_eq!(fault.fate(), Fate::Retry);
    }
}

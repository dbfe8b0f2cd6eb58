//! A notice: one thing that people are told, in words and for programs. It has ids and counts, and no record's values.

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};

use super::port::Address;
use crate::state::notices::Letter;

/// A subject is one short line.
const TITLE: usize = 180;
const LINE: usize = 600;
const LINES: usize = 60;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A full sync is applied as a whole.
    RunEnded,
    /// A job was stopped by a brake, or by a field that is gone.
    JobStopped,
    /// A job met a fault that does not pass by itself.
    JobFailed,
    /// A job goes on.
    JobRecovered,
    /// A connection's credentials are refused, or it met a fault that does not pass by itself.
    ConnectionDown,
    /// A connection streams again.
    ConnectionRecovered,
    /// What became of real-time changes since the last one.
    Digest,
    /// Somebody tries whether notices arrive.
    Test,
    /// The daemon is healthy.
    Heartbeat,
}

/// A notice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// What happened.
    pub event: Event,
    /// How it came out: `success`, `partial_success`, `revoked`, …
    pub outcome: String,
    /// The connection, if it is about one.
    #[serde(default)]
    pub connection: Option<String>,
    /// The job, likewise.
    #[serde(default)]
    pub job: Option<String>,
    /// One line.
    pub title: String,
    /// What else is to be said.
    pub lines: Vec<String>,
    /// When it was seen.
    pub at: DateTime<Utc>,
}

/// A notice and where it goes, as letters keep it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Sealed {
    pub to: Address,
    pub notice: Notice,
}

impl Notice {
    /// A notice with nothing to say but its title.
    #[must_use]
    pub fn new(event: Event, outcome: &str, title: &str, at: DateTime<Utc>) -> Self {
        Self {
            event,
            outcome: outcome.to_owned(),
            connection: None,
            job: None,
            title: one_line(title, TITLE),
            lines: Vec::new(),
            at,
        }
    }

    /// Adds a line; what would break it is taken out.
    pub fn say(&mut self, line: &str) {
        if self.lines.len() < LINES {
            self.lines.push(one_line(line, LINE));
        }
    }

    /// The letter that takes it to an address.
    ///
    /// # Errors
    /// As JSON says, of which there is no case.
    pub fn letter(&self, id: &str, to: &Address) -> Result<Letter, serde_json::Error> {
        let sealed = Sealed {
            to: to.clone(),
            notice: self.clone(),
        };
        Ok(Letter {
            id: format!("{id} > {}", to.shown()),
            body: serde_json::to_string(&sealed)?,
        })
    }

    /// What people read.
    #[must_use]
    pub fn text(&self) -> String {
        let at = self.at.to_rfc3339_opts(SecondsFormat::Secs, true);
        let mut text = format!("{}\n\n", self.title);
        for line in &self.lines {
            text.push_str(line);
            text.push('\n');
        }
        text.push_str(&format!("\nSeen at {at} by Tributary.\n"));
        text
    }
}

/// Without control characters, and cut: what comes from elsewhere ends no header and no line.
fn one_line(text: &str, most: usize) -> String {
    let whole = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(most + 1);
    let mut line: String = whole.collect();
    if line.chars().count() > most {
        line = line.chars().take(most - 1).chain(['…']).collect();
    }
    line.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_breaks_a_line() {
        let at = DateTime::UNIX_EPOCH;
        let mut notice = Notice::new(Event::Test, "success", "a\r\nBcc: x@y\u{7}", at);
        assert_eq!(notice.title, "a  Bcc: x@y");
        notice.say(&format!("1\n2{}", "é".repeat(700)));
        assert_eq!(notice.lines[0].chars().count(), LINE);
        assert!(notice.lines[0].starts_with("1 2é") && notice.lines[0].ends_with('…'));
        for _ in 0..2 * LINES {
            notice.say("more");
        }
        assert_eq!(notice.lines.len(), LINES);
        let text = notice.text();
        assert!(text.starts_with("a  Bcc: x@y\n\n1 2é"), "{text}");
        assert!(text.ends_with("Seen at 1970-01-01T00:00:00Z by Tributary.\n"));
    }
}

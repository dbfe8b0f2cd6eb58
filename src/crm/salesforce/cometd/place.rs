//! Where the stream stands: replay ids by channel, and the position's text.

use std::collections::BTreeMap;

use crate::fault::{Fault, FaultKind};
use crate::model::position::Position;

const PREFIX: &str = "cometd:";
/// The standard channel, whose position is a bare replay id.
pub const STANDARD: &str = "/data/ChangeEvents";

/// From where a channel is delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replay {
    /// What comes after the subscription (-1).
    Now,
    /// Everything that is held (-2).
    Earliest,
    /// What follows a replay id, in its own digits.
    After(String),
}

/// Replay ids by channel. Ids are opaque: compared for equality only.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place(BTreeMap<String, String>);

impl Place {
    /// Reads a position's text: `cometd:4711` is one of the standard channel, `cometd:/data/A=1,/data/B=2` of others.
    ///
    /// # Errors
    /// `PositionLost` for the text of another transport, or one that names no replay id.
    pub fn parse(position: &Position) -> Result<Self, Fault> {
        let lost = |why: &str| {
            let shown: String = position.as_str().chars().take(80).collect();
            Fault::new(FaultKind::PositionLost, format!("position `{shown}` {why}"))
        };
        let Some(text) = position.as_str().strip_prefix(PREFIX) else {
            return Err(lost("is of another transport than CometD"));
        };
        let mut ids = BTreeMap::new();
        for part in text.split(',') {
            let (channel, id) = part.split_once('=').unwrap_or((STANDARD, part));
            if id.is_empty() || !id.bytes().all(|b| b.is_ascii_digit()) {
                return Err(lost("names no replay id"));
            }
            ids.insert(channel.to_owned(), id.to_owned());
        }
        Ok(Self(ids))
    }

    /// The position's text; `None` where no event told an id yet.
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        let mut ids = self.0.iter();
        let (channel, id) = ids.next()?;
        if self.0.len() == 1 && channel == STANDARD {
            return Some(Position::new(format!("{PREFIX}{id}")));
        }
        let mut text = format!("{PREFIX}{channel}={id}");
        for (channel, id) in ids {
            text.push_str(&format!(",{channel}={id}"));
        }
        Some(Position::new(text))
    }

    /// The position of an event whose stream has told none: it can't be gone on from.
    #[must_use]
    pub fn none() -> Position {
        Position::new(format!("{PREFIX}none"))
    }

    /// The id of a channel.
    #[must_use]
    pub fn get(&self, channel: &str) -> Option<&str> {
        self.0.get(channel).map(String::as_str)
    }

    fn set(&mut self, channel: &str, id: &str) {
        match self.0.get_mut(channel) {
            Some(own) => id.clone_into(own),
            None => {
                self.0.insert(channel.to_owned(), id.to_owned());
            }
        }
    }
}

/// Follows the stream: where it stands, and up to where that is safe to store.
///
/// Enriched events that were split may share a replay id, and a subscription goes on *after* an id: such an id is
/// safe only once something came after its last event.
#[derive(Debug, Clone, Default)]
pub struct Track {
    newest: Place,
    safe: Place,
}

impl Track {
    /// A stream that goes on after `place`.
    #[must_use]
    pub fn from(place: Place) -> Self {
        Self {
            safe: place.clone(),
            newest: place,
        }
    }

    /// An event was delivered.
    pub fn passed(&mut self, channel: &str, id: &str, may_share: bool) {
        if let Some(before) = self.newest.get(channel)
            && before != id
        {
            let before = before.to_owned();
            self.safe.set(channel, &before);
        }
        self.newest.set(channel, id);
        if !may_share {
            self.safe.set(channel, id);
        }
    }

    /// The server had nothing more to say.
    pub fn quiet(&mut self) {
        self.safe.clone_from(&self.newest);
    }

    /// The position of the event that was delivered last.
    #[must_use]
    pub fn newest(&self) -> Option<Position> {
        self.newest.position()
    }

    /// The position that may be stored.
    #[must_use]
    pub fn safe(&self) -> Option<Position> {
        self.safe.position()
    }

    /// Where a channel goes on when its session was lost.
    #[must_use]
    pub fn resume(&self, channel: &str) -> Option<&str> {
        self.safe.get(channel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_come_back() {
        for text in [
            "cometd:4711",
            "cometd:/data/A__chn=1",
            "cometd:/data/AChangeEvent=1,/data/BChangeEvent=22",
        ] {
            let place = Place::parse(&Position::new(text)).unwrap();
            assert_eq!(place.position().unwrap().as_str(), text);
        }
        assert_eq!(Place::default().position(), None);
    }

    #[test]
    fn other_positions_are_lost() {
        let none = Place::none();
        for text in [
            "pubsub:AAAA",
            "4711",
            "cometd:",
            "cometd:-1",
            "cometd:x",
            "cometd:/data/A=",
            none.as_str(),
        ] {
            let fault = Place::parse(&Position::new(text)).unwrap_err();
            assert_eq!(fault.kind(), FaultKind::PositionLost, "{text}");
            assert!(fault.to_string().contains(text));
        }
    }

    #[test]
    fn a_shared_id_is_safe_once_something_follows() {
        let mut track = Track::default();
        track.passed(STANDARD, "1", false);
        track.passed(STANDARD, "2", true);
        assert_eq!(track.safe().unwrap().as_str(), "cometd:1");
        assert_eq!(track.newest().unwrap().as_str(), "cometd:2");
        track.passed(STANDARD, "2", true);
        assert_eq!(track.safe().unwrap().as_str(), "cometd:1");
        let mut quiet = track.clone();
        quiet.quiet();
        assert_eq!(quiet.safe().unwrap().as_str(), "cometd:2");
        track.passed(STANDARD, "5", true);
        assert_eq!(track.safe().unwrap().as_str(), "cometd:2");
        track.passed(STANDARD, "9", false);
        assert_eq!(track.safe(), track.newest());
    }
}

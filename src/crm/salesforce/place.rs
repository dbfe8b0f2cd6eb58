//! Where a stream stands, whatever its transport: replay ids by channel, and the position's text.

use std::collections::BTreeMap;

use crate::crm::port::{Selection, Start};
use crate::fault::{Fault, FaultKind};

use crate::model::name::ObjectName;
use crate::model::position::Position;

use super::settings::{Channels, Transport};

/// The standard channel, whose position is a bare replay id.
pub const STANDARD: &str = "/data/ChangeEvents";

/// From where a channel is delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replay {
    /// What comes after the subscription.
    Now,
    /// Everything that is held.
    Earliest,
    /// What follows a replay id, as its transport spells it.
    After(String),
}

/// Replay ids by channel. Ids are opaque: compared for equality only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    transport: Transport,
    ids: BTreeMap<String, String>,
}

/// The channel of an object: `Account` is `/data/AccountChangeEvent`, `Plan__c` is `/data/Plan__ChangeEvent`.
#[must_use]
pub fn channel_of(object: &ObjectName) -> String {
    match object.as_str().strip_suffix("__c") {
        Some(custom) => format!("/data/{custom}__ChangeEvent"),
        None => format!("/data/{object}ChangeEvent"),
    }
}

/// Channels and from where each is delivered.
///
/// # Errors
/// `PositionLost` where the position is of another transport, or of other channels.
pub fn subscriptions(
    transport: Transport,
    channels: &Channels,
    selections: &[Selection],
    from: Start,
) -> Result<(Vec<(String, Replay)>, Place), Fault> {
    let mut names = match channels {
        Channels::Standard => vec![STANDARD.to_owned()],
        Channels::Named(name) => vec![name.clone()],
        Channels::PerObject => selections
            .iter()
            .map(|selection| channel_of(&selection.object))
            .collect(),
    };
    names.sort_unstable();
    names.dedup();
    let nowhere = Place::nowhere(transport);
    let position = match from {
        Start::Now => return Ok((all_from(names, &Replay::Now), nowhere)),
        Start::Earliest => return Ok((all_from(names, &Replay::Earliest), nowhere)),
        Start::After(position) => position,
    };
    let place = Place::parse(transport, &position)?;
    let channels: Vec<(String, Replay)> = names
        .into_iter()
        .map(|channel| {
            let replay = match place.get(&channel) {
                Some(id) => Replay::After(id.to_owned()),
                // Nothing of it was heard yet: what came since is among what is still held.
                None => Replay::Earliest,
            };
            (channel, replay)
        })
        .collect();
    if channels
        .iter()
        .all(|(_, replay)| *replay == Replay::Earliest)
    {
        return Err(Fault::new(
            FaultKind::PositionLost,
            format!("position `{position}` is of other channels than the connection's"),
        ));
    }
    Ok((channels, place))
}

fn all_from(names: Vec<String>, replay: &Replay) -> Vec<(String, Replay)> {
    names
        .into_iter()
        .map(|name| (name, replay.clone()))
        .collect()
}

impl Transport {
    /// What its positions begin with.
    const fn prefix(self) -> &'static str {
        match self {
            Self::Cometd => "cometd:",
            Self::PubSub => "pubsub:",
        }
    }

    /// Whether its replay ids look like this: a number over CometD, bytes in URL-safe Base64 over Pub/Sub.
    fn is_id(self, id: &str) -> bool {
        !id.is_empty()
            && id.bytes().all(|b| match self {
                Self::Cometd => b.is_ascii_digit(),
                Self::PubSub => b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'),
            })
    }
}

impl Place {
    /// A stream that has told no id yet.
    #[must_use]
    pub const fn nowhere(transport: Transport) -> Self {
        Self {
            transport,
            ids: BTreeMap::new(),
        }
    }

    /// Reads a position's text: `cometd:4711` is one of the standard channel, `cometd:/data/A=1,/data/B=2` of others.
    ///
    /// # Errors
    /// `PositionLost` for the text of another transport, or one that names no replay id.
    pub fn parse(transport: Transport, position: &Position) -> Result<Self, Fault> {
        let lost = |why: &str| {
            let shown: String = position.as_str().chars().take(80).collect();
            Fault::new(FaultKind::PositionLost, format!("position `{shown}` {why}"))
        };
        let Some(text) = position.as_str().strip_prefix(transport.prefix()) else {
            return Err(lost(&format!("is of another transport than {transport}")));
        };
        let mut ids = BTreeMap::new();
        for part in text.split(',') {
            let (channel, id) = part.split_once('=').unwrap_or((STANDARD, part));
            if !transport.is_id(id) {
                return Err(lost("names no replay id"));
            }
            ids.insert(channel.to_owned(), id.to_owned());
        }
        Ok(Self { transport, ids })
    }

    /// The position's text; `None` where no event told an id yet.
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        let prefix = self.transport.prefix();
        let mut ids = self.ids.iter();
        let (channel, id) = ids.next()?;
        if self.ids.len() == 1 && channel == STANDARD {
            return Some(Position::new(format!("{prefix}{id}")));
        }
        let mut text = format!("{prefix}{channel}={id}");
        for (channel, id) in ids {
            text.push_str(&format!(",{channel}={id}"));
        }
        Some(Position::new(text))
    }

    /// The position of an event whose stream has told none: it can't be gone on from.
    #[must_use]
    pub fn none(transport: Transport) -> Position {
        Position::new(format!("{}.none", transport.prefix()))
    }

    /// The id of a channel.
    #[must_use]
    pub fn get(&self, channel: &str) -> Option<&str> {
        self.ids.get(channel).map(String::as_str)
    }

    fn set(&mut self, channel: &str, id: &str) {
        match self.ids.get_mut(channel) {
            Some(own) => id.clone_into(own),
            None => {
                self.ids.insert(channel.to_owned(), id.to_owned());
            }
        }
    }
}

/// Follows the stream: where it stands, and up to where that is safe to store.
///
/// Enriched events that were split may share a replay id, and a subscription goes on *after* an id: such an id is
/// safe only once something came after its last event.
#[derive(Debug, Clone)]
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

    /// The server had nothing more to say on one channel, up to `id` if it said so.
    pub fn quiet_at(&mut self, channel: &str, id: Option<&str>) {
        let newest = id.or_else(|| self.newest.get(channel)).map(str::to_owned);
        if let Some(id) = newest {
            self.newest.set(channel, &id);
            self.safe.set(channel, &id);
        }
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

    fn objects() -> Vec<Selection> {
        vec!["Account".into(), "Plan__c".into(), "ns__Plan__c".into()]
    }

    fn after(text: &str) -> Start {
        Start::After(Position::new(text))
    }

    #[test]
    fn one_channel_for_all() {
        let (channels, _) = subscriptions(
            Transport::Cometd,
            &Channels::Standard,
            &objects(),
            after("cometd:7"),
        )
        .unwrap();
        assert_eq!(channels, [(STANDARD.to_owned(), Replay::After("7".into()))]);
        let (channels, _) = subscriptions(
            Transport::Cometd,
            &Channels::Standard,
            &objects(),
            Start::Now,
        )
        .unwrap();
        assert_eq!(channels, [(STANDARD.to_owned(), Replay::Now)]);
    }

    #[test]
    fn a_channel_for_each() {
        let from = after("cometd:/data/AccountChangeEvent=7,/data/Plan__ChangeEvent=9");
        let (channels, _) =
            subscriptions(Transport::Cometd, &Channels::PerObject, &objects(), from).unwrap();
        let expected = [
            (
                "/data/AccountChangeEvent".to_owned(),
                Replay::After("7".into()),
            ),
            (
                "/data/Plan__ChangeEvent".to_owned(),
                Replay::After("9".into()),
            ),
            ("/data/ns__Plan__ChangeEvent".to_owned(), Replay::Earliest),
        ];
        assert_eq!(channels, expected);
    }

    #[test]
    fn a_position_of_other_channels_is_lost() {
        for (channels, position) in [
            (Channels::PerObject, "cometd:7"),
            (Channels::Named("/data/Sales__chn".into()), "cometd:7"),
            (Channels::Standard, "cometd:/data/Sales__chn=7"),
            (Channels::Standard, "pubsub:AAAB"),
        ] {
            let fault = subscriptions(Transport::Cometd, &channels, &objects(), after(position))
                .unwrap_err();
            assert_eq!(fault.kind(), FaultKind::PositionLost, "{position}");
            assert!(fault.to_string().contains(position));
        }
    }

    #[test]
    fn positions_come_back() {
        for text in [
            "cometd:4711",
            "cometd:/data/A__chn=1",
            "cometd:/data/AChangeEvent=1,/data/BChangeEvent=22",
        ] {
            let place = Place::parse(Transport::Cometd, &Position::new(text)).unwrap();
            assert_eq!(place.position().unwrap().as_str(), text);
        }
        assert_eq!(Place::nowhere(Transport::Cometd).position(), None);
    }

    #[test]
    fn other_positions_are_lost() {
        let none = Place::none(Transport::Cometd);
        for text in [
            "pubsub:AAAA",
            "4711",
            "cometd:",
            "cometd:-1",
            "cometd:x",
            "cometd:/data/A=",
            none.as_str(),
        ] {
            let fault = Place::parse(Transport::Cometd, &Position::new(text)).unwrap_err();
            assert_eq!(fault.kind(), FaultKind::PositionLost, "{text}");
            assert!(fault.to_string().contains(text));
        }
    }

    #[test]
    fn a_shared_id_is_safe_once_something_follows() {
        let mut track = Track::from(Place::nowhere(Transport::Cometd));
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

//! Where a connection stands: the org, its incarnation, and each table's own place in its changes.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::fault::{Fault, FaultKind};
use crate::model::name::ObjectName;
use crate::model::position::Position;

use super::canary::Canaries;

const SCHEME: &str = "dataverse:";

/// A position, read.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Place {
    /// The org it is of: another org's answers are never merged into it.
    #[serde(rename = "o", default, skip_serializing_if = "Option::is_none")]
    pub org: Option<String>,
    /// How often the org was found restored.
    #[serde(rename = "i", default)]
    pub incarnation: u32,
    /// The tables whose changes are followed. One that is not here begins with its next full read.
    #[serde(rename = "t", default)]
    pub tables: BTreeMap<ObjectName, Link>,
}

/// One table's place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The selection it tells; another one needs a new link.
    #[serde(rename = "f")]
    pub fields: String,
    /// How its changes are asked for.
    #[serde(flatten)]
    pub way: Way,
    /// When the question that gave it was sent, on the CRM's clock.
    #[serde(rename = "s")]
    pub sent: DateTime<Utc>,
    /// Rows by which a restored org is noticed.
    #[serde(rename = "k", default, skip_serializing_if = "Canaries::is_empty")]
    pub canaries: Canaries,
}

/// How a table's changes are asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Way {
    /// By the delta link of its change tracking.
    #[serde(rename = "l")]
    Delta(String),
    /// By the time of its last change, as it has no change tracking: deletes are found by comparing.
    #[serde(rename = "m")]
    Modified(Modified),
}

/// A table without change tracking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Modified {
    /// Changes from here on are to be told.
    #[serde(rename = "f")]
    pub from: DateTime<Utc>,
    /// When it was last compared as a whole.
    #[serde(rename = "c")]
    pub compared: DateTime<Utc>,
}

impl Place {
    /// Reads a position.
    ///
    /// # Errors
    /// `PositionLost` for one that is not of this connector.
    pub fn parse(position: &Position) -> Result<Self, Fault> {
        let text = position.as_str().strip_prefix(SCHEME);
        text.and_then(|json| serde_json::from_str(json).ok())
            .ok_or_else(|| {
                let shown: String = position.as_str().chars().take(40).collect();
                let what = format!("position `{shown}` is none of change tracking");
                Fault::new(FaultKind::PositionLost, what)
            })
    }

    /// The position.
    #[must_use]
    pub fn position(&self) -> Position {
        // A map with text keys can always be written.
        let json = serde_json::to_string(self).unwrap_or_default();
        Position::new(format!("{SCHEME}{json}"))
    }

    /// The position of one event: it names its row, as a stream's place is one of the whole answer.
    #[must_use]
    pub fn of_event(table: &ObjectName, incarnation: u32, number: u64) -> Position {
        Position::new(format!("{SCHEME}{table}/{incarnation}/{number}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_767_607_872 + second, 0).unwrap()
    }

    #[test]
    fn comes_back_as_it_was() {
        let mut place = Place {
            org: Some("33333333-0000-4000-8000-000000000000".to_owned()),
            incarnation: 2,
            tables: BTreeMap::new(),
        };
        place.tables.insert(
            "account".into(),
            Link {
                fields: "00ff".to_owned(),
                way: Way::Delta("https://x/api?$deltatoken=1%2101".to_owned()),
                sent: at(0),
                canaries: Canaries::default(),
            },
        );
        let modified = Modified {
            from: at(1),
            compared: at(2),
        };
        place.tables.insert(
            "team".into(),
            Link {
                fields: "00ff".to_owned(),
                way: Way::Modified(modified),
                sent: at(3),
                canaries: Canaries::default(),
            },
        );
        let position = place.position();
        assert_eq!(Place::parse(&position).unwrap(), place);
        assert_eq!(
            position.as_str(),
            "dataverse:{\"o\":\"33333333-0000-4000-8000-000000000000\",\"i\":2,\"t\":{\
             \"account\":{\"f\":\"00ff\",\"l\":\"https://x/api?$deltatoken=1%2101\",\"s\":\"2026-01-05T10:11:12Z\"},\
             \"team\":{\"f\":\"00ff\",\"m\":{\"f\":\"2026-01-05T10:11:13Z\",\"c\":\"2026-01-05T10:11:14Z\"},\
             \"s\":\"2026-01-05T10:11:15Z\"}}}"
        );
    }

    #[test]
    fn another_connectors_position_is_lost() {
        for text in ["cometd:7", "dataverse:", "dataverse:account/0/7", ""] {
            let fault = Place::parse(&Position::new(text)).unwrap_err();
            assert_eq!(fault.kind(), FaultKind::PositionLost, "{text}");
        }
    }
}

//! The change: one event on the road, carrying its record's whole image; its wire format, version 1.

pub mod selected;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::model::event::Transaction;
use crate::model::name::{ConnectionId, FieldName, ObjectName};
use crate::model::position::Position;
use crate::model::record_id::RecordId;
use crate::model::value::Fields;
use crate::model::version::Version;

/// One event on the road. `fields` is the whole image after it; on a delete, the last image.
///
/// `op` (but for dead or alive) and `changed` inform only: after compaction they describe the last step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// The format's version, [`WIRE_VERSION`].
    pub v: u32,
    /// The connection it came by.
    pub connection: ConnectionId,
    /// The object.
    pub object: ObjectName,
    /// The record.
    pub id: RecordId,
    /// What happened last.
    pub op: Op,
    /// Its place in the record's order.
    pub version: Version,
    /// The best known time at the source; null if none is.
    #[serde(serialize_with = "stamp", deserialize_with = "parse_stamp")]
    pub committed_at: Option<DateTime<Utc>>,
    /// What told ingest.
    pub origin: Origin,
    /// The stream's position after the event; null off-stream.
    pub position: Option<Position>,
    /// The CRM's transaction; null off-stream.
    pub transaction: Option<Transaction>,
    /// The fields that the last step changed.
    pub changed: Vec<FieldName>,
    /// The image.
    pub fields: Fields,
    /// Which row the image holds, where the CRM numbers rows: for whoever rebuilds images from the topic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub row: Option<RowPlace>,
    /// Its newest version up to here that a full sync told, where a job writes columns by full syncs alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub synced: Option<Version>,
}

/// Which row an image holds, and until when it was surely seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowPlace {
    /// How often the org was found restored to an earlier state, which takes its numbers back.
    pub incarnation: u32,
    /// The CRM's own number of the row.
    pub number: u64,
    /// When the stream had last told the record alive; null if only reads did.
    #[serde(serialize_with = "stamp", deserialize_with = "parse_stamp")]
    pub told: Option<DateTime<Utc>>,
    /// As of when its newest read was; null if only the stream told it.
    #[serde(serialize_with = "stamp", deserialize_with = "parse_stamp")]
    pub as_of: Option<DateTime<Utc>>,
}

/// The wire format's version.
pub const WIRE_VERSION: u32 = 1;
/// `ce_type` of every change.
pub const CE_TYPE: &str = "tributary.change.v1";

/// What happened last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// Created at the source.
    Create,
    /// Changed at the source.
    Update,
    /// Deleted at the source; the record is dead.
    Delete,
    /// Back from the bin.
    Undelete,
    /// Read, not told.
    Snapshot,
}

/// What told ingest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The change stream.
    Stream,
    /// A full sync.
    Snapshot,
    /// A read by id that an event owed.
    Hydrate,
    /// A comparison of source and images.
    Reconcile,
}

/// A value of a topic that is no change of this version.
#[derive(Debug, thiserror::Error)]
pub enum InvalidChange {
    /// Not the JSON of a change.
    #[error("reading change")]
    Json(#[from] serde_json::Error),
    /// Written by another version of the format.
    #[error("change has format version {found}, this daemon reads {WIRE_VERSION}")]
    Version {
        /// The version found.
        found: u32,
    },
}

impl Change {
    /// The topic value.
    ///
    /// # Errors
    /// Only if serialising fails, which a [`Change`] does not.
    pub fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        let texts = self.fields.iter().map(|(name, value)| {
            let value = value.as_text().map_or(8, str::len);
            name.as_str().len() + value + 8
        });
        let names = self.changed.iter().map(|name| name.as_str().len() + 3);
        // About its length, so that it is seldom moved while it grows.
        let mut bytes = Vec::with_capacity(512 + texts.sum::<usize>() + names.sum::<usize>());
        serde_json::to_writer(&mut bytes, self)?;
        Ok(bytes)
    }

    /// Reads a topic value.
    ///
    /// # Errors
    /// [`InvalidChange`]; the bytes then belong into the dead letters.
    pub fn decode(bytes: &[u8]) -> Result<Self, InvalidChange> {
        let change: Self = serde_json::from_slice(bytes)?;
        if change.v != WIRE_VERSION {
            return Err(InvalidChange::Version { found: change.v });
        }
        Ok(change)
    }

    /// Whether the record lives after this change.
    #[must_use]
    pub const fn is_alive(&self) -> bool {
        !matches!(self.op, Op::Delete)
    }

    /// CloudEvents 1.0 attributes in binary mode (CloudEvents Kafka protocol binding), as topic headers.
    #[must_use]
    pub fn headers(&self) -> Vec<(String, Vec<u8>)> {
        let mut headers = vec![
            ("ce_specversion", "1.0".to_owned()),
            (
                "ce_id",
                format!("{}/{}/{}", self.object, self.id, self.version),
            ),
            ("ce_source", format!("/{}/{}", self.connection, self.object)),
            ("ce_type", CE_TYPE.to_owned()),
            ("ce_subject", self.id.to_string()),
            ("content-type", "application/json".to_owned()),
        ];
        if let Some(at) = self.committed_at {
            headers.push(("ce_time", render(at)));
        }
        headers
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.into_bytes()))
            .collect()
    }
}

impl Op {
    /// The operation's label on the wire and in metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Undelete => "undelete",
            Self::Snapshot => "snapshot",
        }
    }
}

impl Origin {
    /// The origin's label on the wire and in metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Stream => "stream",
            Self::Snapshot => "snapshot",
            Self::Hydrate => "hydrate",
            Self::Reconcile => "reconcile",
        }
    }
}

fn render(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

fn stamp<S: Serializer>(at: &Option<DateTime<Utc>>, serializer: S) -> Result<S::Ok, S::Error> {
    match at {
        Some(at) => serializer.serialize_str(&render(*at)),
        None => serializer.serialize_none(),
    }
}

fn parse_stamp<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<DateTime<Utc>>, D::Error> {
    Option::<DateTime<Utc>>::deserialize(deserializer)
}

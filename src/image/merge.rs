//! What a merge of an event or a row into an image decides; the tables themselves lie with their CRMs.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::model::change::{Change, Op, Origin, RowPlace};
use crate::model::event::{Event, Row, RowVersion};
use crate::model::field_map::FieldMap;
use crate::model::name::FieldName;
use crate::model::value::{Fields, Value};
use crate::model::version::Version;

/// The rules by which one CRM's events and rows become images. Pure: the same inputs give the same step.
pub trait MergeTable: Send + Sync {
    /// A stream event on one record. `carried` are the selected fields that events of the object tell.
    fn event(&self, image: Option<Image>, event: &Event, carried: &BTreeSet<FieldName>) -> Step;

    /// A row of a read that is true as of `as_of`.
    fn row(&self, image: Option<Image>, row: &Row, as_of: DateTime<Utc>, covered: Covered) -> Step;

    /// A read by id that did not find the record.
    fn absent(&self, image: Option<Image>, as_of: DateTime<Utc>, covered: Covered) -> Step;
}

/// CRM time since which the object's stream is unbroken; `None`: there is no stream to fall behind.
pub type Covered = Option<DateTime<Utc>>;

/// A record as ingest knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Selected fields; absent means not known.
    #[serde(rename = "f")]
    pub fields: Fields,
    /// Whether it may be published.
    #[serde(rename = "l")]
    pub life: Life,
    /// A of its newest row.
    #[serde(rename = "b", default, skip_serializing_if = "Option::is_none")]
    pub base: Option<DateTime<Utc>>,
    /// Field to C of the newest event at or after `base` that told it.
    #[serde(rename = "t", default, skip_serializing_if = "FieldMap::is_empty")]
    pub touched: FieldMap<DateTime<Utc>>,
    /// C of the newest delete, or A of the read that missed it; stays after an undelete as a lower bound.
    #[serde(rename = "d", default, skip_serializing_if = "Option::is_none")]
    pub dead: Option<DateTime<Utc>>,
    /// A read with A after this stamp is owed.
    #[serde(rename = "n", default, skip_serializing_if = "Option::is_none")]
    pub needs: Option<DateTime<Utc>>,
    /// What its newest row told of its place, where the CRM numbers rows; `None` on an image that was rebuilt from
    /// a topic that does not carry it.
    #[serde(rename = "r", default, skip_serializing_if = "Option::is_none")]
    pub row: Option<RowMark>,
    /// Version of its last published change; zero if none was.
    #[serde(rename = "v")]
    pub version: Version,
    /// Version of its last change that a full sync told, where a job writes columns by full syncs alone.
    #[serde(rename = "y", default, skip_serializing_if = "Option::is_none")]
    pub synced: Option<Version>,
}

/// Which row an image holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowMark {
    /// The row's place in its record's order.
    #[serde(flatten)]
    pub version: RowVersion,
    /// When the stream had last told the record alive; `None` if only reads did.
    #[serde(rename = "s", default, skip_serializing_if = "Option::is_none")]
    pub told: Option<DateTime<Utc>>,
}

/// A record's life, as far as ingest knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Life {
    /// Events told some fields of it; a read is owed before anything is published.
    Partial,
    /// Known whole.
    Live,
    /// Deleted.
    Dead,
}

/// What a merge decides.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// The image after it; `None`: as before.
    pub image: Option<Image>,
    /// What becomes of it.
    pub verdict: Verdict,
    /// A read of the record is owed, for a change of this stamp.
    pub owe: Option<DateTime<Utc>>,
    /// The fields that the step changed.
    pub changed: Vec<FieldName>,
}

/// What becomes of a merged event or row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It told nothing new.
    Drop,
    /// It told something, but nothing that is to be published.
    Keep,
    /// The image is to be published as this operation.
    Publish(Op),
    /// The read came too early to be believed; read again.
    ReadAgain,
    /// The row is older than one that the CRM told long before the read: the org was restored to an earlier state.
    Restored,
}

impl Step {
    /// Nothing changes.
    #[must_use]
    pub const fn dropped() -> Self {
        Self::of(Verdict::Drop)
    }

    /// The read is not believed.
    #[must_use]
    pub const fn read_again() -> Self {
        Self::of(Verdict::ReadAgain)
    }

    const fn of(verdict: Verdict) -> Self {
        Self {
            image: None,
            verdict,
            owe: None,
            changed: Vec::new(),
        }
    }
}

impl Image {
    /// A record that only events have told of so far.
    #[must_use]
    pub fn partial() -> Self {
        Self {
            fields: Fields::new(),
            life: Life::Partial,
            base: None,
            touched: FieldMap::new(),
            dead: None,
            needs: None,
            row: None,
            version: Version::new(0, 0),
            synced: None,
        }
    }

    /// When an event last told the record alive.
    #[must_use]
    pub fn newest_event(&self) -> Option<DateTime<Utc>> {
        self.newest_touch().max(self.row.and_then(|row| row.told))
    }

    /// The newest C among the fields' stamps.
    #[must_use]
    pub fn newest_touch(&self) -> Option<DateTime<Utc>> {
        self.touched.values().max().copied()
    }

    /// Which row it holds, for its change: whoever rebuilds it from there goes on as if it had never been lost.
    #[must_use]
    pub fn row_place(&self) -> Option<RowPlace> {
        self.row.map(|mark| RowPlace {
            incarnation: mark.version.incarnation,
            number: mark.version.number,
            told: mark.told,
            as_of: self.base,
        })
    }

    /// Whether anything else than a full sync has told of it since the last one.
    #[must_use]
    pub fn is_ahead_of_syncs(&self) -> bool {
        self.synced < Some(self.version)
    }

    /// Sets a field; whether its value differs from before.
    pub fn set(&mut self, field: &FieldName, value: &Value) -> bool {
        match self.fields.get_mut(field) {
            Some(held) if held == value => false,
            Some(held) => {
                *held = value.clone();
                true
            }
            None => {
                self.fields.insert(field.clone(), value.clone());
                true
            }
        }
    }
}

/// The image that a topic's change stands for, when images are rebuilt from the topic: the highest version
/// wins, whatever the order; an image of the same version has it, and may know more.
///
/// What the wire does not carry is set so that it can only cause a read too much: where rows are not numbered, `base`
/// is the row's own stamp (a row holds everything that was committed before it), and the fields of a stream change are
/// touched at its commit.
#[must_use]
pub fn rebuilt(image: Option<Image>, change: &Change) -> Option<Image> {
    if image
        .as_ref()
        .is_some_and(|held| held.version >= change.version)
    {
        return image;
    }
    let mut next = Image {
        fields: change.fields.clone(),
        version: change.version,
        synced: change.synced,
        row: change.row.map(|place| RowMark {
            version: RowVersion {
                incarnation: place.incarnation,
                number: place.number,
            },
            told: place.told,
        }),
        ..image.unwrap_or_else(Image::partial)
    };
    if change.is_alive() {
        next.life = Life::Live;
        if let Some(place) = change.row {
            next.base = next.base.max(place.as_of);
            next.touched.clear();
            return Some(next);
        }
        let Some(at) = change.committed_at else {
            return Some(next);
        };
        if change.origin == Origin::Stream {
            let all = matches!(change.op, Op::Create | Op::Undelete);
            let told: Vec<FieldName> = if all {
                change.fields.keys().cloned().collect()
            } else {
                change.changed.clone()
            };
            for field in told {
                next.touched.insert(field, at);
            }
        } else {
            next.base = next.base.max(Some(at));
            next.touched.retain(|_, stamp| *stamp >= at);
        }
    } else {
        next.life = Life::Dead;
        next.dead = next.dead.max(change.committed_at);
        next.touched.clear();
    }
    Some(next)
}

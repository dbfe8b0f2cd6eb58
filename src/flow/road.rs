//! The road of one connection: its collaborators, its objects, and the names of its topics.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::Notify;

use crate::crm::port::{Crm, Selection};
use crate::fault::{Fault, FaultKind};
use crate::image::port::ImageStore;
use crate::log::port::{Log, Policy, TopicSpec};
use crate::model::change::Change;
use crate::model::name::{ConnectionId, FieldName, JobId, ObjectKey, ObjectName};
use crate::model::policy::{OnLostField, Refresh};
use crate::model::schema::{FieldKind, FieldSchema, ObjectSchema};
use crate::model::value::Fields;
use crate::runtime::clock::Clock;
use crate::schedule::Timetable;
use crate::state::port::State;
use crate::telemetry::metrics::Metrics;

use super::board::Board;
use super::joins::{Follower, Join};

/// Partitions of every object's topic; never changed.
pub const PARTITIONS: u32 = 8;

/// What all engines of one connection share.
#[derive(Clone)]
pub struct Road {
    /// The connection.
    pub connection: ConnectionId,
    /// Its CRM.
    pub crm: Arc<dyn Crm>,
    /// The log.
    pub log: Arc<dyn Log>,
    /// The image store.
    pub images: Arc<dyn ImageStore>,
    /// The state.
    pub state: Arc<dyn State>,
    /// The date.
    pub clock: Arc<dyn Clock>,
    /// The metrics.
    pub metrics: Metrics,
    /// What the health page shows.
    pub board: Arc<Board>,
    /// Notified when records are said to have changed ([`State::hints`]).
    pub hinted: Arc<Notify>,
    /// The settings.
    pub settings: Arc<Settings>,
}

impl Road {
    /// An instant of CRM time that is not before now: the clock is behind by the lag and cut to whole seconds.
    ///
    /// # Errors
    /// As [`Crm::clock`].
    pub async fn end_of_now(&self) -> Result<DateTime<Utc>, Fault> {
        let lag = TimeDelta::from_std(self.settings.read_lag).unwrap_or_default();
        Ok(self.crm.clock().await? + lag + TimeDelta::seconds(1))
    }
}

/// Settings of a road.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The topics' prefix.
    pub prefix: String,
    /// Who we are, for the lease.
    pub owner: String,
    /// How long a lease lasts without renewal.
    pub lease: Duration,
    /// How much older than the CRM's clock a read is taken to be.
    pub read_lag: Duration,
    /// How far back a window read reaches before its window: a row's stamp is set at the statement, not at
    /// the commit.
    pub window_reach: TimeDelta,
    /// The first wait after a fault that passes.
    pub retry_first: Duration,
    /// The longest wait after a fault that passes.
    pub retry_cap: Duration,
    /// The wait before credentials or permissions are tried again.
    pub refused_wait: Duration,
    /// How long engines get to end.
    pub grace: Duration,
    /// How often an object that no event tells is asked for its changes.
    pub untold_poll: Duration,
    /// How often an object that events tell is probed for changes that none told.
    pub probe: Duration,
    /// When full syncs of an object are due after its first.
    pub full_syncs: BTreeMap<ObjectName, Vec<Timetable>>,
    /// How many children one step tells of their parents' changes; beyond, their object is read.
    pub children_a_step: usize,
    /// How many changes of a step are worth an append of their own while the rest of it is merged.
    pub changes_an_append: usize,
    /// Which jobs read which fields of an object.
    pub readings: BTreeMap<ObjectName, Vec<Reading>>,
}

/// What a job reads of its object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// The job.
    pub job: JobId,
    /// Its fields.
    pub fields: BTreeSet<FieldName>,
    /// Those without which it can say nothing about a record.
    pub needed: BTreeSet<FieldName>,
    /// What it does once the CRM no longer shows one of them.
    pub on_lost_field: OnLostField,
    /// When formulas among them are read.
    pub refresh: Refresh,
    /// It writes columns by full syncs alone.
    pub has_scheduled: bool,
}

impl Settings {
    /// Who reads what of an object.
    #[must_use]
    pub fn readings_of(&self, object: &ObjectName) -> &[Reading] {
        self.readings.get(object).map_or(&[], Vec::as_slice)
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            prefix: "tributary".to_owned(),
            owner: "tributary".to_owned(),
            lease: Duration::from_secs(30),
            read_lag: Duration::from_secs(5),
            window_reach: TimeDelta::minutes(15),
            retry_first: Duration::from_millis(250),
            retry_cap: Duration::from_secs(30),
            refused_wait: Duration::from_secs(60),
            grace: Duration::from_secs(10),
            untold_poll: Duration::from_mins(10),
            probe: Duration::from_mins(10),
            full_syncs: BTreeMap::new(),
            children_a_step: 10_000,
            changes_an_append: 250,
            readings: BTreeMap::new(),
        }
    }
}

/// One object of the road: what is selected, and what of it events tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectRoad {
    /// Connection and object.
    pub key: ObjectKey,
    /// The object's topic.
    pub topic: Arc<str>,
    /// What reads select, its fields in order.
    pub selection: Selection,
    /// The selected fields that events tell; formulas are only read, parents' fields joined or read.
    pub carried: BTreeSet<FieldName>,
    /// The selected formulas that nobody wants read at each change of their record.
    pub late: BTreeSet<FieldName>,
    /// The selected fields of parents whose reference is known.
    pub joins: Vec<Join>,
    /// Who has fields of this object's records.
    pub followers: Vec<Follower>,
    /// What tells the labels of the selected label fields from earlier ones, where the description has them.
    pub editions: BTreeMap<FieldName, String>,
}

/// The objects by name.
pub type Objects = BTreeMap<ObjectName, ObjectRoad>;

impl ObjectRoad {
    /// Checks a selection, which jobs read so, against the schema of the signed-in user.
    ///
    /// # Errors
    /// `Missing`, naming every selected field that there is not or that may not be read.
    pub fn new(
        connection: &ConnectionId,
        prefix: &str,
        fields: &BTreeSet<FieldName>,
        schema: &ObjectSchema,
        readings: &[Reading],
    ) -> Result<Self, Fault> {
        let missing = lacking(fields, schema);
        let is_carried = |name: &&FieldName| {
            let field = schema.fields.get(*name);
            field.is_some_and(|field| Self::is_carried(name, field))
        };
        let carried = fields.iter().filter(is_carried).cloned().collect();
        let edition = |name: &FieldName| {
            let edition = schema.fields.get(name)?.edition.clone()?;
            Some((name.clone(), edition))
        };
        let editions = fields.iter().filter_map(edition).collect();
        if !missing.is_empty() {
            let missing: Vec<&str> = missing.iter().map(FieldName::as_str).collect();
            return Err(Fault::new(
                FaultKind::Missing,
                format!(
                    "object {} of connection {connection} has no readable field {}",
                    schema.name,
                    missing.join(", ")
                ),
            )
            .remedy(
                "correct the field in the job, or give the connection's user read access to it \
                 (field-level security hides fields without a word)",
            ));
        }
        Ok(Self {
            key: ObjectKey {
                connection: connection.clone(),
                object: schema.name.clone(),
            },
            topic: topic_name(prefix, connection, &schema.name).into(),
            selection: Selection {
                object: schema.name.clone(),
                fields: fields.iter().cloned().collect(),
            },
            carried,
            late: late(fields, schema, readings),
            joins: Vec::new(),
            followers: Vec::new(),
            editions,
        })
    }

    /// Whether events of an object tell the field.
    #[must_use]
    pub fn is_carried(name: &FieldName, field: &FieldSchema) -> bool {
        let is_own = field.kind.is_selectable() && field.kind != FieldKind::Id;
        is_own && !field.calculated && !is_read_only(name)
    }

    /// Whether all of the fields are selected.
    #[must_use]
    pub fn selects_all(&self, fields: &Fields) -> bool {
        // Both have the order of the names.
        let mut selected = self.selection.fields.iter();
        fields.keys().all(|field| selected.any(|own| own == field))
    }

    /// Whether the field is selected.
    #[must_use]
    pub fn selects(&self, field: &FieldName) -> bool {
        self.selection.fields.binary_search(field).is_ok()
    }

    /// Whether a record's fields are all that are selected; events do not tell the id.
    #[must_use]
    pub fn is_whole(&self, fields: &Fields) -> bool {
        let mut selected = self.selection.fields.iter();
        selected.all(|field| field.as_str() == "Id" || fields.contains_key(field))
    }

    /// Whether selected fields are told by reads alone, and may move with any event.
    #[must_use]
    pub fn reads_more(&self) -> bool {
        self.selection.fields.iter().any(|field| {
            field.as_str() != "Id"
                && !self.carried.contains(field)
                && !self.late.contains(field)
                && !self.joins.iter().any(|join| join.field == *field)
        })
    }

    /// Whether a formula was never read, as of a new record: no event tells it.
    #[must_use]
    pub fn lacks_a_formula(&self, fields: &Fields) -> bool {
        self.late.iter().any(|field| !fields.contains_key(field))
    }

    /// Whether a parent's field is not known.
    #[must_use]
    pub fn lacks_a_join(&self, fields: &Fields) -> bool {
        let mut joins = self.joins.iter();
        joins.any(|join| !fields.contains_key(&join.field))
    }
}

/// The fields that the signed-in user's schema does not have, or that can't be selected. A parent's field is checked by
/// the read that selects it.
#[must_use]
pub fn lacking(fields: &BTreeSet<FieldName>, schema: &ObjectSchema) -> BTreeSet<FieldName> {
    let is_lacking = |field: &&FieldName| match schema.fields.get(*field) {
        Some(found) => !found.kind.is_selectable(),
        None => !field.as_str().contains('.'),
    };
    fields.iter().filter(is_lacking).cloned().collect()
}

/// The formulas among the fields that no job wants read at each change of their record.
#[must_use]
pub fn late(
    fields: &BTreeSet<FieldName>,
    schema: &ObjectSchema,
    readings: &[Reading],
) -> BTreeSet<FieldName> {
    let is_wanted = |name: &FieldName| {
        let mut asking = readings.iter();
        asking.any(|job| job.refresh == Refresh::OnChange && job.fields.contains(name))
    };
    let is_late = |name: &&FieldName| is_formula(name, schema) && !is_wanted(name);
    fields.iter().filter(is_late).cloned().collect()
}

/// Whether a field moves with more than its record's own events. Text that the CRM puts together from components (a
/// person's `Name`) does not: it is read whenever they may have moved.
fn is_formula(name: &FieldName, schema: &ObjectSchema) -> bool {
    let is_composed = || {
        let mut fields = schema.fields.values();
        fields.any(|part| part.compound.as_ref() == Some(name))
    };
    let field = schema.fields.get(name);
    field.is_some_and(|field| field.calculated) && !is_composed()
}

/// Fields that the CRM keeps and no event tells (Salesforce CDC Developer Guide, "Change Event Fields").
fn is_read_only(field: &FieldName) -> bool {
    matches!(field.as_str(), "SystemModstamp" | "IsDeleted")
}

/// `<prefix>.<connection>.<object>`.
#[must_use]
pub fn topic_name(prefix: &str, connection: &ConnectionId, object: &ObjectName) -> String {
    format!("{prefix}.{connection}.{object}")
}

/// The settings of an object's topic.
#[must_use]
pub fn topic_spec(name: &str) -> TopicSpec {
    const DAY: u64 = 24 * 60 * 60;
    TopicSpec {
        name: name.to_owned(),
        partitions: PARTITIONS,
        policy: Policy::Compact {
            min_lag: Duration::from_secs(7 * DAY),
            delete_retention: Duration::from_secs(30 * DAY),
        },
    }
}

/// The settings of an object's dead letters.
#[must_use]
pub fn dead_spec(topic: &str) -> TopicSpec {
    TopicSpec {
        name: format!("{topic}.dead"),
        partitions: PARTITIONS,
        policy: Policy::Delete {
            retention: Duration::from_secs(30 * 24 * 60 * 60),
        },
    }
}

/// A change as a log entry of its object's topic.
///
/// # Errors
/// `Record` if it can't be serialised.
pub fn entry_of(topic: &Arc<str>, change: &Change) -> Result<crate::log::port::Entry, Fault> {
    let value = change
        .encode()
        .map_err(|error| Fault::new(FaultKind::Record, "encoding change").source(error))?;
    Ok(crate::log::port::Entry {
        topic: Arc::clone(topic),
        key: bytes::Bytes::copy_from_slice(change.id.as_str().as_bytes()),
        value: Some(value.into()),
        headers: change.headers(),
    })
}

#[cfg(test)]
mod tests;

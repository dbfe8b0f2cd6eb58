//! From an event's datum to what it says of which records.

use std::sync::Arc;

use chrono::{DateTime, Utc};

use crate::fault::{Fault, FaultKind};
use crate::model::name::ObjectName;
use crate::model::position::Position;

use super::super::decode::{Decoded, Header, Objects, Payload};
use super::super::describe::Description;
use super::payload;
use super::schema::EventSchema;
use super::schemas::Schemas;

/// Decodes events of the objects that are listened to.
pub struct Decoder {
    pub(super) objects: Objects,
    pub(super) schemas: Arc<Schemas>,
    /// Whether events may carry fields that did not change.
    may_enrich: bool,
}

impl Decoder {
    /// Decodes events of `objects`.
    #[must_use]
    pub(super) const fn new(objects: Objects, schemas: Arc<Schemas>, may_enrich: bool) -> Self {
        Self {
            objects,
            schemas,
            may_enrich,
        }
    }

    /// Decodes events of objects and schemas that are known beforehand: describe answers, and schemas by id.
    ///
    /// # Errors
    /// `Protocol` for what the CRM would not answer.
    pub fn of(describes: &[&[u8]], schemas: &[(&str, &str)]) -> Result<Self, Fault> {
        let protocol = |what: &str| Fault::new(FaultKind::Protocol, what.to_owned());
        let decoder = Self::new(Objects::default(), Arc::default(), false);
        let mut objects = Objects::default();
        for json in describes {
            let description = Description::parse(json)
                .map_err(|error| protocol("a describe can't be read").source(error))?;
            let name: ObjectName = description.schema.name.clone();
            objects.insert(name, Arc::new(description));
        }
        for (id, json) in schemas {
            let schema = EventSchema::parse(json)
                .map_err(|error| protocol("a schema can't be read").source(error))?;
            decoder.schemas.keep(id, Some(schema));
        }
        Ok(Self { objects, ..decoder })
    }

    /// What an event says, given its schema's id and its datum; one that has none may be any object's. `arrived` is an
    /// upper bound of its commit.
    #[must_use]
    pub fn decode(
        &self,
        event: Option<(&str, &[u8])>,
        position: &Position,
        arrived: DateTime<Utc>,
    ) -> Decoded {
        let known = event.and_then(|(id, datum)| Some((self.schemas.get(id)?, datum)));
        let payload = known.as_ref().and_then(|(schema, datum)| {
            payload::read(schema, datum, &self.objects)
                .inspect_err(
                    |error| tracing::warn!(%position, %error, "event's header can't be decoded"),
                )
                .ok()
                .or_else(|| named(schema, &self.objects))
        });
        // An empty field that was only added to an event looks like one that is not there: on a channel that may be
        // enriched, events that share an id can't be told from others.
        let may_enrich = self.may_enrich
            && payload.as_ref().is_none_or(|payload| {
                matches!(
                    payload.header.change.as_deref(),
                    None | Some("UPDATE" | "DELETE")
                )
            });
        let mut decoded = self.objects.decode(payload, position, arrived);
        decoded.may_share |= may_enrich;
        decoded
    }
}

/// An event of which only its schema's name tells the object.
fn named<'a>(schema: &EventSchema, objects: &Objects) -> Option<Payload<'a>> {
    let entity = object_of(&schema.name);
    objects.has(&entity).then(|| Payload {
        header: Header {
            entity: Some(entity.into()),
            ..Header::default()
        },
        ..Payload::default()
    })
}

/// The object of an event's name: `AccountChangeEvent` is of `Account`, `Plan__ChangeEvent` of `Plan__c`.
#[must_use]
pub fn object_of(name: &str) -> String {
    let entity = name.strip_suffix("ChangeEvent").unwrap_or(name);
    match entity.strip_suffix("__") {
        Some(custom) => format!("{custom}__c"),
        None => entity.to_owned(),
    }
}

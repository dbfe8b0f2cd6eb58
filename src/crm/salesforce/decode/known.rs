//! The objects that are listened to: what describes them, and what of selected fields follows from what events tell.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::fault::Fault;
use crate::model::name::{FieldName, ObjectName};
use crate::model::value::Fields;

use super::super::describe::{Describer, Description};
use super::super::take::{self, Take, Taken, split};

/// How often it is looked whether labels are old; after a fault, too.
const LOOK: Duration = Duration::from_mins(1);

/// The objects that are listened to.
#[derive(Debug, Clone, Default)]
pub struct Objects {
    known: HashMap<String, Known>,
    /// When it was last looked whether labels are old.
    looked: Option<Instant>,
}

/// An object that is listened to.
#[derive(Debug, Clone)]
pub struct Known {
    /// The object.
    pub name: ObjectName,
    /// What describes it.
    pub description: Arc<Description>,
    /// Selected fields that follow from another one, by that one.
    following: Vec<(FieldName, Taken)>,
}

impl Objects {
    /// Adds an object under the name that events give it, or describes it anew.
    pub fn insert(&mut self, name: ObjectName, description: Arc<Description>) {
        let known = Known {
            description,
            following: Vec::new(),
            name,
        };
        self.known
            .insert(known.name.as_str().to_ascii_lowercase(), known);
    }

    /// Has events of an object tell those of its selected `fields` that follow from what they tell (`Industry@label`).
    ///
    /// # Errors
    /// That of the call that asks for key prefixes.
    pub async fn follow(
        &mut self,
        describer: &Describer,
        object: &ObjectName,
        fields: &[FieldName],
    ) -> Result<(), Fault> {
        let Some(known) = self.known.get_mut(&object.as_str().to_ascii_lowercase()) else {
            return Ok(());
        };
        let mut following = Vec::new();
        for field in fields {
            let is_own = !field.as_str().contains('.');
            if !is_own || split(field.as_str()).1.is_empty() {
                continue;
            }
            let found = take::find(describer, &known.description, field.as_str()).await?;
            following.extend(found.map(|found| {
                let taken = Taken {
                    field: field.clone(),
                    take: found.take,
                };
                (found.base, taken)
            }));
        }
        known.following = following;
        Ok(())
    }

    /// Reads descriptions anew of which events said that they are `stale`, and of labels that may have moved. Where that
    /// fails the old one stays.
    pub async fn describe_again(&mut self, describer: &Describer, stale: Vec<ObjectName>) {
        for object in stale {
            let described = describer.fetch(&object).await;
            self.renew(describer, &object, described).await;
        }
        if self.looked.is_some_and(|looked| looked.elapsed() < LOOK) {
            return;
        }
        self.looked = Some(Instant::now());
        let labelled = self.known.values().filter(|known| known.has_labels());
        let labelled: Vec<ObjectName> = labelled.map(|known| known.name.clone()).collect();
        for object in labelled {
            let described = describer.young(&object).await;
            self.renew(describer, &object, described).await;
        }
    }

    async fn renew(
        &mut self,
        describer: &Describer,
        object: &ObjectName,
        described: Result<Arc<Description>, Fault>,
    ) {
        let renewed = match described {
            Ok(description) => self.take_over(describer, object, description).await,
            Err(fault) => Err(fault),
        };
        if let Err(fault) = renewed {
            tracing::warn!(
                %object, error = %fault,
                "object can't be described again: its events are read by the old description"
            );
        }
    }

    async fn take_over(
        &mut self,
        describer: &Describer,
        object: &ObjectName,
        description: Arc<Description>,
    ) -> Result<(), Fault> {
        let Some(known) = self.get(object.as_str()) else {
            return Ok(());
        };
        if Arc::ptr_eq(&known.description, &description) {
            return Ok(());
        }
        let following = known.following.iter();
        let fields: Vec<FieldName> = following.map(|(_, taken)| taken.field.clone()).collect();
        let mut renewed = Self::default();
        renewed.insert(object.clone(), description);
        renewed.follow(describer, object, &fields).await?;
        self.known.extend(renewed.known);
        Ok(())
    }

    pub(super) fn get(&self, entity: &str) -> Option<&Known> {
        self.known.get(&entity.to_ascii_lowercase())
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Known> {
        self.known.values()
    }

    /// Whether events of `entity` are listened to.
    #[must_use]
    pub fn has(&self, entity: &str) -> bool {
        self.get(entity).is_some()
    }

    /// The object that events call `entity`.
    #[must_use]
    pub fn name(&self, entity: &str) -> Option<&ObjectName> {
        self.get(entity).map(|known| &known.name)
    }
}

impl Known {
    fn has_labels(&self) -> bool {
        let mut following = self.following.iter();
        following.any(|(_, taken)| matches!(taken.take, Take::Label(..)))
    }

    /// Adds what follows from the fields that an event tells.
    pub(super) fn derive(&self, fields: &mut Fields) {
        for (base, taken) in &self.following {
            if let Some(value) = fields.get(base) {
                let value = taken.take.of(value);
                fields.insert(taken.field.clone(), value);
            }
        }
    }
}

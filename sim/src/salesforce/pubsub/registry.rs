//! Every schema that the org's events were ever written by, by id.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::super::lock::lock;
use super::super::schema::Object;
use super::schema::EventSchema;

/// The org's event schemas.
#[derive(Debug, Default)]
pub(crate) struct Schemas {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// By entity: the description it was built from, and the schema.
    newest: HashMap<String, (Arc<Object>, Arc<EventSchema>)>,
    by_id: HashMap<String, Arc<EventSchema>>,
}

impl Schemas {
    /// The schema of an object as it is described now; an error tells of a name that Avro does not allow.
    pub fn of(&self, object: &Arc<Object>) -> Result<Arc<EventSchema>, Box<apache_avro::Error>> {
        let mut state = lock(&self.state);
        if let Some((described, schema)) = state.newest.get(&object.name)
            && Arc::ptr_eq(described, object)
        {
            return Ok(Arc::clone(schema));
        }
        let built = EventSchema::of(object)?;
        let schema = Arc::clone(
            state
                .by_id
                .entry(built.id.clone())
                .or_insert_with(|| Arc::new(built)),
        );
        let newest = (Arc::clone(object), Arc::clone(&schema));
        state.newest.insert(object.name.clone(), newest);
        Ok(schema)
    }

    /// The id of an object's schema; blank if it can have none.
    pub fn id_of(&self, object: &Arc<Object>) -> String {
        match self.of(object) {
            Ok(schema) => schema.id.clone(),
            Err(error) => {
                tracing::error!(object = object.name, %error, "building an event schema failed");
                String::new()
            }
        }
    }

    /// A schema that some event or answer has named.
    pub fn find(&self, id: &str) -> Option<Arc<EventSchema>> {
        lock(&self.state).by_id.get(id).cloned()
    }
}

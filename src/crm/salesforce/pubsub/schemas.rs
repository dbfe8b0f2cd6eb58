//! Schemas by id: asked for once, as an id never changes its schema.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::schema::EventSchema;

/// What is known of the schemas that events came with.
#[derive(Default)]
pub struct Schemas(Mutex<Known>);

#[derive(Default)]
struct Known {
    by_id: HashMap<String, Option<Arc<EventSchema>>>,
    /// The id that an event's name had last.
    by_name: HashMap<String, String>,
}

impl Schemas {
    /// Whether nobody has to ask for `id`.
    #[must_use]
    pub fn has(&self, id: &str) -> bool {
        self.lock().by_id.contains_key(id)
    }

    /// The schema of `id`; `None` if it is none of a change event.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<Arc<EventSchema>> {
        self.lock().by_id.get(id).cloned().flatten()
    }

    /// Keeps what an id's schema came to. Whether events of its name had another schema before: the object was
    /// changed then.
    pub fn keep(&self, id: &str, schema: Option<EventSchema>) -> bool {
        let mut known = self.lock();
        let mut is_another = false;
        if let Some(schema) = &schema {
            let before = known.by_name.insert(schema.name.clone(), id.to_owned());
            is_another = before.is_some_and(|before| before != id);
        }
        known.by_id.insert(id.to_owned(), schema.map(Arc::new));
        is_another
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

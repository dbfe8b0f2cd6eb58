//! The newest events of this life, so that one that the stream delivers again at once is merged once.
//!
//! What was merged in this life is merged: unlike after a restart, a set may be passed over. Older repetitions
//! than it remembers are dropped by the merge tables, which know the commit stamps.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use crate::model::event::Event;
use crate::model::record_id::RecordId;

const REMEMBERED: usize = 8192;

/// A bounded memory of merged events.
#[derive(Debug, Default)]
pub struct Recent {
    known: HashSet<Identity>,
    order: VecDeque<Identity>,
    key: Option<Arc<str>>,
}

/// Transaction key, sequence, record.
type Identity = (Arc<str>, i64, RecordId);

impl Recent {
    /// Whether an event's record is met for the first time, as far as is remembered.
    pub fn is_first(&mut self, event: &Event, record: &RecordId) -> bool {
        let identity = (
            self.key_of(event),
            event.transaction.sequence,
            record.clone(),
        );
        if !self.known.insert(identity.clone()) {
            return false;
        }
        self.order.push_back(identity);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }

    /// A transaction's events share their key's text.
    fn key_of(&mut self, event: &Event) -> Arc<str> {
        match &self.key {
            Some(key) if **key == *event.transaction.key => Arc::clone(key),
            _ => {
                let key: Arc<str> = event.transaction.key.as_str().into();
                self.key = Some(Arc::clone(&key));
                key
            }
        }
    }
}

//! What happened, in order, kept only for a run that is to be told.

use std::sync::{Arc, Mutex};

use crate::runtime::clock::{Clock, VirtualClock};

#[derive(Clone)]
pub struct Trace {
    clock: VirtualClock,
    lines: Option<Arc<Mutex<Vec<String>>>>,
}

impl Trace {
    pub fn new(clock: VirtualClock, kept: bool) -> Self {
        Self {
            clock,
            lines: kept.then(Arc::default),
        }
    }

    pub fn say(&self, line: impl FnOnce() -> String) {
        if let Some(lines) = &self.lines {
            let at = self.clock.now().timestamp_millis();
            lines
                .lock()
                .unwrap()
                .push(format!("{:>8} {}", at - super::world::ZERO, line()));
        }
    }

    pub fn told(&self) -> String {
        let lines = self
            .lines
            .as_ref()
            .map(|lines| lines.lock().unwrap().join("\n"));
        lines.unwrap_or_default()
    }
}

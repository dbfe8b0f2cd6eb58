//! What the organization counts: calls by surface and resource.

use std::collections::BTreeMap;
use std::sync::Mutex;

use crate::salesforce::lock::lock;

/// Calls since the start, by surface and resource.
#[derive(Debug, Default)]
pub struct Counters {
    calls: Mutex<BTreeMap<String, BTreeMap<String, u64>>>,
}

impl Counters {
    /// Counts a call.
    pub(crate) fn count(&self, surface: &str, resource: &str) {
        let mut calls = lock(&self.calls);
        let surface = calls.entry(surface.to_owned()).or_default();
        *surface.entry(resource.to_owned()).or_default() += 1;
    }

    /// Every counter: `{"web_api":{"GET accounts":3}}`.
    #[must_use]
    pub fn all(&self) -> BTreeMap<String, BTreeMap<String, u64>> {
        lock(&self.calls).clone()
    }

    pub(crate) fn clear(&self) {
        lock(&self.calls).clear();
    }
}

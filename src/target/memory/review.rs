//! What waits for a person in the memory target, and what was decided.

use std::sync::Arc;

use super::ledger::{Association, ChangeKey, Ledger, WaitingChange};
use super::transaction::Store;
use crate::fault::Fault;
use crate::model::name::{ConnectionId, JobId};
use crate::target::port::review::{
    Binding, Bond, Candidate, Decided, InReview, Review, Which, no_row,
};

/// What waits, oldest first.
pub(super) fn list(store: &Store, which: &Which) -> Result<Vec<Review>, Fault> {
    let changes = store.ledger.changes.iter();
    let mut waiting: Vec<_> = changes
        .filter(|(key, waiting)| waiting.ambiguity.is_some() && is_of(which, key, waiting))
        .collect();
    waiting.sort_by_key(|(_, waiting)| waiting.since);
    waiting
        .into_iter()
        .take(which.most())
        .map(|(key, waiting)| review(store, key, waiting))
        .collect()
}

fn is_of(which: &Which, key: &ChangeKey, waiting: &WaitingChange) -> bool {
    let object = &waiting.association.object;
    which
        .connection
        .as_ref()
        .is_none_or(|of| *of == key.connection)
        && which.job.as_ref().is_none_or(|of| *of == key.job)
        && which.object.as_ref().is_none_or(|of| of == object)
        && which.record.as_ref().is_none_or(|of| *of == key.record)
}

fn review(store: &Store, key: &ChangeKey, waiting: &WaitingChange) -> Result<Review, Fault> {
    let own = &waiting.association;
    let table = store.table(&own.table)?;
    let ambiguity = waiting.ambiguity.clone();
    let (identifiers, candidates) = ambiguity
        .map(|ambiguity| (ambiguity.identifiers, ambiguity.candidates))
        .unwrap_or_default();
    Ok(Review {
        connection: key.connection.clone(),
        job: key.job.clone(),
        object: own.object.clone(),
        record: key.record.clone(),
        table: own.table.to_string(),
        version: waiting.version,
        since: waiting.since,
        identifiers,
        candidates: candidates
            .into_iter()
            .map(|gsid| Candidate {
                gsid,
                row: table.get(gsid).map(|row| table.stored(gsid, row)),
            })
            .collect(),
    })
}

/// What was decided and holds.
pub(super) fn bindings(ledger: &Ledger) -> Vec<Binding> {
    let bindings = ledger.bindings.values();
    let holding = bindings.filter(|binding| binding.bond != Bond::Open);
    let mut bindings: Vec<Binding> = holding.cloned().collect();
    bindings.sort_by_cached_key(|binding| {
        let record = (binding.object.clone(), binding.record.clone());
        (binding.connection.clone(), record, binding.table.clone())
    });
    bindings
}

/// How much of a job waits, and how much of that is decided.
pub(super) fn count(ledger: &Ledger, connection: &ConnectionId, job: &JobId) -> InReview {
    let mut counted = InReview::default();
    for (key, waiting) in &ledger.changes {
        if (&key.connection, &key.job) == (connection, job) && waiting.ambiguity.is_some() {
            counted.waiting += 1;
            counted.decided += u64::from(is_decided(ledger, waiting));
        }
    }
    counted
}

/// Whether a decision has come that a change waits for.
pub(super) fn is_decided(ledger: &Ledger, waiting: &WaitingChange) -> bool {
    let binding = ledger.bindings.get(&waiting.association);
    binding.is_some_and(|binding| binding.bond != Bond::Open)
}

/// Notes a decision.
pub(super) fn decide(store: &mut Store, binding: &Binding) -> Result<Decided, Fault> {
    let table = store.table(&binding.table)?;
    if let Bond::Row(gsid) = binding.bond
        && table.get(gsid).is_none()
    {
        return Err(no_row(&binding.table, gsid));
    }
    let key = Association {
        connection: binding.connection.clone(),
        table: Arc::from(binding.table.as_str()),
        record: binding.record.clone(),
        object: binding.object.clone(),
    };
    let mut changes = store.ledger.changes.values();
    let waits = changes.any(|waiting| waiting.ambiguity.is_some() && waiting.association == key);
    let before = store.ledger.bindings.insert(key, binding.clone());
    Ok(Decided {
        before: before.map(|before| before.bond),
        waits,
    })
}

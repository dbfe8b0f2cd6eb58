//! Change events: what a transaction tells, one event for each record it wrote.

use chrono::{DateTime, Utc};

use super::commits::{ChangeEvent, ChangeType};
use super::lock::lock;
use super::org::Org;
use super::shape;
use super::store::Record;
use super::transaction::{Prepared, Staged};
use super::value::Value;

impl Org {
    /// The events of a transaction that commits at `at`; what several writes did to a record is one event, that of its
    /// first state to its last.
    pub(crate) fn events(&self, prepared: &Prepared, at: DateTime<Utc>) -> Vec<ChangeEvent> {
        let (key, number) = {
            let mut draws = lock(&self.draws);
            draws.commit_number += draws.random.between(1, 5_000);
            (draws.random.uuid(), draws.commit_number)
        };
        let told = prepared.staged.iter().filter(|staged| staged.told);
        let changes = told.filter_map(|staged| Some((staged, change_type(staged)?)));
        (1_u32..)
            .zip(changes)
            // The sequence has holes where objects are not captured.
            .filter(|(_, (staged, _))| self.captures(&staged.object.name))
            .map(|(sequence, (staged, change_type))| {
                let (changed, body) = match (change_type, &staged.before, &staged.after) {
                    (ChangeType::Update, Some(before), Some(after)) => {
                        shape::changed_body(&staged.object, before, after)
                    }
                    (ChangeType::Create | ChangeType::Undelete, _, Some(after)) => {
                        (Vec::new(), shape::whole_body(&staged.object, after))
                    }
                    _ => Default::default(),
                };
                let mut event = ChangeEvent {
                    entity: staged.object.name.clone(),
                    record_ids: vec![staged.id.to_string()],
                    change_type,
                    change_origin: prepared.origin.clone(),
                    transaction_key: key.clone(),
                    sequence,
                    commit_timestamp: at,
                    commit_number: number,
                    commit_user: prepared.user.clone(),
                    changed,
                    body,
                    schema: self.schemas.id_of(&staged.object),
                };
                if let Some(before) = &staged.before {
                    let old = |field: &str| before.get(staged.object.place(field)?).as_text();
                    self.log.rewrites.differ(&mut event, old);
                }
                event
            })
            .collect()
    }
}

/// What happened to a record on the whole; `None` if nobody is told: hard deletes, and what came and went unseen.
fn change_type(staged: &Staged) -> Option<ChangeType> {
    let deleted =
        |record: &Record| *record.get(staged.object.system.is_deleted) == Value::Bool(true);
    let after = staged.after.as_deref()?;
    match (staged.before.as_deref().map(deleted), deleted(after)) {
        (None, false) => Some(ChangeType::Create),
        (Some(false), false) => Some(ChangeType::Update),
        (Some(false), true) => Some(ChangeType::Delete),
        (Some(true), false) => Some(ChangeType::Undelete),
        (None | Some(true), true) => None,
    }
}

//! A transaction: several writes that become visible together, and one change event for each record.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use super::commits::Committed;
use super::ids;
use super::rules;
use super::schema::Object;
use super::store::{Record, Store, Table};
use super::value::Value;

/// What a caller asks for.
#[derive(Debug, Clone)]
pub struct Transaction {
    /// The id of the user that writes.
    pub user: String,
    /// The events' `changeOrigin`.
    pub origin: String,
    /// Whether one failure undoes everything.
    pub all_or_none: bool,
    pub operations: Vec<Operation>,
}

/// One write.
#[derive(Debug, Clone)]
pub struct Operation {
    pub verb: Verb,
    pub object: String,
    /// 15 or 18 characters; a create has none.
    pub id: Option<String>,
    pub fields: Map<String, Json>,
    /// Refuse if the record has changed since.
    pub unmodified_since: Option<DateTime<Utc>>,
    /// The field and value that an upsert finds its record by.
    pub external_id: Option<(String, Json)>,
    /// An upsert that finds no record fails.
    pub update_only: bool,
}

/// What a write does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    Create,
    Update,
    /// A create or an update, by whether a record has the external id.
    Upsert,
    /// Into the bin.
    Delete,
    /// Out of the bin.
    Undelete,
    /// Gone for good, without an event.
    HardDelete,
    /// Sets formula fields, without a stamp and without an event.
    Recalculate,
}

/// Why a row was not written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{code}: {message}")]
pub struct RowError {
    #[serde(rename = "statusCode")]
    pub code: &'static str,
    pub message: String,
    pub fields: Vec<String>,
}

impl RowError {
    pub(crate) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            fields: Vec::new(),
        }
    }

    pub(crate) fn on(code: &'static str, message: impl Into<String>, field: &str) -> Self {
        Self {
            fields: vec![field.to_owned()],
            ..Self::new(code, message)
        }
    }
}

/// What became of a transaction.
#[derive(Debug)]
pub struct Outcome {
    /// Per operation: the record's id.
    pub results: Vec<Result<String, RowError>>,
    /// Per operation: whether its record is new.
    pub created: Vec<bool>,
    /// The events of captured objects, in the order of the records' first writes.
    pub events: Vec<Arc<Committed>>,
}

/// A transaction whose statements have run and that is not committed: its records are locked, and unseen by others.
#[derive(Debug)]
#[must_use = "its records stay locked until it is committed"]
pub struct Prepared {
    pub(crate) results: Vec<Result<String, RowError>>,
    pub(crate) staged: Vec<Staged>,
    pub(crate) user: String,
    pub(crate) origin: String,
    /// When the statements ran.
    pub(crate) at: DateTime<Utc>,
    places: HashMap<Arc<str>, usize>,
    /// External ids that were used.
    pub(crate) keys: HashSet<String>,
}

/// A record before and after.
#[derive(Debug)]
pub(crate) struct Staged {
    pub object: Arc<Object>,
    pub id: Arc<str>,
    pub before: Option<Arc<Record>>,
    pub after: Option<Arc<Record>>,
    /// Whether anything but a recalculation touched it.
    pub told: bool,
}

impl Prepared {
    /// Runs the statements at `now` and locks what they wrote.
    pub(crate) fn run(store: &mut Store, transaction: Transaction, now: DateTime<Utc>) -> Self {
        let mut prepared = Self {
            results: Vec::with_capacity(transaction.operations.len()),
            staged: Vec::new(),
            user: transaction.user,
            origin: transaction.origin,
            at: now,
            places: HashMap::new(),
            keys: HashSet::new(),
        };
        for operation in &transaction.operations {
            let result = prepared.statement(store, operation, now);
            prepared.results.push(result);
        }
        if transaction.all_or_none && prepared.results.iter().any(Result::is_err) {
            prepared.roll_back();
        }
        store
            .locked
            .extend(prepared.staged.iter().map(|staged| Arc::clone(&staged.id)));
        prepared
    }

    /// Whether the transaction has written this record.
    pub(crate) fn is_staged(&self, id: &str) -> bool {
        self.places.contains_key(id)
    }

    /// Per operation: whether its record is new.
    pub(crate) fn created(&self) -> Vec<bool> {
        let is_new = |id: &String| {
            let place = self.places.get(id.as_str());
            let staged = place.and_then(|place| self.staged.get(*place));
            staged.is_some_and(|staged| staged.before.is_none())
        };
        let results = self.results.iter();
        results
            .map(|result| result.as_ref().is_ok_and(is_new))
            .collect()
    }

    fn roll_back(&mut self) {
        self.staged.clear();
        for result in self.results.iter_mut().filter(|result| result.is_ok()) {
            *result = Err(RowError::new(
                "ALL_OR_NONE_OPERATION_ROLLED_BACK",
                "Record rolled back because not all records were valid and the request was using AllOrNone header",
            ));
        }
    }

    pub(crate) fn statement(
        &mut self,
        store: &mut Store,
        operation: &Operation,
        now: DateTime<Utc>,
    ) -> Result<String, RowError> {
        let Some(table) = store.table(&operation.object) else {
            if operation.object.is_empty() {
                operation_id(operation)?;
                return Err(no_such_record());
            }
            return Err(RowError::new(
                "INVALID_TYPE",
                format!("sObject type '{}' is not supported.", operation.object),
            ));
        };
        let object = Arc::clone(&table.object);
        if operation.verb == Verb::Create {
            let after = self.create(store, &object, &operation.fields, now)?;
            let id = store
                .table_mut(&object.name)
                .map(Table::draw_id)
                .unwrap_or_default();
            return Ok(self.stage_new(object, &id, after));
        }
        if operation.verb == Verb::Upsert {
            return self.upsert(store, &object, operation, now);
        }
        let id = existing_id(operation)?;
        let mine = self.places.get(&*id).copied();
        if mine.is_none() && store.locked.contains(&id) {
            return Err(RowError::new(
                "UNABLE_TO_LOCK_ROW",
                "unable to obtain exclusive access to this record",
            ));
        }
        let current = match mine {
            Some(place) => self.staged[place].after.clone(),
            None => table.head(&id).cloned(),
        };
        let Some(current) = current else {
            return Err(no_such_record());
        };
        let after = self.change(store, table, &current, operation, now)?;
        let then = table.stamp(&current);
        self.stage(object, Arc::clone(&id), current, after, operation.verb);
        if matches!(operation.verb, Verb::Delete | Verb::Undelete) {
            self.cascade(store, &id, then, operation.verb, now)?;
        }
        operation_id(operation)
    }

    fn create(
        &self,
        store: &Store,
        object: &Object,
        fields: &Map<String, Json>,
        now: DateTime<Utc>,
    ) -> Result<Record, RowError> {
        let mut record = Record::new(rules::blank(object, &self.user));
        for (place, value) in rules::checked(object, fields, Verb::Create)? {
            self.check_reference(store, object, place, &value)?;
            rules::check_unique(store, object, place, &value, None)?;
            record.set(place, value);
        }
        rules::check_required(object, &record)?;
        let system = object.system;
        record.set(system.created_date, Value::DateTime(now));
        record.set(system.created_by, Value::id(&self.user));
        self.touch(object, &mut record, now);
        Ok(record)
    }

    pub(crate) fn change(
        &self,
        store: &Store,
        table: &Table,
        current: &Arc<Record>,
        operation: &Operation,
        now: DateTime<Utc>,
    ) -> Result<Option<Arc<Record>>, RowError> {
        let object = &*table.object;
        let deleted = table.is_deleted(current);
        let mut record = Record::clone(current);
        if operation
            .unmodified_since
            .is_some_and(|since| table.stamp(current) > since)
        {
            return Err(RowError::new(
                "PRECONDITION_FAILED",
                "The record has been modified since the time given",
            ));
        }
        match operation.verb {
            Verb::HardDelete => return Ok(None),
            Verb::Undelete if !deleted => {
                return Err(RowError::new(
                    "UNDELETE_FAILED",
                    "Entity is not in the recycle bin",
                ));
            }
            Verb::Undelete => record.set(object.system.is_deleted, Value::Bool(false)),
            _ if deleted => return Err(RowError::new("ENTITY_IS_DELETED", "entity is deleted")),
            Verb::Delete => record.set(object.system.is_deleted, Value::Bool(true)),
            verb => {
                for (place, value) in rules::checked(object, &operation.fields, verb)? {
                    self.check_reference(store, object, place, &value)?;
                    rules::check_unique(store, object, place, &value, Some(current))?;
                    record.set(place, value);
                }
                rules::check_required(object, &record)?;
            }
        }
        if operation.verb != Verb::Recalculate {
            self.touch(object, &mut record, now);
        }
        Ok(Some(Arc::new(record)))
    }

    /// Stamps a record at the statement, as Salesforce does; a person's name follows its parts.
    fn touch(&self, object: &Object, record: &mut Record, now: DateTime<Utc>) {
        let system = object.system;
        record.set(system.modified_date, Value::DateTime(now));
        record.set(system.modified_by, Value::id(&self.user));
        record.set(system.stamp, Value::DateTime(now));
        if let Some(name) = super::shape::person_name(object, record.values())
            && let Some(place) = object.place("Name")
        {
            record.set(place, name);
        }
    }

    /// A reference must point to a living record, if its object is loaded.
    fn check_reference(
        &self,
        store: &Store,
        object: &Object,
        place: usize,
        value: &Value,
    ) -> Result<(), RowError> {
        let field = &object.fields[place];
        let Some(id) = value.as_text().filter(|_| field.relationship.is_some()) else {
            return Ok(());
        };
        let Some(table) = store.table_of(id) else {
            return Ok(());
        };
        if !field.reference_to.contains(&table.object.name) {
            return Err(RowError::on(
                "FIELD_INTEGRITY_EXCEPTION",
                format!("{}: id value of incorrect type: {id}", field.label),
                &field.name,
            ));
        }
        let target = match self.places.get(id) {
            Some(staged) => self.staged[*staged].after.as_ref(),
            None => table.head(id),
        };
        if target.is_some_and(|target| !table.is_deleted(target)) {
            return Ok(());
        }
        Err(RowError::on(
            "INVALID_CROSS_REFERENCE_KEY",
            "invalid cross reference id",
            &field.name,
        ))
    }

    fn stage_new(&mut self, object: Arc<Object>, id: &Arc<str>, mut after: Record) -> String {
        after.set(object.system.id, Value::Id(Arc::clone(id)));
        self.places.insert(Arc::clone(id), self.staged.len());
        self.staged.push(Staged {
            object,
            id: Arc::clone(id),
            before: None,
            after: Some(Arc::new(after)),
            told: true,
        });
        id.to_string()
    }

    pub(crate) fn stage(
        &mut self,
        object: Arc<Object>,
        id: Arc<str>,
        current: Arc<Record>,
        after: Option<Arc<Record>>,
        verb: Verb,
    ) {
        let told = verb != Verb::Recalculate;
        if let Some(place) = self.places.get(&id) {
            let staged = &mut self.staged[*place];
            staged.after = after;
            staged.told |= told;
            return;
        }
        self.places.insert(Arc::clone(&id), self.staged.len());
        self.staged.push(Staged {
            object,
            id,
            before: Some(current),
            after,
            told,
        });
    }
}

fn no_such_record() -> RowError {
    RowError::new("INVALID_CROSS_REFERENCE_KEY", "invalid cross reference id")
}

fn existing_id(operation: &Operation) -> Result<Arc<str>, RowError> {
    operation_id(operation).map(Arc::from)
}

fn operation_id(operation: &Operation) -> Result<String, RowError> {
    let Some(id) = operation.id.as_deref() else {
        return Err(RowError::new(
            "MISSING_ARGUMENT",
            "Id not specified in an update call",
        ));
    };
    ids::normalise(id).ok_or_else(|| RowError::new("MALFORMED_ID", format!("malformed id {id}")))
}

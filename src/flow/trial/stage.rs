//! A connection's jobs on an empty target, and what they made of a test's records.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};

use crate::config::Config;
use crate::config::job::DELETED;
use crate::fault::{Fault, FaultKind};
use crate::mapping::compile::{Mapped, Mapping};
use crate::mapping::plan::MappedRow;
use crate::model::change::{Change, Op, Origin, WIRE_VERSION};
use crate::model::name::{ConnectionId, FieldName, ObjectName};
use crate::model::record_id::RecordId;
use crate::model::value::{Fields, Value};
use crate::model::version::Version;
use crate::target::port::review::Which;
use crate::target::port::{Batch, DestinationBatch, Outcome, ReaderKey, Target};

/// Times that what waits is looked at again: as deep as a chain of records that wait for each other.
const ROUNDS: usize = 100;
const LIMIT: usize = 1000;

pub(super) struct Stage {
    target: Arc<dyn Target>,
    connection: ConnectionId,
    jobs: Vec<Job>,
    now: DateTime<Utc>,
    changes: u64,
    refused: Vec<String>,
}

struct Job {
    mapping: Arc<Mapping>,
    reader: ReaderKey,
    epoch: u64,
    next: u64,
}

impl Stage {
    pub(super) async fn open(
        config: &Config,
        mappings: &[Arc<Mapping>],
        target: Arc<dyn Target>,
        connection: &ConnectionId,
        others: &BTreeSet<ConnectionId>,
        now: DateTime<Utc>,
    ) -> Result<Self, Fault> {
        let objects: Vec<_> = config.objects.values().cloned().collect();
        target.ensure(&objects).await?;
        let mut jobs = Vec::new();
        let own = mappings.iter().filter(|mapping| {
            let of = &mapping.plan().connection;
            of == connection || others.contains(of)
        });
        for mapping in own {
            target.prepare(mapping.plan()).await?;
            let reader = ReaderKey {
                connection: mapping.plan().connection.clone(),
                job: mapping.plan().job.clone(),
                reader: "live".to_owned(),
                generation: "test".to_owned(),
            };
            let assigned = target.assign(&reader, 0).await?;
            jobs.push(Job {
                mapping: Arc::clone(mapping),
                reader,
                epoch: assigned.epoch,
                next: assigned.next,
            });
        }
        Ok(Self {
            target,
            connection: connection.clone(),
            jobs,
            now,
            changes: 0,
            refused: Vec::new(),
        })
    }

    pub(super) fn target(&self) -> &dyn Target {
        self.target.as_ref()
    }

    pub(super) async fn close(self) -> Result<(), Fault> {
        self.target.close().await
    }

    /// Brings one record to the jobs that read it. What is wrong with the record itself, with remedies.
    pub(super) async fn play(
        &mut self,
        of: &ObjectName,
        record: &Fields,
    ) -> Result<Vec<(String, String)>, Fault> {
        let (connection, object) = elsewhere(of).unwrap_or((self.connection.clone(), of.clone()));
        let object = &object;
        let readers: Vec<usize> = (0..self.jobs.len())
            .filter(|at| {
                self.jobs.get(*at).is_some_and(|job| {
                    let plan = job.mapping.plan();
                    plan.source == *object && plan.connection == connection
                })
            })
            .collect();
        if readers.is_empty() {
            let what = format!("no job of `{connection}` that is enabled reads {object}");
            return Ok(vec![(
                what,
                "name an object as a job's `source` does".to_owned(),
            )]);
        }
        let (id_field, id) = match identify(object, record) {
            Ok(found) => found,
            Err(what) => return Ok(vec![what]),
        };
        let known = |name: &FieldName| {
            Some(name) == id_field.as_ref()
                || name.as_str() == DELETED
                || readers
                    .iter()
                    .filter_map(|at| self.jobs.get(*at))
                    .any(|job| job.mapping.plan().fields.contains(name))
        };
        let unknown = record.keys().filter(|name| !known(name)).map(|name| {
            let what = format!("no job that is enabled reads `{name}` of {object}");
            (what, "name fields as mappings and filters do".to_owned())
        });
        let unknown: Vec<_> = unknown.collect();
        if !unknown.is_empty() {
            return Ok(unknown);
        }
        self.changes += 1;
        for at in readers {
            let change = self.change(at, object, id.clone(), record);
            self.apply(at, &change).await?;
        }
        Ok(Vec::new())
    }

    /// The whole image: what the test leaves out is null.
    fn change(&self, job: usize, object: &ObjectName, id: RecordId, record: &Fields) -> Change {
        let selected = self.jobs.get(job).map(|job| &job.mapping.plan().fields);
        let mut fields: Fields = selected
            .into_iter()
            .flatten()
            .map(|name| (name.clone(), Value::Null))
            .collect();
        fields.extend(
            record
                .iter()
                .map(|(name, value)| (name.clone(), value.clone())),
        );
        let deleted = fields.remove(DELETED) == Some(Value::Bool(true));
        Change {
            v: WIRE_VERSION,
            connection: self.jobs.get(job).map_or_else(
                || self.connection.clone(),
                |job| job.reader.connection.clone(),
            ),
            object: object.clone(),
            id,
            op: if deleted { Op::Delete } else { Op::Snapshot },
            version: Version::new(1, self.changes),
            committed_at: Some(self.now),
            origin: Origin::Snapshot,
            position: None,
            transaction: None,
            changed: Vec::new(),
            fields,
            row: None,
            synced: None,
        }
    }

    async fn apply(&mut self, job: usize, change: &Change) -> Result<(), Fault> {
        let Some(job) = self.jobs.get_mut(job) else {
            return Ok(());
        };
        let image = change.encode().map_err(|error| {
            Fault::new(FaultKind::Record, "encoding a test's record").source(error)
        })?;
        let rows = match job.mapping.map(change, (0, self.changes), self.now) {
            Mapped::Rows(rows) => rows,
            Mapped::Rejected(reason) => {
                self.refused
                    .push(format!("{} {}: {reason}", change.object, change.id));
                return Ok(());
            }
            // Every field is there.
            Mapped::NotEvaluated(_) => return Ok(()),
        };
        let batch = job.batch(rows, image.into(), change, self.now + TimeDelta::seconds(1));
        let applied = self.target.apply(batch).await?;
        if applied.committed {
            job.next += 1;
            return Ok(());
        }
        let reasons = applied
            .outcomes
            .into_iter()
            .flatten()
            .filter_map(|outcome| match outcome {
                Outcome::Rejected(reason) => Some(reason),
                _ => None,
            });
        if let Some(reason) = reasons.into_iter().next() {
            self.refused
                .push(format!("{} {}: {reason}", change.object, change.id));
        }
        Ok(())
    }

    /// Fills what waited for rows that came later.
    pub(super) async fn settle(&mut self) -> Result<(), Fault> {
        for _ in 0..ROUNDS {
            let mut went_on = false;
            for at in 0..self.jobs.len() {
                let Some(reader) = self.jobs.get(at).map(|job| job.reader.clone()) else {
                    continue;
                };
                let released = self
                    .target
                    .release(&reader.connection, &reader.job, &[0], LIMIT)
                    .await?;
                went_on |= released.filled > 0;
                for parked in released.changes {
                    let change = Change::decode(&parked.image).map_err(|error| {
                        Fault::new(FaultKind::Corrupt, "decoding a test's record").source(error)
                    })?;
                    went_on = true;
                    self.apply(at, &change).await?;
                }
            }
            if !went_on {
                break;
            }
        }
        Ok(())
    }

    /// Why records were refused, or wait still.
    pub(super) async fn refused(&self) -> Result<Vec<String>, Fault> {
        let mut refused = self.refused.clone();
        for job in &self.jobs {
            let later = self.now + TimeDelta::days(3650);
            let (connection, id) = (&job.reader.connection, &job.reader.job);
            let waiting = self
                .target
                .expired(connection, id, &[0], later, LIMIT)
                .await?;
            let which = Which {
                connection: Some(connection.clone()),
                job: Some(id.clone()),
                limit: LIMIT,
                ..Which::default()
            };
            let source = &job.mapping.plan().source;
            let reviews = self.target.reviews(&which).await?;
            refused.extend(reviews.into_iter().map(|review| {
                format!(
                    "{source} {}: waits for a decision: {}",
                    review.record,
                    review.reason()
                )
            }));
            let whole = waiting
                .into_iter()
                .filter(|parked| parked.key.reference.is_none());
            refused.extend(whole.map(|parked| {
                format!(
                    "{source} {}: waits for {}",
                    parked.key.record, parked.waited_for
                )
            }));
        }
        Ok(refused)
    }
}

impl Job {
    fn batch(
        &self,
        rows: Vec<MappedRow>,
        image: Bytes,
        change: &Change,
        now: DateTime<Utc>,
    ) -> Batch {
        let plan = self.mapping.plan();
        let images = Arc::new(vec![image]);
        let destinations = plan
            .destinations
            .iter()
            .zip(rows)
            .map(|(plan, row)| DestinationBatch {
                plan: Arc::clone(plan),
                rows: Arc::new(vec![row]),
                images: Arc::clone(&images),
            });
        Batch {
            reader: self.reader.clone(),
            partition: 0,
            epoch: self.epoch,
            expect: self.next,
            next: self.next + 1,
            object: change.object.clone(),
            destinations: destinations.collect(),
            since: 0,
            asked_again: HashSet::new(),
            rematch: false,
            brake: None,
            now,
        }
    }
}

/// Connection and object of `connection/Object`: a record of another connection than the test's.
pub(super) fn elsewhere(of: &ObjectName) -> Option<(ConnectionId, ObjectName)> {
    let (connection, object) = of.as_str().split_once('/')?;
    Some((ConnectionId::new(connection), ObjectName::new(object)))
}

/// The field that holds a record's own id, and the id in its one spelling.
fn identify(
    object: &ObjectName,
    record: &Fields,
) -> Result<(Option<FieldName>, RecordId), (String, String)> {
    let guid = format!("{}id", object.as_str());
    let names: BTreeMap<&str, bool> =
        BTreeMap::from([("Id", false), (&*guid, true), ("activityid", true)]);
    for (name, is_guid) in names {
        let Some(value) = record.get(name) else {
            continue;
        };
        let text = value.to_string();
        let id = if is_guid {
            RecordId::guid(&text)
        } else {
            RecordId::salesforce(&text)
        };
        return id
            .map(|id| (Some(FieldName::new(name)), id))
            .map_err(|error| {
                (
                    format!("`{name}`: {error}"),
                    "write an id as the CRM does".to_owned(),
                )
            });
    }
    let what = format!("a record of {object} has no id");
    Err((
        what,
        format!("give it its `Id` or `{guid}`, as the CRM calls it"),
    ))
}

//! One step of ingest: a batch of inputs, merged in order, published, stored.

use std::collections::{BTreeMap, HashMap, HashSet};

use chrono::{DateTime, TimeDelta, Utc};

use crate::fault::{Fault, FaultKind};
use crate::flow::road::ObjectRoad;
use crate::image::merge::{Image, Step, Verdict};
use crate::image::port::ImageBatch;
use crate::model::change::{Change, Op, Origin, WIRE_VERSION};
use crate::model::event::{Event, Row};
use crate::model::name::{ConnectionId, FieldName, ObjectName};
use crate::model::record_id::RecordId;
use crate::state::port::{HoleCause, HoleScope, NewHole, Progress, StoredPosition};

use super::gathered::Gathered;
use super::parents::{join, parents_of};
use super::publish::{Published, Publishing};
use super::{Ingest, Input};

/// Where a change comes from, for its wire form.
pub(super) struct Told<'a> {
    pub origin: Origin,
    pub committed_at: Option<DateTime<Utc>>,
    pub event: Option<&'a Event>,
    /// A read's row, and as of when it is.
    pub row: Option<(&'a Row, DateTime<Utc>)>,
}

impl Ingest {
    /// Merges, publishes, stores: in that order, or not at all.
    pub(super) async fn step(&mut self, inputs: Vec<Input>) -> Result<(), Fault> {
        let mut gathered = Gathered::of(self.load(&inputs).await?);
        let mut publishing = Publishing::default();
        let merged = self.merge_all(inputs, &mut gathered, &mut publishing).await;
        if let Err(fault) = merged {
            if let Err(another) = publishing.settle().await {
                tracing::warn!(connection = %self.road.connection, error = %another, "an append failed, too");
            }
            return Err(fault);
        }
        let published = self.publish_rest(&mut gathered, publishing).await?;
        self.store_images(&mut gathered, &published).await?;
        self.finish(gathered).await
    }

    /// Merges every input, in order.
    async fn merge_all(
        &mut self,
        inputs: Vec<Input>,
        gathered: &mut Gathered,
        publishing: &mut Publishing,
    ) -> Result<(), Fault> {
        for input in inputs {
            match input {
                Input::Heard(heard) => self.hear(heard, gathered),
                Input::Read(read) => self.take_read(read, gathered),
                Input::Republish { records, done } => {
                    let outcome = self.republish(&records, gathered);
                    gathered.reads.push((done, outcome));
                }
                Input::Moved(parents) => gathered.moved.extend(parents),
            }
            self.publish_early(gathered, publishing).await?;
        }
        self.tell_children(gathered).await
    }

    /// The images of every record that the inputs speak of, and of the parents that they are joined from; in one read
    /// per object each.
    async fn load(
        &self,
        inputs: &[Input],
    ) -> Result<BTreeMap<ObjectName, HashMap<RecordId, Image>>, Fault> {
        let mut images: BTreeMap<ObjectName, HashMap<RecordId, Image>> = BTreeMap::new();
        for (object, records) in records_of(inputs) {
            if let Some(road) = self.objects.get(object) {
                let records = records.into_iter().cloned().collect();
                let held = self.road.images.get(&road.key, records).await?;
                images.insert(object.clone(), held);
            }
        }
        for (object, records) in parents_of(&self.objects, inputs, &images) {
            if let Some(road) = self.objects.get(&object) {
                let records = records.into_iter().collect();
                let held = self.road.images.get(&road.key, records).await?;
                images.entry(object).or_default().extend(held);
            }
        }
        Ok(images)
    }

    /// Takes over what a merge decided; whether a change is published.
    pub(super) fn take_step(
        &mut self,
        road: &ObjectRoad,
        record: &RecordId,
        mut step: Step,
        told: &Told<'_>,
        gathered: &mut Gathered,
    ) -> bool {
        let object = &road.key.object;
        if !road.joins.is_empty() {
            let images = &gathered.images;
            let before = images.get(object).and_then(|held| held.get(record));
            let unknown = join(road, before, &mut step, told.row, images);
            if let Some(event) = told.event.filter(|_| unknown) {
                gathered.owe(object, record, event.committed_at);
            }
        }
        if let Some(stamp) = step.owe {
            gathered.owe(object, record, stamp);
        }
        if let Some(image) = step.image.as_ref().filter(|_| !road.followers.is_empty()) {
            let before = gathered.images.get(object);
            let before = before.and_then(|held| held.get(record));
            let mut followers = road.followers.iter();
            if followers.any(|follower| follower.moves(before, image)) {
                gathered.moved.insert((object.clone(), record.clone()));
            }
        }
        self.put_step(road, record, step, told, gathered)
    }

    /// Puts what a step leaves of a record, under a new version if it is published; whether it is.
    pub(super) fn put_step(
        &mut self,
        road: &ObjectRoad,
        record: &RecordId,
        step: Step,
        told: &Told<'_>,
        gathered: &mut Gathered,
    ) -> bool {
        let object = &road.key.object;
        let Some(mut image) = step.image else {
            return false;
        };
        let mut published = false;
        if let Verdict::Publish(op) = step.verdict {
            image.version = self.next_version();
            if told.origin == Origin::Snapshot && self.has_scheduled(object) {
                image.synced = Some(image.version);
            }
            // What is no longer selected is no longer told either: it would grow old unseen.
            if !road.selects_all(&image.fields) {
                image.fields.retain(|field, _| road.selects(field));
            }
            gathered
                .changes
                .push(self.change(road, record, op, &image, step.changed, told));
            published = true;
        }
        gathered.put(object, record, image);
        published
    }

    fn change(
        &self,
        road: &ObjectRoad,
        record: &RecordId,
        op: Op,
        image: &Image,
        changed: Vec<FieldName>,
        told: &Told<'_>,
    ) -> Change {
        Change {
            v: WIRE_VERSION,
            connection: self.road.connection.clone(),
            object: road.key.object.clone(),
            id: record.clone(),
            op,
            version: image.version,
            committed_at: told.committed_at,
            origin: told.origin,
            position: told.event.map(|event| event.position.clone()),
            transaction: told.event.map(|event| event.transaction.clone()),
            changed,
            fields: image.fields.clone(),
            row: image.row_place(),
            synced: image.synced,
        }
    }

    async fn store_images(
        &mut self,
        gathered: &mut Gathered,
        published: &[Published],
    ) -> Result<(), Fault> {
        let mut batch = ImageBatch::default();
        let mut moved: Vec<(ObjectName, u32)> = Vec::new();
        for Published { object, place, .. } in published {
            moved.push((object.clone(), place.partition));
        }
        moved.sort_unstable();
        moved.dedup();
        // An offset that passes a change which the stream may still repeat would hide it from the next restart.
        let freed = self.redelivery.take_over(&mut self.held_back);
        moved.retain(|partition| !self.held_back.contains(partition));
        for (object, partition) in moved.into_iter().chain(freed) {
            let end = self.ends.get(&(object.clone(), partition));
            if let (Some(road), Some(end)) = (self.objects.get(&object), end) {
                batch.offsets.push((road.key.clone(), partition, *end));
            }
        }
        for (object, records) in std::mem::take(&mut gathered.written) {
            let (Some(road), Some(images)) =
                (self.objects.get(&object), gathered.images.get_mut(&object))
            else {
                continue;
            };
            let images = records
                .into_iter()
                .filter_map(|record| images.remove(&record).map(|image| (record, image)))
                .collect();
            batch.images.push((road.key.clone(), images));
        }
        // While an earlier mark is not reached, it stays: images hold more than this step tells.
        if !self.redelivery.is_marked()
            && let Some(mark) = self.mark.take()
        {
            batch.mark = Some((self.road.connection.clone(), mark));
        }
        if batch.images.is_empty() && batch.offsets.is_empty() && batch.mark.is_none() {
            return Ok(());
        }
        self.road.images.put(batch).await
    }

    async fn finish(&mut self, mut gathered: Gathered) -> Result<(), Fault> {
        let restored = gathered.restored;
        if let Some(as_of) = restored {
            self.position = self.road.crm.after_restore(self.position.as_ref());
            gathered.heard = true;
            gathered.holes.extend(self.holes_of_restore(as_of));
        }
        let position = gathered.heard.then(|| StoredPosition {
            position: self.position.clone(),
            confirmed_at: self.confirmed_at,
        });
        let (owe, settle) = gathered.debts();
        self.store(Progress {
            position,
            owe,
            settle,
            republished: std::mem::take(&mut gathered.republished),
            open: std::mem::take(&mut gathered.holes),
            ..Progress::default()
        })
        .await?;
        for ((name, object), by) in gathered.counts {
            let labels = [
                ("connection", self.road.connection.as_str()),
                ("object", object.as_str()),
            ];
            self.road.metrics.counter(name, &labels).increment(by);
        }
        // Whoever waited may have been stopped; the answer is durable all the same.
        for (done, outcome) in gathered.reads {
            done.send(outcome).ok();
        }
        restored.map_or(Ok(()), |_| Err(was_restored(&self.road.connection)))
    }

    /// Anything may differ from what was told before: every object is read anew.
    fn holes_of_restore(&self, as_of: DateTime<Utc>) -> Vec<NewHole> {
        let lag = TimeDelta::from_std(self.road.settings.read_lag).unwrap_or_default();
        // Not before now on the CRM's clock, which comes in whole seconds.
        let to = as_of + lag + TimeDelta::seconds(1);
        let hole = |object: &ObjectName| NewHole {
            object: object.clone(),
            cause: HoleCause::OrgRestored,
            scope: HoleScope::Object { to },
            opened_at: self.road.clock.now(),
        };
        self.objects.keys().map(hole).collect()
    }
}

fn records_of(inputs: &[Input]) -> BTreeMap<&ObjectName, HashSet<&RecordId>> {
    let mut wanted: BTreeMap<&ObjectName, HashSet<&RecordId>> = BTreeMap::new();
    for input in inputs {
        match input {
            Input::Heard(heard) => {
                for event in &heard.events {
                    wanted
                        .entry(&event.object)
                        .or_default()
                        .extend(&event.records);
                }
            }
            Input::Read(read) => {
                let records = wanted.entry(&read.object).or_default();
                records.extend(read.rows.iter().map(|row| &row.record));
                records.extend(&read.absent);
            }
            Input::Republish { records, .. } | Input::Moved(records) => {
                for (object, record) in records {
                    wanted.entry(object).or_default().insert(record);
                }
            }
        }
    }
    wanted
}

/// Ends this life; the next one begins from the place that was stored with the holes.
fn was_restored(connection: &ConnectionId) -> Fault {
    Fault::new(
        FaultKind::PositionLost,
        format!("the org of connection {connection} was restored to an earlier state"),
    )
    .remedy("every object is read anew; `holes` shows how far that is")
}

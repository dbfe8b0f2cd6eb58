//! One step of ingest: a batch of inputs, merged in order, published, stored.

use std::collections::{BTreeMap, HashMap, HashSet};

use chrono::{DateTime, Utc};
use tokio::sync::oneshot;

use crate::crm::port::Heard;
use crate::fault::{Fault, FaultKind};
use crate::image::merge::{Image, Step, Verdict};
use crate::image::port::ImageBatch;
use crate::log::port::{Place, partition_of};
use crate::model::change::{Change, Op, Origin, WIRE_VERSION};
use crate::model::event::{Event, EventKind, GapCause};
use crate::model::name::{FieldName, ObjectName};
use crate::model::record_id::RecordId;
use crate::state::port::{HoleCause, HoleScope, NewHole, Owed, Progress, Settled, StoredPosition};
use crate::telemetry::metrics;

use super::redelivery::Judgement;
use super::{Ingest, Input, Read, ReadOutcome};
use crate::flow::road::{ObjectRoad, PARTITIONS, entry_of};

/// What a step gathers before anything is written.
#[derive(Default)]
struct Gathered {
    images: HashMap<ObjectName, HashMap<RecordId, Image>>,
    written: HashMap<ObjectName, HashSet<RecordId>>,
    changes: Vec<Change>,
    owe: BTreeMap<(ObjectName, RecordId), DateTime<Utc>>,
    settle: Vec<Settled>,
    holes: Vec<NewHole>,
    heard: bool,
    reads: Vec<(oneshot::Sender<ReadOutcome>, ReadOutcome)>,
    missed: Vec<oneshot::Sender<()>>,
}

/// Where a change comes from, for its wire form.
struct Told<'a> {
    origin: Origin,
    committed_at: Option<DateTime<Utc>>,
    event: Option<&'a Event>,
}

/// How a record came to be read.
#[derive(Clone, Copy)]
struct Asked {
    as_of: DateTime<Utc>,
    by_id: bool,
    needs: Option<DateTime<Utc>>,
}

impl Ingest {
    /// Merges, publishes, stores: in that order, or not at all.
    pub(super) async fn step(&mut self, inputs: Vec<Input>) -> Result<(), Fault> {
        let mut gathered = Gathered {
            images: self.load(&inputs).await?,
            ..Gathered::default()
        };
        for input in inputs {
            match input {
                Input::Heard(heard) => self.hear(heard, &mut gathered),
                Input::Read(read) => self.take_read(read, &mut gathered),
                Input::Missed {
                    holes,
                    confirmed_at,
                    done,
                } => {
                    // Everything before is either held, or a hole from here on.
                    gathered.heard = true;
                    self.confirmed_at = self.confirmed_at.max(confirmed_at);
                    gathered.holes.extend(holes);
                    gathered.missed.push(done);
                }
            }
        }
        let places = self.publish(&gathered.changes).await?;
        self.store_images(&mut gathered, &places).await?;
        self.finish(gathered).await
    }

    /// The images of every record that the inputs speak of, in one read per object.
    async fn load(
        &self,
        inputs: &[Input],
    ) -> Result<HashMap<ObjectName, HashMap<RecordId, Image>>, Fault> {
        let mut wanted: HashMap<&ObjectName, HashSet<&RecordId>> = HashMap::new();
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
                Input::Missed { .. } => {}
            }
        }
        let mut images = HashMap::new();
        for (object, records) in wanted {
            let Some(road) = self.objects.get(object) else {
                continue;
            };
            let records = records.into_iter().cloned().collect();
            images.insert(
                object.clone(),
                self.road.images.get(&road.key, records).await?,
            );
        }
        Ok(images)
    }

    fn hear(&mut self, heard: Heard, gathered: &mut Gathered) {
        gathered.heard = true;
        for event in &heard.events {
            self.hear_event(event, gathered);
            self.redelivery.passed(&event.position);
            self.confirmed_at = self.confirmed_at.max(event.committed_at);
        }
        if let Some(position) = heard.position {
            self.position = Some(position);
        }
        if let Some(at) = heard.confirmed_at {
            self.confirmed_at = self.confirmed_at.max(at);
        }
    }

    fn hear_event(&mut self, event: &Event, gathered: &mut Gathered) {
        let Some(road) = self.objects.get(&event.object).cloned() else {
            return;
        };
        self.count(metrics::EVENTS, &event.object, 1);
        if let EventKind::ObjectGap(cause) = event.kind {
            gathered.holes.push(NewHole {
                object: event.object.clone(),
                cause: match cause {
                    GapCause::Overflow => HoleCause::Overflow,
                    GapCause::Wildcard => HoleCause::Wildcard,
                    GapCause::Undecodable => HoleCause::Undecodable,
                },
                scope: HoleScope::Object {
                    to: event.committed_at,
                },
                opened_at: self.road.clock.now(),
            });
            return;
        }
        for record in &event.records {
            if !self.redelivery.is_over() {
                let partition = partition_of(record.as_str().as_bytes(), PARTITIONS);
                match self.redelivery.judge(event, record, partition) {
                    Judgement::Fresh => {}
                    Judgement::Known => {
                        self.count(metrics::EVENTS_REPEATED, &event.object, 1);
                        continue;
                    }
                    Judgement::Unsure => {
                        self.count(metrics::EVENTS_REPEATED, &event.object, 1);
                        gathered.owe(&event.object, record, event.committed_at);
                        continue;
                    }
                }
            }
            let image = gathered.image(&event.object, record);
            let step = self.road.crm.table().event(image, event, &road.carried);
            let told = Told {
                origin: Origin::Stream,
                committed_at: Some(event.committed_at),
                event: Some(event),
            };
            self.take_step(&road, record, step, &told, gathered);
        }
    }

    fn take_read(&mut self, read: Read, gathered: &mut Gathered) {
        let mut outcome = ReadOutcome::default();
        let Some(road) = self.objects.get(&read.object).cloned() else {
            gathered.reads.push((read.done, outcome));
            return;
        };
        let covered = self.covered.get(&read.object).copied();
        let by_id = read.origin == Origin::Hydrate;
        self.count(metrics::ROWS_READ, &read.object, read.rows.len() as u64);
        for row in &read.rows {
            let image = gathered.image(&read.object, &row.record);
            let needs = image.as_ref().and_then(|image| image.needs);
            let was_live = image.clone();
            let mut step = self.road.crm.table().row(image, row, read.as_of, covered);
            if read.republish && matches!(step.verdict, Verdict::Drop | Verdict::Keep) {
                step.image = step.image.or(was_live);
                if step.image.is_some() {
                    step.verdict = Verdict::Publish(Op::Snapshot);
                }
            }
            let told = Told {
                origin: read.origin,
                committed_at: row.modified_at,
                event: None,
            };
            let asked = Asked {
                as_of: read.as_of,
                by_id,
                needs,
            };
            Self::settle(&road, &row.record, &step, asked, gathered, &mut outcome);
            outcome.published +=
                u64::from(self.take_step(&road, &row.record, step, &told, gathered));
        }
        for record in &read.absent {
            let image = gathered.image(&read.object, record);
            let needs = image.as_ref().and_then(|image| image.needs);
            let step = self.road.crm.table().absent(image, read.as_of, covered);
            let told = Told {
                origin: read.origin,
                committed_at: Some(read.as_of),
                event: None,
            };
            let asked = Asked {
                as_of: read.as_of,
                by_id,
                needs,
            };
            Self::settle(&road, record, &step, asked, gathered, &mut outcome);
            if self.take_step(&road, record, step, &told, gathered) {
                outcome.published += 1;
                outcome.deleted += 1;
            }
        }
        gathered.reads.push((read.done, outcome));
    }

    /// Notes whether a read answers what its record owes.
    fn settle(
        road: &ObjectRoad,
        record: &RecordId,
        step: &Step,
        asked: Asked,
        gathered: &mut Gathered,
        outcome: &mut ReadOutcome,
    ) {
        if step.verdict == Verdict::ReadAgain {
            outcome.again.push(record.clone());
            return;
        }
        // A full sync meets every record; only those that owe something are worth a row of the ledger.
        let owes = asked.by_id || asked.needs.is_some();
        if step.owe.is_none() && owes {
            let object = road.key.object.clone();
            gathered.owe.remove(&(object.clone(), record.clone()));
            gathered.settle.push(Settled {
                object,
                record: record.clone(),
                stamp: asked
                    .needs
                    .map_or(asked.as_of, |needs| needs.max(asked.as_of)),
            });
        }
    }

    /// Takes over what a merge decided; whether a change is published.
    fn take_step(
        &mut self,
        road: &ObjectRoad,
        record: &RecordId,
        step: Step,
        told: &Told<'_>,
        gathered: &mut Gathered,
    ) -> bool {
        let object = &road.key.object;
        if let Some(stamp) = step.owe {
            gathered.owe(object, record, stamp);
        }
        let Some(mut image) = step.image else {
            return false;
        };
        let mut published = false;
        if let Verdict::Publish(op) = step.verdict {
            image.version = self.next_version();
            if road.leaves_unread(op, told.origin) {
                gathered.owe(object, record, told.committed_at.unwrap_or_default());
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
        }
    }

    async fn publish(&self, changes: &[Change]) -> Result<Vec<Place>, Fault> {
        if changes.is_empty() {
            return Ok(Vec::new());
        }
        let mut entries = Vec::with_capacity(changes.len());
        for change in changes {
            let Some(road) = self.objects.get(&change.object) else {
                continue;
            };
            entries.push(entry_of(&road.topic, change)?);
        }
        let places = self.road.log.append(entries).await?;
        if places.len() != changes.len() {
            return Err(Fault::new(
                FaultKind::Corrupt,
                format!(
                    "log acknowledged {} of {} changes",
                    places.len(),
                    changes.len()
                ),
            ));
        }
        for change in changes {
            let labels = [
                ("connection", self.road.connection.as_str()),
                ("object", change.object.as_str()),
                ("origin", change.origin.label()),
            ];
            self.road
                .metrics
                .counter(metrics::CHANGES, &labels)
                .increment(1);
        }
        Ok(places)
    }

    async fn store_images(&self, gathered: &mut Gathered, places: &[Place]) -> Result<(), Fault> {
        let mut next: BTreeMap<(&ObjectName, u32), u64> = BTreeMap::new();
        for (change, place) in gathered.changes.iter().zip(places) {
            let offset = next.entry((&change.object, place.partition)).or_default();
            *offset = (*offset).max(place.offset + 1);
        }
        let mut batch = ImageBatch::default();
        for ((object, partition), offset) in next {
            if let Some(road) = self.objects.get(object) {
                batch.offsets.push((road.key.clone(), partition, offset));
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
        if gathered.heard
            && let Some(position) = &self.position
        {
            batch.position = Some((self.road.connection.clone(), position.clone()));
        }
        if batch.images.is_empty() && batch.offsets.is_empty() && batch.position.is_none() {
            return Ok(());
        }
        self.road.images.put(batch).await
    }

    async fn finish(&mut self, gathered: Gathered) -> Result<(), Fault> {
        let position = gathered.heard.then(|| StoredPosition {
            position: self.position.clone(),
            confirmed_at: self.confirmed_at,
        });
        let owe = gathered
            .owe
            .into_iter()
            .map(|((object, record), stamp)| Owed {
                object,
                record,
                stamp,
            })
            .collect();
        self.store(Progress {
            position,
            owe,
            settle: gathered.settle,
            open: gathered.holes,
        })
        .await?;
        for change in &gathered.changes {
            self.road
                .board
                .object(&self.road.connection, &change.object, |entry| {
                    entry.published += 1
                });
        }
        // Whoever waited may have been stopped; the answer is durable all the same.
        for (done, outcome) in gathered.reads {
            done.send(outcome).ok();
        }
        for done in gathered.missed {
            done.send(()).ok();
        }
        Ok(())
    }

    fn count(&self, name: &'static str, object: &ObjectName, by: u64) {
        let labels = [
            ("connection", self.road.connection.as_str()),
            ("object", object.as_str()),
        ];
        self.road.metrics.counter(name, &labels).increment(by);
    }
}

impl Gathered {
    fn image(&self, object: &ObjectName, record: &RecordId) -> Option<Image> {
        self.images.get(object)?.get(record).cloned()
    }

    fn put(&mut self, object: &ObjectName, record: &RecordId, image: Image) {
        self.images
            .entry(object.clone())
            .or_default()
            .insert(record.clone(), image);
        self.written
            .entry(object.clone())
            .or_default()
            .insert(record.clone());
    }

    fn owe(&mut self, object: &ObjectName, record: &RecordId, stamp: DateTime<Utc>) {
        let owed = self
            .owe
            .entry((object.clone(), record.clone()))
            .or_insert(stamp);
        *owed = (*owed).max(stamp);
        // A read earlier in this step answers nothing that came after it.
        self.settle.retain(|settled| {
            settled.record != *record || settled.object != *object || settled.stamp > stamp
        });
    }
}

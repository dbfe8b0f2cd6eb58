//! What must hold: at every crash, and when everything has come to rest.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::flow::board;
use crate::image::merge::Life;
use crate::image::port::ImageStore;
use crate::log::port::{Delivery, From, Log};
use crate::model::change::{Change, Origin};
use crate::model::event::EventKind;
use crate::model::name::{FieldName, ObjectName};
use crate::model::record_id::RecordId;
use crate::model::value::Fields;
use crate::state::port::{HoleCause, HoleScope, HoleState, NewHole, Progress, State};

use super::crm::index;
use super::org::{Being, FORMULA, Key, Moment, date};
use super::world::World;

/// How long everything may take to come to rest.
const PATIENCE: Duration = Duration::from_secs(600);

/// What a run showed besides being right.
#[derive(Debug, Clone, Copy, Default)]
pub struct Stats {
    pub changes: usize,
    /// Stream changes that one event caused twice.
    pub repeated: usize,
    pub holes: usize,
    /// Streams that began anew.
    pub broken: u64,
    /// Appends that came after another owner had taken over.
    pub zombies: u64,
    pub reads: u64,
}

impl Stats {
    pub fn add(&mut self, other: &Self) {
        self.changes += other.changes;
        self.repeated += other.repeated;
        self.holes += other.holes;
        self.broken += other.broken;
        self.zombies += other.zombies;
        self.reads += other.reads;
    }
}

impl World {
    /// A topic's changes in offset order per partition.
    pub async fn changes(&self, object: &ObjectName) -> Vec<Change> {
        let topic = self.topic(object);
        let Ok(bounds) = self.log.bounds(&topic).await else {
            return Vec::new();
        };
        let from = bounds
            .iter()
            .map(|(number, bounds)| (*number, bounds.start))
            .collect();
        let mut left: u64 = bounds
            .values()
            .map(|bounds| bounds.end - bounds.start)
            .sum();
        let mut reader = self
            .log
            .reader(&topic, From::Partitions(from))
            .await
            .unwrap();
        let mut changes = Vec::new();
        while left > 0 {
            let next = reader.next(1000, usize::MAX, Duration::ZERO).await.unwrap();
            let Delivery::Batch(records) = next else {
                break;
            };
            left -= records.len() as u64;
            let values = records.iter().filter_map(|record| record.value.as_ref());
            changes.extend(values.map(|value| Change::decode(value).unwrap()));
        }
        changes
    }

    /// Waits until nothing is owed, no hole is open and every event was heard; then everything must agree.
    pub async fn rest(&self) -> Result<Stats, String> {
        self.settle().await?;
        self.agree().await
    }

    /// Asks for a full sync of every object, as a schedule would.
    pub async fn ask_for_full_sync(&self) -> Result<(), String> {
        self.settle().await?;
        let term = self.chaos.term.load(Ordering::SeqCst);
        let holes = self.selected.keys().map(|object| NewHole {
            object: object.clone(),
            cause: HoleCause::NotCaptured,
            scope: HoleScope::Object {
                to: date(self.org.now()),
            },
            opened_at: date(self.org.now()),
        });
        let progress = Progress {
            open: holes.collect(),
            ..Progress::default()
        };
        let asked = self.state.commit(&self.connection, term, progress).await;
        asked.map_err(|fault| format!("asking for a full sync: {fault}"))
    }

    async fn settle(&self) -> Result<(), String> {
        let until = tokio::time::Instant::now() + PATIENCE;
        let mut calm = 0;
        while calm < 3 {
            tokio::time::sleep(Duration::from_millis(700)).await;
            match self.unsettled().await {
                None => calm += 1,
                Some(_) if tokio::time::Instant::now() < until => calm = 0,
                Some(why) => return Err(format!("no rest: {why}")),
            }
        }
        Ok(())
    }

    async fn unsettled(&self) -> Option<String> {
        let [owner] = &self.owners[..] else {
            return Some(format!("{} processes run", self.owners.len()));
        };
        let picture = owner.board.picture();
        let life = picture.connections.get(&self.connection).map(|of| of.state);
        if life != Some(board::Life::Streaming) {
            return Some(format!("the connection is {life:?}: {picture:?}"));
        }
        for object in self.selected.keys() {
            let state = self.state.object(&self.connection, object).await.unwrap();
            if state.synced_at.is_none() || state.snapshot.is_some() {
                return Some(format!("{object} is not synced"));
            }
        }
        let holes = self.state.holes(None, false).await.unwrap();
        if let Some(hole) = holes
            .iter()
            .find(|hole| self.selected.contains_key(&hole.object))
        {
            return Some(format!("{hole:?} is open"));
        }
        let owed = self.state.owed_counts(&self.connection).await.unwrap();
        if let Some(owed) = owed.iter().find(|owed| self.selected.contains_key(&owed.0)) {
            return Some(format!("owed {owed:?}"));
        }
        let hints = self.state.hints(&self.connection, 10).await.unwrap();
        if !hints.is_empty() {
            return Some(format!("hints {hints:?} wait"));
        }
        let stored = self.state.position(&self.connection).await.unwrap();
        let heard = stored
            .and_then(|stored| stored.position)
            .map(|position| index(&position));
        let told = self.org.lock().stream.len();
        (heard != Some(told)).then(|| format!("heard {heard:?} of {told} events"))
    }

    async fn agree(&self) -> Result<Stats, String> {
        let mut stats = Stats {
            broken: self.chaos.broken.load(Ordering::SeqCst),
            zombies: self.chaos.zombies.load(Ordering::SeqCst),
            reads: self.reads(),
            ..Stats::default()
        };
        for (object, selected) in &self.selected {
            let truth = self.org.selected(object, selected);
            let only_selected = |mut fields: Fields| {
                fields.retain(|field, _| selected.contains(field));
                fields
            };
            let owner = self.owners.last().ok_or("nobody runs")?.process.name;
            let images = &self.images[owner];
            let images = images.scan(&self.key(object), None, 10_000).await.unwrap();
            let images: BTreeMap<RecordId, Fields> = images
                .into_iter()
                .filter(|(_, image)| image.life == Life::Live)
                .map(|(record, image)| (record, only_selected(image.fields)))
                .collect();
            differ(&format!("images of {object}"), &images, &truth)?;
            let changes = self.changes(object).await;
            stats.changes += changes.len();
            stats.repeated += repeated(&changes);
            let mut last: BTreeMap<RecordId, Change> = BTreeMap::new();
            for change in changes {
                if let Some(before) = last.get(&change.id)
                    && before.version >= change.version
                    && self.chaos.zombies.load(Ordering::SeqCst) == 0
                {
                    return Err(format!(
                        "versions of {} fall: {} to {}",
                        change.id, before.version, change.version
                    ));
                }
                last.insert(change.id.clone(), change);
            }
            let told: BTreeMap<RecordId, Fields> = last
                .into_iter()
                .filter(|(_, change)| change.is_alive())
                .map(|(record, change)| (record, only_selected(change.fields)))
                .collect();
            differ(&format!("topic of {object}"), &told, &truth)?;
        }
        for hole in self.state.holes(None, true).await.unwrap() {
            stats.holes += 1;
            let proved = hole
                .evidence
                .as_ref()
                .is_some_and(|read| read.as_of > hole.scope.end());
            if hole.state == HoleState::Closed && !proved {
                return Err(format!("{hole:?} was closed without proof"));
            }
        }
        if self.chaos.unfenced.load(Ordering::SeqCst) > 0 {
            return Err("an owner published after its term was over".to_owned());
        }
        Ok(stats)
    }

    /// I1: what the stored position says was heard is in the topic, or owed, or a hole.
    pub async fn nothing_is_lost(&self) -> Result<(), String> {
        let Some(stored) = self.state.position(&self.connection).await.unwrap() else {
            return Ok(());
        };
        let heard = stored.position.map_or(0, |position| index(&position));
        for (object, selected) in &self.selected {
            let state = self.state.object(&self.connection, object).await.unwrap();
            let holes = self.state.holes(None, false).await.unwrap();
            let all = self.state.holes(None, true).await.unwrap();
            let unnoticed = self.damaged.get(object).is_some_and(|at| {
                let mut holes = all.iter().filter(|hole| hole.object == *object);
                !holes.any(|hole| {
                    hole.cause == HoleCause::TopicRecreated && hole.opened_at >= date(*at)
                })
            });
            let excused = unnoticed
                || state.synced_at.is_none()
                || state.covered.is_none()
                || holes.iter().any(|hole| hole.object == *object);
            if excused {
                continue;
            }
            let owed = self
                .state
                .owed(&self.connection, object, usize::MAX)
                .await
                .unwrap();
            let mut last: HashMap<RecordId, Change> = HashMap::new();
            for change in self.changes(object).await {
                let newer = last
                    .get(&change.id)
                    .is_none_or(|held| held.version < change.version);
                if newer {
                    last.insert(change.id.clone(), change);
                }
            }
            for (record, change) in last.iter().filter(|(_, change)| change.is_alive()) {
                let is_heard = change
                    .position
                    .as_ref()
                    .map(index)
                    .is_some_and(|at| at <= heard);
                let mut fields = selected.iter().filter(|field| state.fields.contains(field));
                let lacks = fields.any(|field| !change.fields.contains_key(field));
                if is_heard && lacks && !owed.iter().any(|owed| owed.record == *record) {
                    return Err(format!("{change:?} lacks a field, and no read is owed"));
                }
            }
            let inner = self.org.lock();
            let mut due: BTreeMap<(RecordId, Option<FieldName>), i64> = BTreeMap::new();
            for told in inner.stream.iter().take(heard) {
                if told.event.object != *object
                    || matches!(told.event.kind, EventKind::ObjectGap(_))
                {
                    continue;
                }
                for record in &told.event.records {
                    let is_update = told.event.kind == EventKind::Update;
                    if !is_update {
                        due.insert((record.clone(), None), told.at);
                    }
                    let carried = selected.iter().filter(|field| {
                        let is_own = field.as_str() != FORMULA && !field.as_str().contains('.');
                        is_own && state.fields.contains(field)
                    });
                    for field in carried {
                        let all =
                            matches!(told.event.kind, EventKind::Create | EventKind::Undelete);
                        if all || told.event.fields.contains_key(field) {
                            due.insert((record.clone(), Some(field.clone())), told.at);
                        }
                    }
                }
            }
            for ((record, field), at) in due {
                if owed.iter().any(|owed| owed.record == record) {
                    continue;
                }
                let key: Key = (object.clone(), record.clone());
                let Some(moments) = inner.records.get(&key) else {
                    continue;
                };
                let since: Vec<&Moment> = moments.iter().filter(|moment| moment.at >= at).collect();
                // Of a hard delete nothing tells, so nothing is due.
                if moments.last().is_some_and(|last| last.life == Being::Gone) {
                    continue;
                }
                let held = last.get(&record).filter(|change| change.is_alive());
                let fits = match (&field, held) {
                    (_, None) => since.iter().any(|moment| moment.life != Being::Live),
                    (None, Some(_)) => since.iter().any(|moment| moment.life == Being::Live),
                    (Some(field), Some(change)) => {
                        let value = change.fields.get(field);
                        since.iter().any(|moment| moment.fields.get(field) == value)
                    }
                };
                if !fits {
                    return Err(format!(
                        "position is after event of {at} on {record} {field:?}, but the topic holds {held:?} and nothing is owed"
                    ));
                }
            }
        }
        Ok(())
    }
}

fn differ(
    what: &str,
    found: &BTreeMap<RecordId, Fields>,
    truth: &BTreeMap<RecordId, Fields>,
) -> Result<(), String> {
    for (record, fields) in truth {
        if found.get(record) != Some(fields) {
            return Err(format!(
                "{what}: {record} is {:?}, in the org {fields:?}",
                found.get(record)
            ));
        }
    }
    match found.keys().find(|record| !truth.contains_key(record)) {
        Some(record) => Err(format!("{what}: {record} lives, in the org it is dead")),
        None => Ok(()),
    }
}

/// How many stream changes were published a second time for the same event and record.
fn repeated(changes: &[Change]) -> usize {
    let mut seen: HashMap<(String, i64, RecordId), usize> = HashMap::new();
    for change in changes
        .iter()
        .filter(|change| change.origin == Origin::Stream)
    {
        if let Some(of) = &change.transaction {
            let identity = (of.key.clone(), of.sequence, change.id.clone());
            *seen.entry(identity).or_default() += 1;
        }
    }
    seen.values().map(|count| count - 1).sum()
}

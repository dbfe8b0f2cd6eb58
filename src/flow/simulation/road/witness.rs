//! A witness beside the target: what is assigned, offered and committed, and whether that may be.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use uuid::Uuid;

use crate::flow::simulation::trace::Trace;
use crate::log::memory::MemoryLog;
use crate::log::port::{Delivery, Entry, From, Log, Record};
use crate::mapping::plan::MappedRow;
use crate::model::change::Change;
use crate::model::name::{ConnectionId, JobId, ObjectName};
use crate::model::record_id::RecordId;
use crate::model::version::Version;
use crate::target::memory::MemoryTarget;
use crate::target::port::{Applied, Assignment, Batch, Outcome, ParkedKey, ReaderKey, Target};

use super::jobs::Jobs;

/// A record in a table.
pub type Spot = (&'static str, RecordId);

pub struct Witness {
    seen: Mutex<Seen>,
    log: Arc<MemoryLog>,
    jobs: Arc<Jobs>,
    topics: BTreeMap<ObjectName, String>,
    trace: Trace,
}

#[derive(Default)]
struct Seen {
    seats: HashMap<(ReaderKey, u32), Assignment>,
    held: BTreeMap<Spot, Held>,
    letters: BTreeSet<(ObjectName, RecordId, Version)>,
    /// Records of which something waited too long.
    expired: BTreeSet<(ObjectName, RecordId)>,
    wrongs: Vec<String>,
    counts: Counts,
}

/// What was seen of a row.
#[derive(Debug, Default)]
struct Held {
    version: Version,
    gsid: Option<Uuid>,
    lives: bool,
}

/// What happened, besides being right.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    pub commits: u64,
    pub rows: u64,
    pub inserted: u64,
    pub stale: u64,
    pub parked: u64,
    pub fenced: u64,
    pub letters: u64,
    pub rewound: u64,
}

impl Counts {
    pub fn add(&mut self, other: &Self) {
        self.commits += other.commits;
        self.rows += other.rows;
        self.inserted += other.inserted;
        self.stale += other.stale;
        self.parked += other.parked;
        self.fenced += other.fenced;
        self.letters += other.letters;
        self.rewound += other.rewound;
    }
}

impl Witness {
    pub fn new(
        log: &Arc<MemoryLog>,
        jobs: &Arc<Jobs>,
        topics: BTreeMap<ObjectName, String>,
        trace: Trace,
    ) -> Self {
        Self {
            seen: Mutex::default(),
            log: Arc::clone(log),
            jobs: Arc::clone(jobs),
            topics,
            trace,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }

    /// The first thing that was not right.
    pub fn wrong(&self) -> Result<Counts, String> {
        let seen = self.lock();
        match seen.wrongs.first() {
            Some(wrong) => Err(wrong.clone()),
            None => Ok(seen.counts),
        }
    }

    pub fn seat(&self, reader: &ReaderKey, partition: u32) -> Assignment {
        let seats = &self.lock().seats;
        let held = seats.get(&(reader.clone(), partition)).copied();
        held.unwrap_or(Assignment { next: 0, epoch: 0 })
    }

    /// Where a job's live reader stands.
    pub fn next(&self, job: &str, generation: &str, partition: u32) -> u64 {
        let seen = self.lock();
        let mut seats = seen.seats.iter();
        let found = seats.find(|((reader, of), _)| {
            let is_live = reader.reader == "live" && reader.job.as_str() == job;
            is_live && reader.generation == generation && *of == partition
        });
        found.map_or(0, |(_, held)| held.next)
    }

    pub fn has_letter(&self, object: &ObjectName, record: &RecordId, version: Version) -> bool {
        let key = (object.clone(), record.clone(), version);
        self.lock().letters.contains(&key)
    }

    pub fn has_expired(&self, object: &ObjectName, record: &RecordId) -> bool {
        let key = (object.clone(), record.clone());
        self.lock().expired.contains(&key)
    }

    pub fn gsid(&self, table: &'static str, record: &RecordId) -> Option<Uuid> {
        let seen = self.lock();
        seen.held.get(&(table, record.clone()))?.gsid
    }

    pub fn assigned(
        &self,
        process: &str,
        reader: &ReaderKey,
        partition: u32,
        assignment: Assignment,
    ) {
        self.trace.say(|| {
            format!(
                "{process}: {} {partition} assigned {assignment:?}",
                reader.job
            )
        });
        let mut seen = self.lock();
        let held = seen
            .seats
            .insert((reader.clone(), partition), assignment)
            .unwrap_or(Assignment { next: 0, epoch: 0 });
        if held.next != assignment.next {
            seen.wrongs.push(format!(
                "{} {partition} stood at {held:?} and is assigned at {assignment:?}",
                reader.job
            ));
        }
    }

    pub fn offered(&self, process: &str, batch: &Batch) {
        self.trace.say(|| {
            let rows = batch.destinations.iter().map(|to| {
                let rows = to.rows.iter();
                let rows = rows.map(|row| (row.record.as_str(), row.version.to_string(), row.life));
                (to.plan.table.as_str(), rows.collect::<Vec<_>>())
            });
            format!(
                "{process}: {} {} epoch {} {}..{} {:?}",
                batch.reader.job,
                batch.partition,
                batch.epoch,
                batch.expect,
                batch.next,
                rows.collect::<Vec<_>>()
            )
        });
        let held = self.seat(&batch.reader, batch.partition);
        if held.epoch != batch.epoch {
            self.lock().counts.fenced += 1;
        }
    }

    pub fn letters(&self, entries: &[Entry]) {
        for entry in entries {
            let header = |name: &str| {
                let found = entry.headers.iter().find(|(of, _)| of == name);
                found.map(|(_, value)| String::from_utf8_lossy(value).into_owned())
            };
            let reason = header("tributary_reason").unwrap_or_default();
            self.trace
                .say(|| format!("letter of {:?}: {reason}", entry.key));
            let mut seen = self.lock();
            seen.counts.letters += 1;
            if reason.starts_with("waited") {
                let topic = header("tributary_topic").unwrap_or_default();
                let mut topics = self.topics.iter();
                let (object, _) = topics.find(|(_, of)| **of == topic).unwrap();
                let record = RecordId::stored(String::from_utf8_lossy(&entry.key));
                seen.expired.insert((object.clone(), record));
            }
            let Some(value) = &entry.value else { continue };
            let change = Change::decode(value).unwrap();
            let deserves = self.deserves(&change) || reason.starts_with("waited");
            if !deserves {
                seen.wrongs
                    .push(format!("letter of {}: {reason}: {change:?}", change.id));
            }
            let key = (change.object.clone(), change.id.clone(), change.version);
            seen.letters.insert(key);
        }
    }

    /// J1: what is forgotten is in the dead letters already.
    pub fn forgotten(&self, job: &JobId, parked: &[ParkedKey]) {
        let mut jobs = self.jobs.all.iter();
        let job = jobs.find(|of| of.id == job.as_str()).unwrap();
        for key in parked {
            self.trace.say(|| format!("forget {key:?}"));
            let told = match key.reference {
                Some(_) => self.has_expired(&job.object, &key.record),
                None => self.has_letter(&job.object, &key.record, key.version),
            };
            if !told {
                let what = format!("{key:?} is forgotten before its letter was written");
                self.lock().wrongs.push(what);
            }
        }
    }

    fn deserves(&self, change: &Change) -> bool {
        let mut jobs = self.jobs.all.iter();
        let job = jobs.find(|job| job.object == change.object).unwrap();
        change.is_alive() && job.refuses(&change.fields)
    }

    pub async fn applied(&self, target: &MemoryTarget, batch: &Batch, applied: &Applied) {
        self.trace.say(|| {
            format!(
                "    {:?}",
                if applied.committed {
                    applied
                        .outcomes
                        .iter()
                        .map(|of| of.iter().map(Outcome::label).collect::<Vec<_>>())
                        .collect::<Vec<_>>()
                } else {
                    vec![vec!["not committed"]]
                }
            )
        });
        if !applied.committed {
            return;
        }
        self.commit(batch);
        for (to, outcomes) in batch.destinations.iter().zip(&applied.outcomes) {
            for (row, outcome) in to.rows.iter().zip(outcomes) {
                let table = self.table(&to.plan.table);
                let gsid =
                    gsid_of(target, &batch.reader.connection, &batch.object, table, row).await;
                self.row(table, row, outcome, gsid);
            }
        }
        if batch.next > batch.expect {
            self.letters_came_before(batch).await;
        }
    }

    fn table(&self, name: &str) -> &'static str {
        let mut all = self.jobs.all.iter().flat_map(|job| &job.destinations);
        all.find(|to| to.table == name).unwrap().table
    }

    /// An offset was moved alone.
    pub fn moved(&self, batch: &Batch) {
        let next = Assignment {
            next: batch.next,
            epoch: batch.epoch,
        };
        let key = (batch.reader.clone(), batch.partition);
        self.lock().seats.insert(key, next);
    }

    /// J1: whoever lost the partition writes nothing.
    fn commit(&self, batch: &Batch) {
        let mut seen = self.lock();
        seen.counts.commits += 1;
        seen.counts.rewound += u64::from(batch.next < batch.expect);
        let key = (batch.reader.clone(), batch.partition);
        let held = seen.seats.get(&key).copied();
        let claimed = Assignment {
            next: batch.expect,
            epoch: batch.epoch,
        };
        if held != Some(claimed) {
            let what = format!(
                "{} {} committed as {claimed:?}, {held:?} is assigned",
                batch.reader.job, batch.partition
            );
            seen.wrongs.push(what);
        }
        drop(seen);
        self.moved(batch);
    }

    /// J2 and J4: versions never fall, a row is inserted once, and keeps its GSID.
    fn row(&self, table: &'static str, row: &MappedRow, outcome: &Outcome, gsid: Option<Uuid>) {
        let mut seen = self.lock();
        seen.counts.rows += 1;
        let mut wrong = None;
        let held = seen.held.entry((table, row.record.clone())).or_default();
        let counts = match outcome {
            Outcome::Stale(version) => {
                if *version <= row.version {
                    wrong = Some(format!("stale under {version}"));
                }
                (0, 1, 0)
            }
            Outcome::Parked => (0, 0, 1),
            Outcome::Review | Outcome::Skipped | Outcome::Rejected(_) => (0, 0, 0),
            applied => {
                if row.version < held.version {
                    wrong = Some(format!("older than {}", held.version));
                }
                held.version = row.version;
                let inserted = *applied == Outcome::Inserted;
                if inserted && held.lives {
                    wrong = Some("inserted twice".to_owned());
                }
                held.lives = gsid.is_some();
                (u64::from(inserted), 0, 0)
            }
        };
        match (held.gsid, gsid) {
            (Some(before), Some(now)) if before != now => {
                wrong = Some(format!("GSID {before} became {now}"));
            }
            (None, Some(now)) => held.gsid = Some(now),
            _ => {}
        }
        if let Some(wrong) = wrong {
            let what = format!(
                "{table} of {} at {}, {outcome:?}: {wrong}",
                row.record, row.version
            );
            seen.wrongs.push(what);
        }
        seen.counts.inserted += counts.0;
        seen.counts.stale += counts.1;
        seen.counts.parked += counts.2;
    }

    /// J1: what a commit passes over is in the dead letters already.
    async fn letters_came_before(&self, batch: &Batch) {
        let mut newest: BTreeMap<RecordId, Change> = BTreeMap::new();
        for record in self.records(batch).await {
            let Some(value) = &record.value else { continue };
            let change = Change::decode(value).unwrap();
            let older = newest.get(&change.id).map(|held| held.version);
            if older.is_none_or(|older| older <= change.version) {
                newest.insert(change.id.clone(), change);
            }
        }
        for change in newest.into_values() {
            if self.deserves(&change)
                && !self.has_letter(&change.object, &change.id, change.version)
            {
                let what = format!(
                    "a commit to {} of {} {} passed {change:?} before its letter was written",
                    batch.next, batch.reader.job, batch.partition
                );
                self.lock().wrongs.push(what);
            }
        }
    }

    async fn records(&self, batch: &Batch) -> Vec<Record> {
        let topic = &self.topics[&batch.object];
        let from = BTreeMap::from([(batch.partition, batch.expect)]);
        let mut records = Vec::new();
        let mut reader = self
            .log
            .reader(topic, From::Partitions(from))
            .await
            .unwrap();
        while records
            .last()
            .is_none_or(|last: &Record| last.offset + 1 < batch.next)
        {
            let next = reader.next(1000, usize::MAX, Duration::ZERO).await.unwrap();
            let Delivery::Batch(more) = next else { break };
            records.extend(more);
        }
        records.retain(|record| record.offset < batch.next);
        records
    }
}

async fn gsid_of(
    target: &MemoryTarget,
    connection: &ConnectionId,
    object: &ObjectName,
    table: &str,
    row: &MappedRow,
) -> Option<Uuid> {
    let traced = target.trace(connection, object, &row.record).await.unwrap();
    let of = traced.into_iter().find(|traced| traced.table == table)?;
    Some(of.row?.gsid)
}

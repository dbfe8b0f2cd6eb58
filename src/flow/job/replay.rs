//! A replay: topics read again up to the ends they had, by readers with offsets of their own, into a store of their
//! own. No CRM is called, and the topics are only read.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use tokio::time::Instant;

use crate::config::job::Brakes;
use crate::fault::{Fault, FaultKind};
use crate::log::port::{Bounds, Delivery, Entry, From, Log, Place, Reader, Record, TopicSpec};
use crate::runtime::shutdown::StopSignal;
use crate::state::orders::Since;
use crate::target::port::ReaderKey;

use super::brake::Lever;
use super::lanes::Lanes;
use super::tally::Tally;
use super::{Job, JobRoad, MAX_BYTES, MAX_RECORDS, Owned, Owner, WAIT};

/// How long a topic may be silent before its end.
const PATIENCE: Duration = Duration::from_secs(60);
/// How many reasons of refused records are kept.
const REASONS: usize = 20;

/// What a replay of one job did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Records read.
    pub read: u64,
    /// Records refused, and the first reasons.
    pub refused: u64,
    /// The first reasons.
    pub reasons: Vec<String>,
}

/// One job's replay.
pub struct Replay {
    job: Job,
    letters: Arc<Letters>,
    from: BTreeMap<u32, u64>,
    /// Partitions that are not read to their end yet, with the end.
    left: BTreeMap<u32, u64>,
    replayed: Replayed,
}

impl Replay {
    /// Takes the topic's bounds. `reader` names the offsets in the target's ledger; what is written goes to the
    /// road's target, dead letters are only counted.
    ///
    /// # Errors
    /// A fault of the log or the target; `Missing` for a topic there is not.
    pub async fn new(
        mut road: JobRoad,
        reader: &str,
        since: Since,
        stop: StopSignal,
    ) -> Result<Self, Fault> {
        let bounds = road.log.bounds(&road.topic).await?;
        let mut from: BTreeMap<u32, u64> = match since {
            Since::Start => BTreeMap::new(),
            Since::Time(at) => road.log.at_time(&road.topic, at).await?,
            Since::Offset(offset) => bounds.keys().map(|number| (*number, offset)).collect(),
        };
        let mut left = BTreeMap::new();
        for (partition, Bounds { start, end }) in bounds {
            let next = from.entry(partition).or_insert(start);
            *next = (*next).clamp(start, end);
            if *next < end {
                left.insert(partition, end);
            }
        }
        let letters = Arc::new(Letters {
            log: Arc::clone(&road.log),
            told: Mutex::default(),
        });
        road.log = Arc::clone(&letters) as _;
        let plan = road.mapping.plan();
        let reader = ReaderKey {
            connection: plan.connection.clone(),
            job: plan.job.clone(),
            reader: reader.to_owned(),
            generation: reader.to_owned(),
        };
        road.target.prepare(plan).await?;
        let mut owned = BTreeMap::new();
        for partition in from.keys() {
            let assignment = road.target.assign(&reader, *partition).await?;
            let (next, epoch) = (assignment.next, assignment.epoch);
            owned.insert(*partition, Owned { next, epoch });
        }
        let lanes = Lanes::new(road.target.side_by_side());
        let owner = Arc::new(Owner {
            road,
            reader,
            since: 0,
            tally: Arc::new(Tally::new()),
            lever: Arc::new(Lever::new(Brakes::OFF)),
            stop,
        });
        let job = Job {
            owner,
            owned,
            lanes,
            replay: None,
        };
        Ok(Self {
            job,
            letters,
            from,
            left,
            replayed: Replayed::default(),
        })
    }

    /// How many offsets are to be read; compaction may have left fewer records.
    #[must_use]
    pub fn size(&self) -> u64 {
        let ends = self.left.iter();
        ends.map(|(partition, end)| end - self.from.get(partition).copied().unwrap_or(*end))
            .sum()
    }

    /// Reads up to the ends; `passed` is told how many offsets lie behind.
    ///
    /// # Errors
    /// `Stopping`; `Unavailable` for a log that stays silent before an end; faults that don't pass.
    pub async fn run(&mut self, mut passed: impl FnMut(u64)) -> Result<(), Fault> {
        let mut reader = self.open().await?;
        let mut until = Instant::now() + PATIENCE;
        while !self.left.is_empty() {
            self.job.owner.stop.check()?;
            match reader.next(MAX_RECORDS, MAX_BYTES, WAIT).await? {
                Delivery::Batch(records) => {
                    self.take(records, &mut passed).await?;
                    until = Instant::now() + PATIENCE;
                }
                Delivery::Idle if Instant::now() < until => {}
                Delivery::Idle => {
                    return Err(Fault::new(
                        FaultKind::Unavailable,
                        format!(
                            "reading topic {}: nothing came for {} s before its end",
                            self.job.owner.road.topic,
                            PATIENCE.as_secs()
                        ),
                    ));
                }
                Delivery::Assigned(_) | Delivery::Revoked(_) => {
                    return Err(Fault::new(
                        FaultKind::Protocol,
                        "log moved a partition of a reader of fixed partitions",
                    ));
                }
            }
        }
        self.job.quiet().await?;
        Ok(())
    }

    async fn open(&self) -> Result<Box<dyn Reader>, Fault> {
        let from = self.left.keys().filter_map(|partition| {
            let next = self.from.get(partition)?;
            Some((*partition, *next))
        });
        let log = &self.job.owner.road.log;
        log.reader(&self.job.owner.road.topic, From::Partitions(from.collect()))
            .await
    }

    async fn take(
        &mut self,
        mut records: Vec<Record>,
        passed: &mut impl FnMut(u64),
    ) -> Result<(), Fault> {
        let Some(last) = records.last() else {
            return Ok(());
        };
        let (partition, reached) = (last.partition, last.offset + 1);
        let Some(end) = self.left.get(&partition).copied() else {
            return Ok(());
        };
        // What came after the ends were taken is not part of the replay.
        records.retain(|record| record.offset < end);
        self.replayed.read += records.len() as u64;
        self.job.begin(records).await?;
        while !self.job.lanes.admits() {
            let landed = self.job.lanes.landed(&self.job.owner).await;
            if self.job.note(landed)? {
                self.job.release().await?;
            }
        }
        let before = self
            .from
            .insert(partition, reached.min(end))
            .unwrap_or(reached);
        passed(reached.min(end).saturating_sub(before));
        if reached >= end {
            self.left.remove(&partition);
        }
        Ok(())
    }

    /// Fills what waits for rows that other jobs' replays have brought since.
    ///
    /// # Errors
    /// As [`Replay::run`].
    pub async fn settle(&mut self) -> Result<(), Fault> {
        self.job.quiet().await?;
        self.job.release().await
    }

    /// What it did.
    #[must_use]
    pub fn finish(mut self) -> Replayed {
        let told = self.letters.told();
        self.replayed.refused = told.count;
        self.replayed.reasons.clone_from(&told.reasons);
        drop(told);
        self.replayed
    }
}

/// A log that is read, and that counts dead letters instead of taking them.
struct Letters {
    log: Arc<dyn Log>,
    told: Mutex<Told>,
}

#[derive(Default)]
struct Told {
    count: u64,
    reasons: Vec<String>,
}

impl Letters {
    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Log for Letters {
    async fn ensure(&self, topic: &TopicSpec) -> Result<String, Fault> {
        self.log.ensure(topic).await
    }

    async fn append(&self, entries: Vec<Entry>) -> Result<Vec<Place>, Fault> {
        let mut told = self.told();
        for entry in &entries {
            told.count += 1;
            if told.reasons.len() < REASONS {
                let mut headers = entry.headers.iter();
                let reason = headers.find(|(name, _)| name == "tributary_reason");
                let reason = reason.map_or(&[][..], |(_, reason)| reason);
                told.reasons.push(format!(
                    "{}: {}",
                    String::from_utf8_lossy(&entry.key),
                    String::from_utf8_lossy(reason)
                ));
            }
        }
        let nowhere = Place {
            partition: 0,
            offset: 0,
        };
        Ok(vec![nowhere; entries.len()])
    }

    async fn bounds(&self, topic: &str) -> Result<BTreeMap<u32, Bounds>, Fault> {
        self.log.bounds(topic).await
    }

    async fn at_time(&self, topic: &str, at: DateTime<Utc>) -> Result<BTreeMap<u32, u64>, Fault> {
        self.log.at_time(topic, at).await
    }

    async fn reader(&self, topic: &str, from: From) -> Result<Box<dyn Reader>, Fault> {
        self.log.reader(topic, from).await
    }

    async fn topics(&self) -> Result<Vec<TopicSpec>, Fault> {
        self.log.topics().await
    }

    async fn close(&self) -> Result<(), Fault> {
        self.log.close().await
    }
}

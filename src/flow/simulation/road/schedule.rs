//! A schedule of the whole road: what happens to org, topics, daemons and groups, drawn from a seed.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use chrono::TimeDelta;

use crate::crm::salesforce::merge::SalesforceTable;
use crate::flow::simulation::faults::Odds;
use crate::flow::simulation::org::{ACCOUNT_ID, Being, Deed, Key, Ms, PARENT_ID, Telling};
use crate::flow::simulation::rng::Rng;
use crate::flow::simulation::world::{LEASE, REACH, World, account, contact};
use crate::log::port::Log;
use crate::model::event::GapCause;
use crate::model::name::{FieldName, ObjectName};
use crate::model::record_id::RecordId;
use crate::model::value::{Fields, Value};
use crate::state::orders::Since;

use super::group::Manner;
use super::jobs::{Jobs, LOST, ODD, POISON, STAGES, deal};
use super::oracle::{Excuses, Found, judge};
use super::seams::Flaw;
use super::witness::Counts;
use super::world::{Replay, RoadWorld, Store};

/// What a schedule may do.
#[derive(Debug, Clone, Copy, Default)]
pub struct Profile {
    pub odds: Odds,
    /// Events out of a thousand delivered twice.
    pub twice: u32,
    /// Job batches out of a thousand that begin too early.
    pub repeats: u32,
    /// Moves of partitions out of a thousand that do not ask the owner.
    pub forced: u32,
    pub restarts: bool,
    pub retention: bool,
    pub gaps: bool,
    pub hard_deletes: bool,
    pub wipes: bool,
    pub takeovers: bool,
    /// A second process that has only jobs.
    pub second: bool,
    /// Values that are refused.
    pub refusals: bool,
    /// Jobs are told to pause, and to go on.
    pub orders: bool,
    /// Jobs replay into the live tables.
    pub replays: bool,
    /// What waits expires within minutes.
    pub expires: bool,
    pub flaw: Flaw,
    pub deeds: usize,
}

/// What a schedule showed besides being right.
#[derive(Debug, Clone, Copy, Default)]
pub struct Stats {
    pub counts: Counts,
    pub found: Found,
    pub changes: usize,
    pub late: usize,
}

impl Stats {
    pub fn add(&mut self, other: &Self) {
        self.counts.add(&other.counts);
        self.found.add(&other.found);
        self.changes += other.changes;
        self.late += other.late;
    }
}

impl Profile {
    /// Everything at once, each switched by the seed.
    pub fn any(rng: &mut Rng) -> Self {
        let mut odd = |share: i64| {
            if rng.one_in(2) {
                0
            } else {
                u32::try_from(rng.between(1, share)).unwrap()
            }
        };
        let odds = Odds {
            error: odd(15),
            lost_reply: odd(15),
            crash: odd(6),
            slow: odd(40),
        };
        let (twice, repeats, forced) = (odd(120), odd(300), odd(1000));
        Self {
            odds,
            twice,
            repeats,
            forced,
            restarts: rng.one_in(2),
            retention: rng.one_in(4),
            gaps: rng.one_in(3),
            hard_deletes: rng.one_in(3),
            wipes: rng.one_in(4),
            takeovers: rng.one_in(4),
            second: rng.one_in(2),
            refusals: rng.one_in(2),
            expires: rng.one_in(5),
            orders: rng.one_in(3),
            flaw: Flaw::None,
            deeds: 20 + rng.below(50),
            replays: rng.one_in(2),
        }
    }
}

/// Runs one schedule to its end.
pub async fn run(seed: u64, profile: Profile, told: bool) -> (Result<Stats, String>, String) {
    let mut rng = Rng::new(seed);
    let mut world = World::new(&SalesforceTable, rng.fork(), profile.twice, told);
    let ttl = if profile.expires {
        TimeDelta::seconds(rng.between(30, 120))
    } else {
        TimeDelta::days(30)
    };
    let jobs = Arc::new(Jobs::draw(&mut rng, ttl));
    world.selected = jobs.selected();
    let manner = Manner {
        most: 1 + rng.below(20),
        repeats: profile.repeats,
    };
    let mut store = Store::new(&world, &jobs, (manner, profile.forced), &mut rng).await;
    (store.flaw, store.parked_ttl) = (profile.flaw, ttl);
    let road = RoadWorld {
        world,
        jobs,
        store,
        hands: Vec::new(),
    };
    let mut run = Run { road, rng, profile };
    run.road.say(|| format!("seed {seed}: {profile:?}"));
    let outcome = run.go().await;
    run.road.crash().await;
    (outcome, run.road.world.chaos.trace.told())
}

struct Run {
    road: RoadWorld,
    rng: Rng,
    profile: Profile,
}

impl Run {
    async fn go(&mut self) -> Result<Stats, String> {
        for _ in 0..self.rng.below(12) {
            self.commit_something();
        }
        self.wait(3000).await?;
        self.road.start("one");
        if self.profile.second {
            self.road.start_jobs("two");
        }
        self.road.world.chaos.set(self.profile.odds);
        for _ in 0..self.profile.deeds {
            self.deed().await?;
        }
        self.come_to_rest().await
    }

    async fn come_to_rest(&mut self) -> Result<Stats, String> {
        self.road.say(|| "come to rest".to_owned());
        self.road.world.chaos.set(Odds::default());
        self.road.tell_all_to_go_on().await;
        while !self.road.world.org.lock().open.is_empty() {
            self.commit(0);
        }
        if self.profile.takeovers {
            // An append that woke up late is met when the owner next looks at the ends of its topics.
            self.road.pass(LEASE * 2).await;
        }
        // Whoever was dying when the faults ended is dead.
        if self.road.pass(Duration::from_secs(5)).await || self.road.world.owners.len() != 1 {
            self.road.crash().await;
            self.road.start("one");
        }
        if self.profile.hard_deletes {
            self.road.world.ask_for_full_sync().await?;
        }
        let ingested = self.road.world.rest().await?;
        let (found, late) = self.settle().await?;
        self.road.stop().await;
        let counts = self.road.store.witness.wrong()?;
        if self.profile.flaw == Flaw::None {
            self.replayed().await?;
        }
        Ok(Stats {
            counts,
            found,
            changes: ingested.changes,
            late,
        })
    }

    fn excuses(&self) -> Excuses {
        Excuses {
            damaged: !self.road.world.damaged.is_empty(),
            expires: self.profile.expires,
            unheard: false,
            flaw: self.profile.flaw,
        }
    }

    /// Waits until every job stands at its topic's end and the store is right; how many minutes that took.
    async fn settle(&self) -> Result<(Found, usize), String> {
        let road = &self.road;
        let mut seconds = 0;
        while let Some(unread) = unread(road).await.or(road.under_way().await) {
            if seconds > 300 {
                return Err(format!("no rest: {unread}"));
            }
            seconds += 1;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        self.judged(&road.store, self.excuses()).await
    }

    /// Judges a store until it is right, a minute after the other: what waits is looked at each minute, and may be
    /// what other things wait for.
    async fn judged(&self, store: &Store, excuses: Excuses) -> Result<(Found, usize), String> {
        let (world, jobs) = (&self.road.world, &self.road.jobs);
        for minutes in 0.. {
            store.witness.wrong()?;
            match judge(world, jobs, &store.target, &store.witness, excuses).await {
                Ok(found) => return Ok((found, minutes)),
                Err(why) if minutes < 8 => self.road.say(|| format!("not yet: {why}")),
                Err(why) => return Err(why),
            }
            tokio::time::sleep(Duration::from_secs(61)).await;
        }
        unreachable!()
    }

    /// J7: whatever the batches and the order in which jobs come, the same store.
    async fn replayed(&mut self) -> Result<(), String> {
        self.road.say(|| "replay".to_owned());
        let mut rng = self.rng.fork();
        let replay = Replay::run(&self.road, &mut rng).await?;
        let excuses = Excuses {
            expires: false,
            unheard: true,
            ..self.excuses()
        };
        let judged = self.judged(&replay.store, excuses).await;
        replay.end().await;
        judged.map_err(|why| format!("replayed: {why}"))?;
        Ok(())
    }

    async fn deed(&mut self) -> Result<(), String> {
        let profile = self.profile;
        match self.rng.below(42 + 2 * usize::from(profile.replays)) {
            0..=13 => self.commit_something(),
            14..=15 => self.begin(Telling::Events, 3),
            16..=17 => {
                let open = self.road.world.org.lock().open.len();
                if open > 0 {
                    let number = self.rng.below(open);
                    self.commit(number);
                }
            }
            18..=27 => self.wait(3000).await?,
            28..=29 => self.wait(12_000).await?,
            30..=31 if profile.restarts => self.restart().await?,
            32 if profile.retention => self.forget_events(),
            33..=34 if profile.wipes => self.wipe().await?,
            35 if profile.takeovers => self.take_over().await?,
            36..=37 => self.road.store.groups.shake(),
            38 => self.wait(30_000).await?,
            39 => self.wait(90_000).await?,
            40..=41 if profile.orders => {
                let number = self.rng.below(self.road.jobs.all.len());
                self.road.tell_otherwise(number).await;
            }
            42..=43 => {
                let number = self.rng.below(self.road.jobs.all.len());
                let from = u64::try_from(self.rng.below(12)).unwrap();
                let since = from.checked_sub(8).map_or(Since::Start, Since::Offset);
                self.road.ask_replay(number, since).await;
            }
            _ => self.commit_something(),
        }
        Ok(())
    }

    /// Lets time pass; a process that died is buried, judged and started again.
    async fn wait(&mut self, at_most: Ms) -> Result<(), String> {
        let time = self.rng.between(0, at_most);
        // No transaction stays open for longer than a window reaches back.
        let oldest = self.road.world.org.lock().open_since();
        if oldest.is_some_and(|since| self.road.world.org.now() + time - since > REACH - 10_000) {
            while !self.road.world.org.lock().open.is_empty() {
                self.commit(0);
            }
        }
        let time = Duration::from_millis(time.unsigned_abs());
        if self.road.pass(time).await {
            self.bury().await?;
        }
        self.road.store.witness.wrong().map(drop)
    }

    async fn bury(&mut self) -> Result<(), String> {
        let owners = &self.road.world.owners;
        let listens = owners.iter().any(|owner| owner.process.is_dead());
        let dead = self.road.hands.iter().map(|hands| &hands.process);
        let dead: Vec<_> = dead.filter(|of| of.is_dead()).cloned().collect();
        if !listens {
            // Only jobs died; the others go on.
            for process in dead {
                self.road.retire(&process).await;
                self.road.start_jobs(process.name);
            }
            return Ok(());
        }
        self.road.crash().await;
        self.road.world.nothing_is_lost().await?;
        if self.rng.one_in(2) {
            let wait = self.rng.between(0, 15_000).unsigned_abs();
            tokio::time::sleep(Duration::from_millis(wait)).await;
        }
        self.begin_again();
        Ok(())
    }

    fn begin_again(&mut self) {
        let jobs_first = self.rng.one_in(2);
        if self.profile.second && jobs_first {
            self.road.start_jobs("two");
        }
        self.road.start("one");
        if self.profile.second && !jobs_first {
            self.road.start_jobs("two");
        }
    }

    async fn restart(&mut self) -> Result<(), String> {
        if self.rng.one_in(2) {
            self.road.stop().await;
        } else {
            self.road.crash().await;
        }
        self.road.world.nothing_is_lost().await?;
        self.begin_again();
        Ok(())
    }

    fn forget_events(&mut self) {
        let keep = self.rng.below(5);
        let mut inner = self.road.world.org.lock();
        inner.first = inner.first.max(inner.stream.len().saturating_sub(keep));
    }

    /// Loses one of the stores while nothing runs. Which losses can't be told together, ingest's own schedules say.
    async fn wipe(&mut self) -> Result<(), String> {
        self.road.crash().await;
        self.road.world.nothing_is_lost().await?;
        let objects: Vec<ObjectName> = self.road.world.selected.keys().cloned().collect();
        let object = self.rng.pick(&objects).unwrap().clone();
        let world = &mut self.road.world;
        let topic = world.topic(&object);
        let now = world.org.now();
        let lossy = match (world.damaged.is_empty(), world.blind) {
            (true, false) if !self.profile.takeovers => &[0, 1, 2, 3][..],
            (true, _) => &[0, 3],
            (false, _) => &[0, 1, 2],
        };
        match self.rng.pick(lossy).copied().unwrap_or(0) {
            0 => {
                world.say(|| "the state is lost".to_owned());
                world.state = Arc::default();
                // A term is never below the clock; a state is not lost and found within the same second.
                tokio::time::sleep(Duration::from_secs(60)).await;
            }
            1 => {
                if world.log.make_again(&topic).is_ok() {
                    world.damaged.insert(object, now);
                    world.say(|| format!("{topic} is made again"));
                }
            }
            2 => {
                world.damaged.insert(object, now);
                if let Ok(bounds) = world.log.bounds(&topic).await {
                    for (partition, bounds) in bounds {
                        let back = u64::try_from(self.rng.below(4)).unwrap();
                        let end = bounds.end.saturating_sub(back);
                        world.log.cut(&topic, partition, end).unwrap();
                    }
                    world.say(|| format!("{topic} is cut back"));
                }
            }
            _ => {
                world.say(|| "the images are lost".to_owned());
                world.blind = true;
                world.images.clear();
            }
        }
        if self.rng.one_in(2) {
            return self.begin_late().await;
        }
        self.begin_again();
        Ok(())
    }

    /// Ingest mends its topics before any job looks at them.
    async fn begin_late(&mut self) -> Result<(), String> {
        self.road.say(|| "the jobs come late".to_owned());
        self.road.world.start("one");
        for _ in 0..self.rng.below(4) {
            self.commit_something();
            let wait = self.rng.between(0, 12_000).unsigned_abs();
            self.road.world.pass(Duration::from_millis(wait)).await;
        }
        if self.road.world.owners[0].process.is_dead() {
            return self.bury().await;
        }
        self.road.put_to_work();
        if self.profile.second {
            self.road.start_jobs("two");
        }
        Ok(())
    }

    /// A daemon stalls for longer than its lease; another takes over its connection and its partitions; the first
    /// wakes up with a batch in hand.
    async fn take_over(&mut self) -> Result<(), String> {
        let chaos = Arc::clone(&self.road.world.chaos);
        if self.rng.one_in(2) {
            chaos.stalls_append.store(true, Ordering::SeqCst);
            self.commit_something();
            self.wait(3000).await?;
            chaos.stalls_append.store(false, Ordering::SeqCst);
        }
        let Some(owner) = self.road.world.owners.last() else {
            return Ok(());
        };
        let first = Arc::clone(&owner.process);
        self.road.say(|| format!("{} stalls", first.name));
        first.stall(true);
        let other = if first.name == "one" { "three" } else { "one" };
        self.road.start(other);
        if self.rng.one_in(2) {
            self.wait(20_000).await?;
        }
        self.road.store.groups.expel(first.name);
        self.wait(40_000).await?;
        self.road.say(|| format!("{} wakes up", first.name));
        first.stall(false);
        self.wait(20_000).await?;
        let mut owners = self.road.world.owners.iter();
        let place = owners.position(|owner| Arc::ptr_eq(&owner.process, &first));
        if place.is_some_and(|place| place + 1 < self.road.world.owners.len()) {
            self.road.retire(&first).await;
        }
        Ok(())
    }

    fn records(&self, life: Being) -> Vec<Key> {
        let inner = self.road.world.org.lock();
        let all = inner.records.iter();
        all.filter(|(key, moments)| {
            moments.last().is_some_and(|last| last.life == life) && !inner.is_locked(key)
        })
        .map(|(key, _)| key.clone())
        .collect()
    }

    fn some_fields(&mut self, object: &ObjectName, at_most: usize) -> Fields {
        let mut told = Fields::new();
        for _ in 0..=self.rng.below(at_most) {
            let (field, value) = match self.rng.below(8) {
                0 => ("Name", self.name()),
                1 => ("City", self.road.world.org.fresh(&mut self.rng)),
                2..=3 => ("Stage", self.stage()),
                4..=5 => (ACCOUNT_ID, self.reference(&account())),
                _ if *object == account() => (PARENT_ID, self.reference(&account())),
                _ => (PARENT_ID, self.reference(&contact())),
            };
            told.insert(FieldName::new(field), value);
        }
        told
    }

    fn name(&mut self) -> Value {
        if self.profile.refusals && self.rng.one_in(6) {
            return Value::from(POISON);
        }
        self.road.world.org.fresh(&mut self.rng)
    }

    fn stage(&mut self) -> Value {
        match self.rng.below(8) {
            0 => Value::Null,
            1..=2 => Value::from(LOST),
            3 if self.profile.refusals => Value::from(ODD),
            other => Value::from(STAGES[other % 2].0),
        }
    }

    /// A record of the object, living or dead, or one that may come, or none.
    fn reference(&mut self, object: &ObjectName) -> Value {
        let inner = self.road.world.org.lock();
        let of = inner.records.keys().filter(|key| key.0 == *object);
        let known: Vec<RecordId> = of.map(|key| key.1.clone()).collect();
        let count = inner.records.len();
        drop(inner);
        match (self.rng.below(8), self.rng.pick(&known)) {
            (0, _) => Value::Null,
            (1..=5, Some(record)) => Value::from(record.as_str()),
            _ => Value::from(&*record_name(count + self.rng.below(4))),
        }
    }

    fn some_deed(&mut self) -> Option<(Key, Deed)> {
        let (live, binned) = (self.records(Being::Live), self.records(Being::Binned));
        match self.rng.below(12) {
            0..=3 => {
                let object = match self.rng.below(3) {
                    0 => account(),
                    1 => contact(),
                    _ => deal(),
                };
                let number = self.road.world.org.lock().records.len();
                let record = RecordId::stored(record_name(number));
                let told = self.some_fields(&object, 5);
                Some(((object, record), Deed::Create(told)))
            }
            4..=8 => {
                let key = self.rng.pick(&live)?.clone();
                let told = self.some_fields(&key.0, 2);
                Some((key, Deed::Update(told)))
            }
            9 => Some((self.rng.pick(&live)?.clone(), Deed::Delete)),
            10 => Some((self.rng.pick(&binned)?.clone(), Deed::Undelete)),
            _ if self.profile.hard_deletes => {
                let all: Vec<Key> = live.into_iter().chain(binned).collect();
                Some((self.rng.pick(&all)?.clone(), Deed::HardDelete))
            }
            _ => {
                let key = self.rng.pick(&live)?.clone();
                let told = self.some_fields(&key.0, 1);
                Some((key, Deed::Update(told)))
            }
        }
    }

    fn telling(&mut self) -> Telling {
        if !self.profile.gaps || !self.rng.one_in(5) {
            return Telling::Events;
        }
        match self.rng.below(4) {
            0 => Telling::ObjectGap(GapCause::Overflow),
            _ => Telling::Gap,
        }
    }

    fn commit_something(&mut self) {
        let (telling, count) = (self.telling(), 1 + self.rng.below(3));
        let before = self.road.world.org.lock().open.len();
        self.begin(telling, count);
        let after = self.road.world.org.lock().open.len();
        if after > before {
            self.commit(after - 1);
        }
    }

    fn begin(&mut self, telling: Telling, count: usize) {
        let deeds: Vec<(Key, Deed)> = (0..count).filter_map(|_| self.some_deed()).collect();
        self.road.world.org.begin(telling, &deeds);
    }

    fn commit(&mut self, number: usize) {
        let delay = if self.rng.one_in(3) {
            self.rng.between(0, 2500)
        } else {
            0
        };
        let told = self.road.world.org.commit(number, delay);
        self.road.say(|| told);
    }
}

/// What a job has not read yet.
pub async fn unread(road: &RoadWorld) -> Option<String> {
    let (world, jobs) = (&road.world, &road.jobs);
    road.store.unread(world, jobs, &*world.state).await
}

fn record_name(number: usize) -> String {
    format!("r{:03}", number * 37 % 1000)
}

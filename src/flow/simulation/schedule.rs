//! A schedule: what happens in a world, deed after deed, drawn from a seed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::image::merge::MergeTable;
use crate::model::event::GapCause;
use crate::model::name::{FieldName, ObjectName};
use crate::model::policy::Refresh;
use crate::model::record_id::RecordId;
use crate::model::value::{Fields, Value};
use crate::runtime::clock::Clock;
use crate::state::port::{Hinted, State};

use super::faults::Odds;
use super::oracle::Stats;
use super::org::{ACCOUNT_ID, Being, Deed, Key, PARENT_ID, TOLD, Telling};
use super::rng::Rng;
use super::world::{LEASE, REACH, World, account, contact, fields};

/// What is selected of contacts that have fields of parents.
const JOINED: [&str; 4] = ["Name", "City", "Account.Name", "Account.Parent.City"];

/// What a schedule may do besides the org's own life.
#[derive(Debug, Clone, Copy, Default)]
pub struct Profile {
    pub odds: Odds,
    /// Events out of a thousand delivered twice.
    pub twice: u32,
    pub restarts: bool,
    pub retention: bool,
    pub gaps: bool,
    pub hard_deletes: bool,
    pub wipes: bool,
    pub takeovers: bool,
    pub selections: bool,
    /// No formula is selected, so that no update owes a read that heals what was merged wrongly.
    pub plain: bool,
    /// A push tells of records to which something happened, or nothing.
    pub hints: bool,
    /// Contacts have fields of their account, and of its parent.
    pub joins: bool,
    /// Formulas wait for full syncs.
    pub late: bool,
    /// The state is broken on purpose.
    pub forgets_debts: bool,
    pub deeds: usize,
}

impl Profile {
    /// Everything at once, each switched by the seed, so that faults meet alone as well as together.
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
            crash: odd(10),
            slow: odd(60),
        };
        let twice = odd(120);
        Self {
            odds,
            twice,
            restarts: rng.one_in(2),
            retention: rng.one_in(3),
            gaps: rng.one_in(2),
            hard_deletes: rng.one_in(2),
            wipes: rng.one_in(4),
            takeovers: rng.one_in(4),
            selections: rng.one_in(4),
            plain: rng.one_in(3),
            forgets_debts: false,
            deeds: 20 + rng.below(60),
            hints: rng.one_in(3),
            joins: rng.one_in(3),
            late: rng.one_in(3),
        }
    }

    /// Nothing is lost on the way, so every event must be published exactly once.
    pub fn is_lossless(&self) -> bool {
        !(self.retention || self.wipes || self.takeovers || self.selections)
    }
}

/// Runs one schedule to its end.
pub async fn run(
    seed: u64,
    profile: Profile,
    table: &'static dyn MergeTable,
    told: bool,
) -> (Result<Stats, String>, String) {
    let mut rng = Rng::new(seed);
    let world = World::new(table, rng.fork(), profile.twice, told);
    let mut run = Run {
        world,
        rng,
        profile,
    };
    run.world.say(|| format!("seed {seed}: {profile:?}"));
    let outcome = run.go().await;
    run.world.crash().await;
    (outcome, run.world.chaos.trace.told())
}

struct Run {
    world: World,
    rng: Rng,
    profile: Profile,
}

impl Run {
    async fn go(&mut self) -> Result<Stats, String> {
        for _ in 0..self.rng.below(8) {
            self.commit_something();
        }
        if self.rng.one_in(2) {
            self.world
                .selected
                .insert(contact(), fields(&["Name", "City"]));
        }
        if self.profile.plain {
            let plain = fields(&["Name", "City"]);
            self.world.selected.insert(account(), plain);
        }
        if self.profile.joins {
            self.world.selected.insert(contact(), fields(&JOINED));
            if self.rng.one_in(2) {
                self.world.children_a_step = 1;
            }
        }
        if self.profile.late {
            self.world.refresh = Refresh::FullSync;
        }
        self.wait(3000).await?;
        self.world.start("one");
        self.world.chaos.set(self.profile.odds);
        let forgets = self.profile.forgets_debts;
        self.world
            .chaos
            .forgets_debts
            .store(forgets, Ordering::SeqCst);
        for _ in 0..self.profile.deeds {
            self.deed().await?;
        }
        self.come_to_rest().await
    }

    async fn come_to_rest(&mut self) -> Result<Stats, String> {
        self.world.say(|| "come to rest".to_owned());
        self.world.chaos.set(Odds::default());
        while !self.world.org.lock().open.is_empty() {
            self.commit(0);
        }
        if self.profile.takeovers {
            // An append that woke up late is met when the owner next looks at the ends of its topics.
            self.world.pass(LEASE * 2).await;
        }
        // Whoever was dying when the faults ended is dead.
        if self.world.pass(Duration::from_secs(5)).await || self.world.owners.len() != 1 {
            self.world.crash().await;
            self.world.start("one");
        }
        let unheard = self.profile.joins && !self.world.selected.contains_key(&account());
        if self.profile.hard_deletes || self.profile.late || unheard {
            // No event tells of them, nor of formulas, nor of parents that no job reads; a scheduled full sync does.
            self.world.ask_for_full_sync().await?;
        }
        let stats = self.world.rest().await?;
        let before = self.world.reads();
        self.world.pass(Duration::from_secs(30)).await;
        let idle = self.world.reads() - before;
        if idle > 0 {
            return Err(format!("{idle} reads while nothing was owed"));
        }
        Ok(stats)
    }

    async fn deed(&mut self) -> Result<(), String> {
        let profile = self.profile;
        if profile.hints && self.rng.one_in(4) {
            self.hint().await;
        }
        match self.rng.below(40) {
            0..=12 => self.commit_something(),
            13..=15 => self.begin(Telling::Events, 3),
            16 => self.say_more(),
            17..=18 => {
                let open = self.world.org.lock().open.len();
                if open > 0 {
                    let number = self.rng.below(open);
                    self.commit(number);
                }
            }
            19..=29 => self.wait(3000).await?,
            30..=31 => self.wait(12_000).await?,
            32..=33 if profile.restarts => self.restart().await?,
            34 if profile.retention => self.forget_events(),
            35..=36 if profile.wipes => self.wipe().await?,
            37 if profile.takeovers => self.take_over().await?,
            38 if profile.selections => self.select().await?,
            39 => self.wait(30_000).await?,
            _ => self.commit_something(),
        }
        Ok(())
    }

    /// Lets time pass; a process that died is buried, judged and started again.
    async fn wait(&mut self, at_most: i64) -> Result<(), String> {
        let time = self.rng.between(0, at_most);
        // No transaction stays open for longer than a window reaches back.
        let oldest = self.world.org.lock().open_since();
        if oldest.is_some_and(|since| self.world.org.now() + time - since > REACH - 10_000) {
            self.commit(0);
        }
        let time = Duration::from_millis(time.unsigned_abs());
        if self.world.pass(time).await {
            self.bury().await?;
        }
        Ok(())
    }

    async fn bury(&mut self) -> Result<(), String> {
        self.world.crash().await;
        self.world.nothing_is_lost().await?;
        if self.rng.one_in(2) {
            let wait = self.rng.between(0, 15_000).unsigned_abs();
            tokio::time::sleep(Duration::from_millis(wait)).await;
        }
        self.world.start("one");
        Ok(())
    }

    async fn restart(&mut self) -> Result<(), String> {
        if self.rng.one_in(2) {
            self.world.stop().await;
            self.world.nothing_is_lost().await?;
            self.world.start("one");
            Ok(())
        } else {
            self.bury().await
        }
    }

    fn forget_events(&mut self) {
        let keep = self.rng.below(5);
        let mut inner = self.world.org.lock();
        inner.first = inner.first.max(inner.stream.len().saturating_sub(keep));
        let first = inner.first;
        drop(inner);
        self.world
            .say(|| format!("events before {first} are no longer held"));
        if self.rng.one_in(3) {
            let now = self.world.org.now();
            self.world.org.lock().graves_from = now - self.rng.between(0, 90_000);
        }
    }

    /// Loses one of the stores while nothing runs.
    async fn wipe(&mut self) -> Result<(), String> {
        self.world.crash().await;
        self.world.nothing_is_lost().await?;
        let objects: Vec<ObjectName> = self.world.selected.keys().cloned().collect();
        let object = self.rng.pick(&objects).unwrap().clone();
        let topic = self.world.topic(&object);
        let now = self.world.org.now();
        // Images tell that their topic is another. A topic damaged while they are lost, or under a machine whose
        // images are old, is told by nothing.
        let lossy = match (self.world.damaged.is_empty(), self.world.blind) {
            (true, false) if !self.profile.takeovers => &[0, 1, 2, 3][..],
            (true, _) => &[0, 3],
            (false, _) => &[0, 1, 2],
        };
        match self.rng.pick(lossy).copied().unwrap_or(0) {
            0 => {
                self.world.say(|| "the state is lost".to_owned());
                self.world.state = std::sync::Arc::default();
                // A term is never below the clock; a state is not lost and found within the same second.
                tokio::time::sleep(Duration::from_secs(60)).await;
            }
            1 => {
                if self.world.log.make_again(&topic).is_ok() {
                    self.world.damaged.insert(object, now);
                    self.world.say(|| format!("{topic} is made again"));
                }
            }
            2 => {
                self.world.damaged.insert(object, now);
                self.cut(&topic).await;
            }
            _ => {
                self.world.say(|| "the images are lost".to_owned());
                self.world.blind = true;
                self.world.images.clear();
            }
        }
        self.world.start("one");
        Ok(())
    }

    /// A broker is restored from a backup.
    async fn cut(&mut self, topic: &str) {
        use crate::log::port::Log;
        let Ok(bounds) = self.world.log.bounds(topic).await else {
            return;
        };
        for (partition, bounds) in bounds {
            let back = u64::try_from(self.rng.below(4)).unwrap();
            let end = bounds.end.saturating_sub(back);
            self.world.log.cut(topic, partition, end).unwrap();
        }
        self.world.say(|| format!("{topic} is cut back"));
    }

    /// The owner stalls for longer than its lease; another takes over; the first wakes up.
    async fn take_over(&mut self) -> Result<(), String> {
        let append = Arc::clone(&self.world.chaos);
        if self.rng.one_in(2) {
            // It stalls in the middle of its next append.
            append.stalls_append.store(true, Ordering::SeqCst);
            self.commit_something();
            self.wait(3000).await?;
            append.stalls_append.store(false, Ordering::SeqCst);
        }
        let Some(owner) = self.world.owners.last() else {
            return Ok(());
        };
        let first = Arc::clone(&owner.process);
        self.world.say(|| format!("{} stalls", first.name));
        first.stall(true);
        let other = if first.name == "one" { "two" } else { "one" };
        self.world.start(other);
        self.wait(40_000).await?;
        self.world.say(|| format!("{} wakes up", first.name));
        first.stall(false);
        self.wait(20_000).await?;
        // The machine that woke up is taken away; what it did while awake stays.
        let mut owners = self.world.owners.iter();
        let place = owners.position(|owner| Arc::ptr_eq(&owner.process, &first));
        if let Some(place) = place
            && place + 1 < self.world.owners.len()
        {
            self.world.retire(place).await;
        }
        Ok(())
    }

    /// The jobs select something else.
    async fn select(&mut self) -> Result<(), String> {
        self.world.stop().await;
        self.world.nothing_is_lost().await?;
        self.world.selected.clear();
        let mut some = fields(&["Name"]);
        for more in ["City", "F", "Stage"] {
            if self.rng.one_in(2) {
                some.insert(FieldName::new(more));
            }
        }
        self.world.selected.insert(account(), some);
        if self.rng.one_in(2) {
            self.world
                .selected
                .insert(contact(), fields(&["Name", "Stage"]));
        }
        if self.profile.joins {
            self.world.selected.insert(contact(), fields(&JOINED));
            if self.rng.one_in(3) {
                self.world.selected.remove(&account());
            }
        }
        self.world.start("one");
        Ok(())
    }

    /// Hints of any records, dead ones and such as nobody selects among them, as an inbox takes them.
    async fn hint(&mut self) {
        let all: Vec<Key> = self.world.org.lock().records.keys().cloned().collect();
        let mut hints = Vec::new();
        for _ in 0..=self.rng.below(3) {
            if let Some((object, record)) = self.rng.pick(&all).cloned() {
                let at = self.world.clock.now();
                hints.push(Hinted { object, record, at });
            }
        }
        self.world.say(|| format!("hints of {hints:?}"));
        let (state, connection) = (&self.world.state, &self.world.connection);
        state.hint(connection, hints).await.unwrap();
    }

    fn records(&self, life: Being) -> Vec<Key> {
        let inner = self.world.org.lock();
        let all = inner.records.iter();
        all.filter(|(key, moments)| {
            moments.last().is_some_and(|last| last.life == life) && !inner.is_locked(key)
        })
        .map(|(key, _)| key.clone())
        .collect()
    }

    fn some_fields(&mut self, at_most: usize) -> Fields {
        let mut told = Fields::new();
        for _ in 0..=self.rng.below(at_most) {
            let field = FieldName::new(TOLD[self.rng.below(TOLD.len())]);
            told.insert(field, self.world.org.fresh(&mut self.rng));
        }
        told
    }

    /// Now and then the record moves to another parent, which may be dead, or to none.
    fn refer(&mut self, object: &ObjectName, told: &mut Fields) {
        if !self.profile.joins || self.rng.one_in(2) {
            return;
        }
        let inner = self.world.org.lock();
        let accounts = inner.records.keys().filter(|key| key.0 == account());
        let accounts: Vec<Key> = accounts.cloned().collect();
        drop(inner);
        let none = self.rng.one_in(5);
        let parent = self.rng.pick(&accounts).filter(|_| !none);
        let id = parent.map_or(Value::Null, |(_, id)| Value::from(id.as_str()));
        let reference = if *object == account() {
            PARENT_ID
        } else {
            ACCOUNT_ID
        };
        told.insert(FieldName::new(reference), id);
    }

    fn some_deed(&mut self) -> Option<(Key, Deed)> {
        let (live, binned) = (self.records(Being::Live), self.records(Being::Binned));
        match self.rng.below(10) {
            0..=1 => {
                let object = if self.rng.one_in(3) {
                    contact()
                } else {
                    account()
                };
                let number = self.world.org.lock().records.len() * 37 % 1000;
                let record = RecordId::stored(format!("r{number:03}"));
                let mut told = self.some_fields(4);
                self.refer(&object, &mut told);
                Some(((object, record), Deed::Create(told)))
            }
            2..=6 => {
                let key = self.rng.pick(&live)?.clone();
                let mut told = self.some_fields(2);
                self.refer(&key.0, &mut told);
                Some((key, Deed::Update(told)))
            }
            7 => Some((self.rng.pick(&live)?.clone(), Deed::Delete)),
            8 => Some((self.rng.pick(&binned)?.clone(), Deed::Undelete)),
            _ if self.profile.hard_deletes => {
                let all: Vec<Key> = live.into_iter().chain(binned).collect();
                Some((self.rng.pick(&all)?.clone(), Deed::HardDelete))
            }
            _ => {
                let key = self.rng.pick(&live)?.clone();
                Some((key, Deed::Update(self.some_fields(1))))
            }
        }
    }

    fn telling(&mut self) -> Telling {
        if !self.profile.gaps || !self.rng.one_in(5) {
            return if self.rng.one_in(6) {
                Telling::Merged
            } else {
                Telling::Events
            };
        }
        match self.rng.below(6) {
            0 => Telling::ObjectGap(GapCause::Overflow),
            1 => Telling::ObjectGap(GapCause::Wildcard),
            2 => Telling::ObjectGap(GapCause::Undecodable),
            _ => Telling::Gap,
        }
    }

    fn commit_something(&mut self) {
        let telling = self.telling();
        if telling == Telling::Merged {
            self.same_to_many();
            return;
        }
        let count = 1 + self.rng.below(2);
        self.begin(telling, count);
        let last = self.world.org.lock().open.len();
        if last > 0 {
            self.commit(last - 1);
        }
    }

    fn same_to_many(&mut self) {
        let told = self.some_fields(1);
        let live = self.records(Being::Live);
        let mut many = BTreeSet::new();
        for _ in 0..3 {
            many.extend(self.rng.pick(&live).cloned());
        }
        let delete = self.rng.one_in(4);
        let deeds: Vec<(Key, Deed)> = many
            .into_iter()
            .map(|key| {
                let deed = if delete {
                    Deed::Delete
                } else {
                    Deed::Update(told.clone())
                };
                (key, deed)
            })
            .collect();
        let delay = self.delay();
        if let Some(told) = self.world.org.at_once(Telling::Merged, &deeds, delay) {
            self.world.say(|| told);
        }
    }

    fn begin(&mut self, telling: Telling, count: usize) {
        let deeds: Vec<(Key, Deed)> = (0..count).filter_map(|_| self.some_deed()).collect();
        self.world.org.begin(telling, &deeds);
    }

    /// One more statement in an open transaction, on one of its own records.
    fn say_more(&mut self) {
        let open = self.world.org.lock().open.len();
        if open == 0 {
            return;
        }
        let number = self.rng.below(open);
        let own = self.world.org.lock().open[number].records();
        if let Some(key) = self.rng.pick(&own).cloned() {
            let deed = Deed::Update(self.some_fields(2));
            self.world.org.statement(number, &key, &deed);
        }
    }

    fn commit(&mut self, number: usize) {
        let delay = self.delay();
        let told = self.world.org.commit(number, delay);
        self.world.say(|| told);
    }

    fn delay(&mut self) -> i64 {
        if self.rng.one_in(3) {
            self.rng.between(0, 2500)
        } else {
            0
        }
    }
}

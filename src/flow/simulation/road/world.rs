//! A world with the whole road: daemons that listen and apply, one store, one group per job.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use tokio::task::JoinHandle;

use crate::config::job::Brakes;
use crate::flow::board::Board;
use crate::flow::job::{JobRoad, keep};
use crate::flow::simulation::faults::{Guarded, Process};
use crate::flow::simulation::rng::Rng;
use crate::flow::simulation::world::World;
use crate::log::port::Log;
use crate::model::name::{JobId, ObjectName};
use crate::runtime::clock::Clock;
use crate::runtime::shutdown::StopSignal;
use crate::state::memory::MemoryState;
use crate::state::orders::{Order, Orders, Replay as LiveReplay, Since};
use crate::state::port::State;
use crate::target::memory::MemoryTarget;
use crate::target::port::Target;
use crate::telemetry::metrics::Metrics;

use super::group::{Groups, Manner};
use super::jobs::Jobs;
use super::seams::{Flaw, JobLog, SimTarget};
use super::witness::Witness;

/// What a store and its jobs need.
pub struct Store {
    pub target: Arc<MemoryTarget>,
    pub witness: Arc<Witness>,
    pub groups: Arc<Groups>,
    pub manner: Manner,
    pub flaw: Flaw,
    pub parked_ttl: TimeDelta,
}

pub struct RoadWorld {
    pub world: World,
    pub jobs: Arc<Jobs>,
    pub store: Store,
    /// The jobs of each process that runs.
    pub hands: Vec<Hands>,
}

/// A process's jobs.
pub struct Hands {
    pub process: Arc<Process>,
    stop: StopSignal,
    tasks: Vec<JoinHandle<()>>,
}

impl Store {
    pub async fn new(
        world: &World,
        jobs: &Arc<Jobs>,
        (manner, forced): (Manner, u32),
        rng: &mut Rng,
    ) -> Self {
        let objects = jobs.all.iter().map(|job| job.object.clone());
        let topics: BTreeMap<ObjectName, String> = objects
            .map(|object| (object.clone(), world.topic(&object)))
            .collect();
        let trace = world.chaos.trace.clone();
        let target = MemoryTarget::new();
        target.ensure(&jobs.objects).await.unwrap();
        Self {
            target: Arc::new(target),
            witness: Arc::new(Witness::new(&world.log, jobs, topics, trace.clone())),
            groups: Arc::new(Groups::new(rng.fork(), forced, trace)),
            manner,
            flaw: Flaw::None,
            parked_ttl: TimeDelta::days(30),
        }
    }

    /// Runs every job in a process.
    fn employ(
        &self,
        world: &World,
        jobs: &Jobs,
        state: &Arc<MemoryState>,
        process: &Arc<Process>,
        stop: &StopSignal,
    ) -> Hands {
        let tasks = jobs.all.iter().map(|job| {
            let road = JobRoad {
                mapping: Arc::clone(&job.mapping),
                topic: world.topic(&job.object).into(),
                log: Arc::new(JobLog {
                    inner: Arc::clone(&world.log),
                    groups: Arc::clone(&self.groups),
                    process: Arc::clone(process),
                    witness: Arc::clone(&self.witness),
                    manner: self.manner,
                }),
                target: Arc::new(SimTarget {
                    inner: Arc::clone(&self.target),
                    process: Arc::clone(process),
                    witness: Arc::clone(&self.witness),
                    flaw: self.flaw,
                }),
                state: Arc::new(Guarded {
                    inner: Arc::clone(state) as Arc<dyn State>,
                    process: Arc::clone(process),
                }),
                clock: Arc::new(world.clock),
                metrics: Metrics::none(),
                board: Arc::<Board>::default(),
                parked_ttl: self.parked_ttl,
                brakes: Brakes::OFF,
                retry: (Duration::from_millis(250), Duration::from_secs(4)),
            };
            tokio::spawn(keep(road, stop.clone()))
        });
        Hands {
            process: Arc::clone(process),
            stop: stop.clone(),
            tasks: tasks.collect(),
        }
    }

    /// Whether every job stands at its topic's end; else what does not.
    pub async fn unread(&self, world: &World, jobs: &Jobs, state: &dyn State) -> Option<String> {
        for job in &jobs.all {
            let topic = world.topic(&job.object);
            let spec = crate::flow::road::topic_spec(&topic);
            let mut generation = world.log.ensure(&spec).await.unwrap();
            let stored = state.object(&world.connection, &job.object).await.unwrap();
            if let Some(term) = stored.topic_since {
                generation = format!("{generation}/{term}");
            }
            for (partition, bounds) in world.log.bounds(&topic).await.unwrap() {
                let next = self.witness.next(job.id, &generation, partition);
                if next != bounds.end {
                    let id = job.id;
                    return Some(format!("{id} {partition} is at {next} of {bounds:?}"));
                }
            }
        }
        None
    }
}

impl RoadWorld {
    pub fn say(&self, line: impl FnOnce() -> String) {
        self.world.say(line);
    }

    /// Starts a daemon: ingest and jobs.
    pub fn start(&mut self, name: &'static str) {
        self.world.start(name);
        self.put_to_work();
    }

    /// Starts the jobs of the daemon that listens already.
    pub fn put_to_work(&mut self) {
        let owner = self.world.owners.last().unwrap();
        let (process, stop) = (Arc::clone(&owner.process), owner.stop.clone());
        self.employ(&process, &stop);
    }

    /// Starts a process that has only jobs.
    pub fn start_jobs(&mut self, name: &'static str) {
        self.say(|| format!("start the jobs of {name}"));
        let process = Process::new(name, Arc::clone(&self.world.chaos));
        self.employ(&process, &StopSignal::new());
    }

    fn employ(&mut self, process: &Arc<Process>, stop: &StopSignal) {
        let state = Arc::clone(&self.world.state);
        let hands = self
            .store
            .employ(&self.world, &self.jobs, &state, process, stop);
        self.hands.push(hands);
    }

    /// Tells a job to pause, or to go on if it was told to pause.
    pub async fn tell_otherwise(&self, number: usize) {
        let id = self.jobs.all[number].id;
        let (state, acme, job) = (&self.world.state, &self.world.connection, JobId::new(id));
        loop {
            let standing = state.standing(acme, &job).await.unwrap();
            let order = Order {
                paused: !standing.order.paused,
                replay: standing.order.replay,
                ..Order::default()
            };
            let paused = order.paused;
            // Whoever replays says how far it is.
            let given = state.give(acme, &job, standing.revision, order).await;
            if given.unwrap() {
                self.say(|| format!("{id} is told: paused {paused}"));
                return;
            }
        }
    }

    /// Has a job read its topic again into the live tables, or gives up the replay that is under way.
    pub async fn ask_replay(&self, number: usize, since: Since) {
        let id = self.jobs.all[number].id;
        let (state, acme, job) = (&self.world.state, &self.world.connection, JobId::new(id));
        let standing = state.standing(acme, &job).await.unwrap();
        let replay = LiveReplay::new(since, None, self.world.clock.now());
        self.say(|| format!("{id} is to replay: {}", replay.id));
        let order = Order {
            replay: Some(replay),
            ..standing.order
        };
        // Who was quicker has noted how far another one is.
        let given = state.give(acme, &job, standing.revision, order).await;
        given.unwrap();
    }

    /// A replay into the live tables that has not ended.
    pub async fn under_way(&self) -> Option<String> {
        let (state, acme) = (&self.world.state, &self.world.connection);
        for job in &self.jobs.all {
            let standing = state.standing(acme, &JobId::new(job.id)).await;
            let replay = standing.unwrap().order.replay;
            if let Some(replay) = replay.filter(LiveReplay::is_under_way) {
                return Some(format!("{} replays: {replay:?}", job.id));
            }
        }
        None
    }

    pub async fn tell_all_to_go_on(&self) {
        for number in 0..self.jobs.all.len() {
            let job = JobId::new(self.jobs.all[number].id);
            let standing = self
                .world
                .state
                .standing(&self.world.connection, &job)
                .await;
            if standing.unwrap().order.paused {
                self.tell_otherwise(number).await;
            }
        }
    }

    /// Ends every process where it stands; the store is opened again.
    pub async fn crash(&mut self) {
        for hands in &self.hands {
            hands.process.kill();
        }
        self.world.crash().await;
        for hands in std::mem::take(&mut self.hands) {
            hands.end().await;
        }
        self.store.target = Arc::new(self.store.target.reopen());
    }

    /// Takes one process away where it stands.
    pub async fn retire(&mut self, process: &Arc<Process>) {
        let is = |of: &Arc<Process>| Arc::ptr_eq(of, process);
        if let Some(at) = self.world.owners.iter().position(|of| is(&of.process)) {
            self.world.retire(at).await;
        }
        if let Some(at) = self.hands.iter().position(|of| is(&of.process)) {
            self.hands.remove(at).end().await;
        }
    }

    /// Stops every process politely.
    pub async fn stop(&mut self) {
        let mut all = std::mem::take(&mut self.hands);
        for hands in &all {
            hands.process.stall(false);
            hands.stop.stop();
        }
        self.world.stop().await;
        for hands in &mut all {
            for task in &mut hands.tasks {
                // Its process may have died on the way.
                let patience = Duration::from_secs(30);
                if tokio::time::timeout(patience, &mut *task).await.is_err() {
                    assert!(hands.process.is_dead(), "a job does not stop");
                    task.abort();
                }
            }
        }
    }

    /// Lets time pass; whether a process died meanwhile.
    pub async fn pass(&self, time: Duration) -> bool {
        let died = self.world.pass(time).await;
        died || self.hands.iter().any(|hands| hands.process.is_dead())
    }
}

impl Hands {
    pub async fn end(self) {
        self.process.kill();
        for task in self.tasks {
            task.abort();
            task.await.ok();
        }
    }
}

/// Jobs alone over the whole of every topic, into an empty store.
pub struct Replay {
    pub store: Store,
    hands: Hands,
}

impl Replay {
    /// Starts, and waits until every topic is read.
    pub async fn run(road: &RoadWorld, rng: &mut Rng) -> Result<Self, String> {
        let manner = Manner {
            most: 1 + rng.below(12),
            repeats: 0,
        };
        let (world, jobs) = (&road.world, &road.jobs);
        let store = Store::new(world, jobs, (manner, 0), rng).await;
        let process = Process::new("replay", Arc::clone(&world.chaos));
        let (state, stop) = (Arc::<MemoryState>::default(), StopSignal::new());
        let hands = store.employ(world, jobs, &state, &process, &stop);
        for _ in 0..600 {
            if store.unread(world, jobs, &*state).await.is_none() {
                return Ok(Self { store, hands });
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        Err("a replay does not end".to_owned())
    }

    pub async fn end(self) {
        self.hands.end().await;
    }
}

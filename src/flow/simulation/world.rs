//! A world: an org, what is stored, and the processes that own its connection one after another.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::TimeDelta;
use tokio::task::JoinHandle;

use crate::crm::port::Crm;
use crate::flow::board::Board;
use crate::flow::connection::{Selected, keep};
use crate::flow::road::{Reading, Road, Settings, topic_name};
use crate::image::memory::MemoryImages;
use crate::image::merge::MergeTable;
use crate::image::port::ImageStore;
use crate::log::memory::MemoryLog;
use crate::log::port::Log;
use crate::model::name::{ConnectionId, FieldName, ObjectKey, ObjectName};
use crate::model::policy::{OnLostField, Refresh};
use crate::runtime::clock::VirtualClock;
use crate::runtime::shutdown::StopSignal;
use crate::schedule::Timetable;
use crate::state::memory::MemoryState;
use crate::state::port::State;
use crate::telemetry::metrics::Metrics;

use super::crm::{LAG, SimCrm};
use super::faults::{Chaos, Guarded, Process};
use super::org::{Ms, Org, date};
use super::rng::Rng;
use super::trace::Trace;

/// When every world begins.
pub const ZERO: Ms = 1_800_000_000_000;
/// How long a window read reaches back: no transaction of these worlds takes longer.
pub const REACH: Ms = 60_000;
pub const LEASE: Duration = Duration::from_secs(10);

pub struct World {
    pub org: Arc<Org>,
    pub chaos: Arc<Chaos>,
    pub log: Arc<MemoryLog>,
    /// Each machine's own.
    pub images: BTreeMap<&'static str, Arc<MemoryImages>>,
    pub state: Arc<MemoryState>,
    pub selected: Selected,
    /// What the jobs say of formulas.
    pub refresh: Refresh,
    /// When full syncs are due.
    pub full_syncs: BTreeMap<ObjectName, Vec<Timetable>>,
    pub clock: VirtualClock,
    pub connection: ConnectionId,
    table: &'static dyn MergeTable,
    rng: Mutex<Rng>,
    twice: u32,
    pub owners: Vec<Owner>,
    /// Objects whose topic lost records, and when: until a process notices, nobody can know.
    pub damaged: BTreeMap<ObjectName, Ms>,
    /// Images were lost once.
    pub blind: bool,
    /// How many children one step tells.
    pub children_a_step: usize,
}

/// A process that keeps, or would keep, the connection.
pub struct Owner {
    pub process: Arc<Process>,
    pub stop: StopSignal,
    pub board: Arc<Board>,
    task: JoinHandle<()>,
}

pub fn account() -> ObjectName {
    ObjectName::new("Account")
}

pub fn contact() -> ObjectName {
    ObjectName::new("Contact")
}

pub fn fields(names: &[&str]) -> BTreeSet<FieldName> {
    names.iter().map(|name| FieldName::new(*name)).collect()
}

impl World {
    pub fn new(table: &'static dyn MergeTable, mut rng: Rng, twice: u32, told: bool) -> Self {
        let clock = VirtualClock::new(date(ZERO));
        let trace = Trace::new(clock, told);
        Self {
            org: Arc::new(Org::new(clock)),
            chaos: Arc::new(Chaos::new(rng.fork(), trace)),
            log: Arc::new(MemoryLog::new(Arc::new(clock))),
            images: BTreeMap::new(),
            state: Arc::default(),
            selected: BTreeMap::from([(account(), fields(&["Name", "City", "F"]))]),
            refresh: Refresh::OnChange,
            full_syncs: BTreeMap::new(),
            clock,
            connection: ConnectionId::new("acme"),
            table,
            rng: Mutex::new(rng.fork()),
            twice,
            owners: Vec::new(),
            damaged: BTreeMap::new(),
            blind: false,
            children_a_step: Settings::default().children_a_step,
        }
    }

    pub fn say(&self, line: impl FnOnce() -> String) {
        self.chaos.trace.say(line);
    }

    pub fn topic(&self, object: &ObjectName) -> String {
        topic_name("tributary", &self.connection, object)
    }

    pub fn key(&self, object: &ObjectName) -> ObjectKey {
        ObjectKey {
            connection: self.connection.clone(),
            object: object.clone(),
        }
    }

    fn road(&mut self, process: &Arc<Process>) -> Road {
        let images = self.images.entry(process.name).or_default();
        let guard = Arc::clone(process);
        let crm: Arc<dyn Crm> = Arc::new(SimCrm {
            org: Arc::clone(&self.org),
            id: self.connection.clone(),
            process: Arc::clone(&guard),
            chaos: Arc::clone(&self.chaos),
            table: self.table,
            rng: Mutex::new(self.rng.lock().unwrap().fork()),
            twice: self.twice,
        });
        Road {
            connection: self.connection.clone(),
            crm,
            log: Arc::new(Guarded {
                inner: Arc::clone(&self.log) as Arc<dyn Log>,
                process: Arc::clone(&guard),
            }),
            images: Arc::new(Guarded {
                inner: Arc::clone(images) as Arc<dyn ImageStore>,
                process: Arc::clone(&guard),
            }),
            state: Arc::new(Guarded {
                inner: Arc::clone(&self.state) as Arc<dyn State>,
                process: Arc::clone(&guard),
            }),
            clock: Arc::new(self.clock),
            metrics: Metrics::none(),
            board: Arc::default(),
            hinted: Arc::default(),
            settings: Arc::new(Settings {
                owner: process.name.to_owned(),
                lease: LEASE,
                read_lag: Duration::from_millis(LAG.unsigned_abs()),
                window_reach: TimeDelta::milliseconds(REACH),
                retry_cap: Duration::from_secs(4),
                refused_wait: Duration::from_secs(20),
                full_syncs: self.full_syncs.clone(),
                children_a_step: self.children_a_step,
                changes_an_append: 2,
                readings: readings(&self.selected, self.refresh),
                ..Settings::default()
            }),
        }
    }

    /// Starts a process under a name; two names are two machines.
    pub fn start(&mut self, name: &'static str) {
        self.say(|| format!("start {name} with {:?}", self.selected));
        let process = Process::new(name, Arc::clone(&self.chaos));
        let stop = StopSignal::new();
        let road = self.road(&process);
        let board = Arc::clone(&road.board);
        let task = tokio::spawn(keep(road, self.selected.clone(), stop.clone()));
        self.owners.push(Owner {
            process,
            stop,
            board,
            task,
        });
    }

    /// Ends every process where it stands.
    pub async fn crash(&mut self) {
        self.say(|| "crash".to_owned());
        for owner in std::mem::take(&mut self.owners) {
            owner.process.kill();
            owner.task.abort();
            owner.task.await.ok();
        }
        // What was aborted is dropped by the runtime's next turn.
        tokio::task::yield_now().await;
    }

    /// Takes one process away where it stands.
    pub async fn retire(&mut self, number: usize) {
        let owner = self.owners.remove(number);
        self.say(|| format!("{} is taken away", owner.process.name));
        owner.process.kill();
        owner.task.abort();
        owner.task.await.ok();
    }

    /// Stops every process politely.
    pub async fn stop(&mut self) {
        self.say(|| "stop".to_owned());
        for owner in std::mem::take(&mut self.owners) {
            owner.process.stall(false);
            owner.stop.stop();
            let died = Arc::clone(&owner.process);
            let mut task = owner.task;
            tokio::select! {
                biased;
                ended = &mut task => ended.unwrap(),
                () = died.died.notified() => {
                    task.abort();
                    task.await.ok();
                }
            }
        }
    }

    /// Lets time pass; whether a process died meanwhile.
    pub async fn pass(&self, time: Duration) -> bool {
        let Some(owner) = self.owners.last() else {
            tokio::time::sleep(time).await;
            return false;
        };
        tokio::select! {
            biased;
            () = owner.process.died.notified() => true,
            () = tokio::time::sleep(time) => false,
        }
    }

    /// Reads asked of the CRM so far.
    pub fn reads(&self) -> u64 {
        self.chaos.reads.load(Ordering::SeqCst)
    }
}

/// One job an object, which reads all that is selected of it.
fn readings(selected: &Selected, refresh: Refresh) -> BTreeMap<ObjectName, Vec<Reading>> {
    let reading = |fields: &BTreeSet<FieldName>| Reading {
        has_scheduled: false,
        job: "job".into(),
        fields: fields.clone(),
        needed: BTreeSet::new(),
        on_lost_field: OnLostField::Continue,
        refresh,
    };
    let objects = selected.iter();
    objects
        .map(|(name, fields)| (name.clone(), vec![reading(fields)]))
        .collect()
}

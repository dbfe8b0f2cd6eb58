//! A record whose changes were streamed one by one, and one that was read as it is: their rows are equal.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use uuid::Uuid;

use crate::crm::salesforce::merge::SalesforceTable;
use crate::flow::simulation::org::{ACCOUNT_ID, Deed, Key, Ms, PARENT_ID, Telling};
use crate::flow::simulation::rng::Rng;
use crate::flow::simulation::world::{World, account, contact};
use crate::flow::simulation::{judge, seeds_of};
use crate::mapping::plan::Cell;
use crate::model::change::Origin;
use crate::model::name::{FieldName, ObjectName};
use crate::model::record_id::RecordId;
use crate::model::value::{Fields, Value};
use crate::state::port::State;
use crate::target::port::Target;

use super::group::Manner;
use super::jobs::{Jobs, LOST, STAGES, deal};
use super::world::{RoadWorld, Store};

/// Histories of an ordinary test run.
const HISTORIES: u64 = 60;
const DEEDS: usize = 60;
/// Records of each object that live from the beginning to the end: others refer to them.
const PARENTS: usize = 4;
/// Those that come and go.
const OTHERS: usize = 12;

/// What is done, and the pause before it.
type History = Vec<(Ms, Key, Deed)>;
/// Columns by table and record; rows of other records by those records.
type Rows = BTreeMap<(&'static str, RecordId), Vec<(String, String)>>;

#[test]
fn snapshot_and_stream_give_equal_rows() {
    let mut compared = 0;
    judge(
        seeds_of(HISTORIES),
        |seed| {
            let (streamed, read) = (rows(seed, Origin::Stream), rows(seed, Origin::Snapshot));
            match streamed
                .iter()
                .find(|(key, row)| read.get(key) != Some(row))
            {
                Some((key, row)) => Err(format!("{key:?}: {row:?}, read {:?}", read.get(key))),
                None if streamed.len() != read.len() => Err("one has more rows".to_owned()),
                None => Ok(streamed.len()),
            }
        },
        |seed| format!("{:?}", history(&mut Rng::new(seed))),
        |rows| compared += rows,
    );
    assert!(compared > 100, "{compared} rows were compared");
}

/// The rows of the records that live at the end, all of whose changes came by this origin.
fn rows(seed: u64, origin: Origin) -> Rows {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(Box::pin(live(seed, origin)))
}

async fn live(seed: u64, origin: Origin) -> Rows {
    let mut rng = Rng::new(seed);
    let history = history(&mut rng);
    let mut world = World::new(&SalesforceTable, rng.fork(), 0, false);
    let jobs = Arc::new(Jobs::draw(&mut rng, TimeDelta::days(30)));
    world.selected = jobs.selected();
    let manner = Manner {
        most: 1 + rng.below(12),
        repeats: 0,
    };
    let store = Store::new(&world, &jobs, (manner, 0), &mut rng).await;
    let mut road = RoadWorld {
        world,
        jobs,
        store,
        hands: Vec::new(),
    };
    if origin == Origin::Stream {
        road.start("one");
        road.is_synced().await;
    }
    for (pause, key, deed) in history {
        tokio::time::sleep(Duration::from_millis(pause.unsigned_abs())).await;
        // A deed that does not fit (a delete of what is not there) is none.
        road.world.org.at_once(Telling::Events, &[(key, deed)], 0);
    }
    if origin == Origin::Snapshot {
        road.start("one");
        road.is_synced().await;
    }
    let last = (account(), RecordId::stored("last"));
    let told = Deed::Create(Fields::new());
    road.world
        .org
        .at_once(Telling::Events, &[(last.clone(), told)], 0);
    road.agrees().await;
    road.came_by(origin, &last).await;
    road.rows().await
}

/// Creates, changes, deletes and undeletes, drawn from a seed; parents come first and stay.
fn history(rng: &mut Rng) -> History {
    let mut history = Vec::new();
    let objects = [account(), contact(), deal()];
    for object in &objects {
        for number in 0..PARENTS {
            let mut fields = some_fields(rng, object, number);
            fields.insert(FieldName::new("Stage"), Value::from(STAGES[0].0));
            history.push((0, key(object, number), Deed::Create(fields)));
        }
    }
    for _ in 0..DEEDS {
        let object = &objects[rng.below(objects.len())];
        let pause = rng.between(0, 3_000);
        if rng.one_in(4) {
            let number = rng.below(PARENTS);
            let mut fields = some_fields(rng, object, number);
            fields.remove(&FieldName::new("Stage"));
            history.push((pause, key(object, number), Deed::Update(fields)));
            continue;
        }
        let key = key(object, PARENTS + rng.below(OTHERS));
        let deed = match rng.below(6) {
            0 | 1 => Deed::Create(some_fields(rng, object, PARENTS)),
            2 | 3 => Deed::Update(some_fields(rng, object, PARENTS)),
            4 => Deed::Delete,
            _ => Deed::Undelete,
        };
        history.push((pause, key, deed));
    }
    history
}

fn key(object: &ObjectName, number: usize) -> Key {
    (object.clone(), id(object, number))
}

fn id(object: &ObjectName, number: usize) -> RecordId {
    let letter = object.as_str().to_lowercase();
    RecordId::stored(format!("{}{number:03}", &letter[..1]))
}

/// Some fields of the `number`th record. It refers to those before it alone: a circle whose members wait for one another is
/// stored if they came one by one, and by no read of all of them.
fn some_fields(rng: &mut Rng, object: &ObjectName, number: usize) -> Fields {
    let mut fields = Fields::new();
    for name in ["Name", "City", "Stage", PARENT_ID, ACCOUNT_ID] {
        if rng.one_in(3) {
            continue;
        }
        let parent = match name {
            PARENT_ID if *object == deal() => Some((contact(), PARENTS)),
            PARENT_ID => Some((object.clone(), number)),
            ACCOUNT_ID => Some((account(), PARENTS)),
            _ => None,
        };
        let value = match (name, parent) {
            _ if rng.one_in(4) => Value::Null,
            (_, Some((_, 0))) => Value::Null,
            (_, Some((of, below))) => Value::from(id(&of, rng.below(below)).as_str()),
            ("Stage", _) if rng.one_in(5) => Value::from(LOST),
            ("Stage", _) => Value::from(STAGES[rng.below(STAGES.len())].0),
            _ => Value::from(format!("{name} {}", rng.below(1000)).as_str()),
        };
        fields.insert(FieldName::new(name), value);
    }
    fields
}

impl RoadWorld {
    async fn is_synced(&self) {
        for _ in 0..100 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let mut synced = true;
            for object in self.world.selected.keys() {
                let state = self.world.state.object(&self.world.connection, object);
                synced &= state.await.unwrap().synced_at.is_some();
            }
            if synced {
                return;
            }
        }
        panic!("not synced");
    }

    /// Every change but the last record's has this origin, or says once more what the one before it said.
    async fn came_by(&self, origin: Origin, last: &Key) {
        for object in self.world.selected.keys() {
            let mut said = BTreeMap::new();
            for change in self.world.changes(object).await {
                let says = (change.is_alive(), change.fields.clone());
                let before = said.insert(change.id.clone(), says.clone());
                if change.id != last.1 && before != Some(says) {
                    assert_eq!(change.origin, origin, "{change:?}");
                }
            }
        }
    }

    async fn rows(&self) -> Rows {
        let mut traced = Vec::new();
        let mut holders: BTreeMap<Uuid, RecordId> = BTreeMap::new();
        for job in &self.jobs.all {
            for (record, fields) in self.world.org.truth(&job.object) {
                let connection = &self.world.connection;
                let found = self.store.target.trace(connection, &job.object, &record);
                for of in found.await.unwrap() {
                    let mut to = job.destinations.iter();
                    let to = to.find(|to| to.table == of.table).unwrap();
                    let Some(row) = of.row else { continue };
                    holders.insert(row.gsid, record.clone());
                    if job.takes(&fields, to) {
                        traced.push(((to.table, record.clone()), row));
                    }
                }
            }
        }
        let shown = |cell: &Cell| match cell {
            Cell::Gsid(gsid) => format!("the row of {:?}", holders.get(gsid)),
            other => format!("{other:?}"),
        };
        let stamps = ["created_date", "modified_date"];
        let row = |row: crate::target::port::StoredRow| {
            let columns = row.columns.iter();
            let told = columns.filter(|(name, _)| !stamps.contains(&name.as_str()));
            told.map(|(name, cell)| (name.clone(), shown(cell)))
                .collect()
        };
        traced.into_iter().map(|(key, of)| (key, row(of))).collect()
    }
}

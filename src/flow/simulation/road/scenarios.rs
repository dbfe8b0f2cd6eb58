//! Named stories of the whole road: each is what once went wrong, or would.

use std::sync::Arc;
use std::time::Duration;

use crate::crm::salesforce::merge::SalesforceTable;
use crate::flow::simulation::org::{Deed, Key, Telling};
use crate::flow::simulation::rng::Rng;
use crate::flow::simulation::world::{World, account};
use crate::log::port::{Log, partition_of};
use crate::model::name::FieldName;
use crate::model::record_id::RecordId;
use crate::model::value::{Fields, Value};

use super::group::Manner;
use super::jobs::Jobs;
use super::oracle::{Excuses, judge};
use super::schedule::unread;
use super::world::{RoadWorld, Store};

async fn road() -> RoadWorld {
    let mut rng = Rng::new(11);
    let mut world = World::new(&SalesforceTable, rng.fork(), 0, true);
    let jobs = Arc::new(Jobs::draw(&mut rng, chrono::TimeDelta::days(30)));
    world.selected = jobs.selected();
    let manner = Manner {
        most: 100,
        repeats: 0,
    };
    let store = Store::new(&world, &jobs, (manner, 0), &mut rng).await;
    RoadWorld {
        world,
        jobs,
        store,
        hands: Vec::new(),
    }
}

/// Records whose changes lie in one partition.
fn keys(count: usize) -> Vec<Key> {
    let ids = (0..).map(|number| RecordId::stored(format!("a{number:03}")));
    let ids = ids.filter(|id| partition_of(id.as_str().as_bytes(), 8) == 3);
    ids.take(count).map(|id| (account(), id)).collect()
}

fn named(name: &str) -> Fields {
    Fields::from([(FieldName::new("Name"), Value::from(name))])
}

impl RoadWorld {
    fn does(&self, key: &Key, deed: Deed) {
        let done = self
            .world
            .org
            .at_once(Telling::Events, &[(key.clone(), deed)], 0);
        self.say(|| done.unwrap());
    }

    /// Waits until everything has come to rest, and judges it.
    pub async fn agrees(&self) {
        self.world.rest().await.unwrap();
        for _ in 0..300 {
            if unread(self).await.is_none() {
                break;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(unread(self).await, None);
        // What was asked for again comes within a minute.
        tokio::time::sleep(Duration::from_secs(70)).await;
        let (target, witness) = (&self.store.target, &self.store.witness);
        let judged = judge(&self.world, &self.jobs, target, witness, Excuses::default());
        let judged = judged.await;
        let trace = self.world.chaos.trace.told();
        judged.unwrap_or_else(|why| panic!("{trace}\n{why}"));
        witness.wrong().unwrap();
    }

    /// Cuts the partition's end back by some records.
    async fn cut(&self, back: u64) {
        let topic = self.world.topic(&account());
        let end = self.world.log.bounds(&topic).await.unwrap()[&3].end;
        self.world.log.cut(&topic, 3, end - back).unwrap();
    }
}

/// Within bounds again, offsets are of other records than those that were applied.
#[tokio::test(start_paused = true)]
async fn a_topic_cut_and_grown_again_is_begun_anew() {
    let mut road = road().await;
    let keys = keys(6);
    keys[..4]
        .iter()
        .for_each(|key| road.does(key, Deed::Create(named("old"))));
    road.start("one");
    road.agrees().await;
    road.crash().await;
    road.cut(2).await;
    keys[4..]
        .iter()
        .for_each(|key| road.does(key, Deed::Create(named("new"))));
    // Ingest publishes them, and the lost ones, before any job looks.
    road.world.start("one");
    tokio::time::sleep(Duration::from_secs(60)).await;
    road.put_to_work();
    road.agrees().await;
}

/// The cut took an undelete that the store has; the topic ends with the delete, and so does the org.
#[tokio::test(start_paused = true)]
async fn what_the_store_has_of_a_lost_end_is_asked_for_again() {
    let mut road = road().await;
    let key = &keys(1)[0];
    road.does(key, Deed::Create(named("one")));
    road.start("one");
    road.agrees().await;
    road.does(key, Deed::Delete);
    road.agrees().await;
    road.does(key, Deed::Undelete);
    road.agrees().await;
    road.crash().await;
    road.cut(1).await;
    road.does(key, Deed::HardDelete);
    road.start("one");
    tokio::time::sleep(Duration::from_secs(60)).await;
    road.agrees().await;
}

//! One scenario over both transports: images and topics have the same bytes, and hold what org and store hold.
//!
//! What would differ by nature is the same by what the two runs begin with: one seed of the org's ids, one clock, which stands
//! still but between the steps, and one term, that of an earlier owner. Events of a step are in the store before any read is
//! answered, so that changes are published in one order. Left is how long a call takes: a read is true of the org's date less
//! that time, so such an instant counts as its step's. Left out is a change's `position`, which is the transport's own.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value as Json, json};
use tributary::model::name::ConnectionId;
use tributary::state::port::State;
use tributary::state::sqlite::SqliteState;

use super::ledger::{ACCOUNT, Ledger, OBJECTS, Records};
use super::{FIRST, LOOK, PATIENCE, Transport, differences, held, six_objects};
use crate::road::daemon::Daemon;
use crate::road::dataverse::{Members, member};
use crate::road::world::World;
use crate::sim;

const SCENARIO: &str = include_str!("../../../../scenarios/salesforce.jsonl");
/// Seconds from one step to the next; its events are committed in the first of them.
const STEP: i64 = 300;
/// Its reads are answered so many seconds later.
const READS: i64 = 120;
/// The term of an earlier owner, beyond any second in which a daemon of this test may start.
const TERM: i64 = 4_000_000_000;

/// One line of the scenario.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    what: String,
    /// Scripts before the transactions, all of which fire.
    #[serde(default)]
    faults: Vec<Json>,
    transactions: Vec<Json>,
    /// Scripts after them.
    #[serde(default)]
    after: Vec<Json>,
}

struct Run {
    world: World,
    daemon: Daemon,
    began: DateTime<Utc>,
    /// The step, from 1.
    number: i64,
    /// Each object's ids, in the order in which the scenario numbers them.
    ids: BTreeMap<&'static str, Vec<String>>,
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_scenario_gives_the_same_images_over_either_transport() {
    let began = Utc::now().trunc_subsecs(0) + TimeDelta::minutes(1);
    let (pubsub, cometd) = tokio::join!(
        Box::pin(played(Transport::PubSub, began)),
        Box::pin(played(Transport::Cometd, began))
    );
    let of = |what: &str| pubsub.keys().filter(|key| key.starts_with(what)).count();
    assert!(of("image") > OBJECTS.len() * FIRST && of("change") > OBJECTS.len() * FIRST);
    for (key, content) in &pubsub {
        assert_eq!(Some(content), cometd.get(key), "{key}");
    }
    assert_eq!(pubsub.len(), cometd.len());
}

/// Each record's image and its last change.
async fn played(transport: Transport, began: DateTime<Utc>) -> BTreeMap<String, String> {
    let mut run = Run::begin(transport, began).await;
    for line in SCENARIO.lines() {
        run.step(serde_json::from_str(line).unwrap()).await;
    }
    let org = held(&run.world).await;
    let (status, lines) = run.daemon.stop();
    assert!(status.success(), "{lines}");
    let images = images(&run.world);
    assert_the_org_is_imaged(org, &images);
    let images = images.into_iter();
    let images = images.map(|(object, id, image)| (format!("image {object} {id}"), image));
    let changes = changes(&run.world).into_iter();
    let all = images.chain(changes);
    all.map(|(key, content)| (key, comparable(&content, began)))
        .collect()
}

impl Run {
    async fn begin(transport: Transport, began: DateTime<Utc>) -> Self {
        let world = six_objects(transport).await;
        world.control("time", json!({"freeze": true})).await;
        world.control("time", json!({ "set": began })).await;
        let soon = json!({"do": {"kind": "keep_alive", "seconds": 1}});
        world.control("faults", soon).await;
        leave_a_lease(&world).await;
        let found = held(&world).await;
        let ids = OBJECTS.iter().zip(found);
        let ids = ids.map(|(object, found)| (object.name, found.into_keys().collect()));
        let run = Self {
            ids: ids.collect(),
            daemon: world.daemon().await,
            world,
            began,
            number: 0,
        };
        run.listen().await;
        run.pass(READS).await;
        let is_synced = |health: &Json| {
            let objects = health["connections"]["acme"]["objects"].as_object();
            objects.is_some_and(|all| all.values().all(|of| !of["synced_at"].is_null()))
        };
        run.daemon.wait_for("the first sync", is_synced).await;
        run.settle("the first sync").await;
        run
    }

    /// Lets the org's time pass until the stream has begun: over Pub/Sub its first word is a keep-alive.
    async fn listen(&self) {
        let until = Instant::now() + PATIENCE;
        while self.daemon.health().await["connections"]["acme"]["state"] != "streaming" {
            assert!(Instant::now() < until, "{}", self.daemon.tail());
            let second = json!({"advance_seconds": 1});
            self.world.control("time", second).await;
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn step(&mut self, step: Step) {
        self.number += 1;
        self.pass(0).await;
        // On the org's clock: who reads waits until the step's events are in the store.
        let slow = json!({"on": {"path": "/services/data/v"}, "forever": true, "do": {"kind": "slow", "seconds": 1}});
        self.world.control("faults", slow).await;
        for script in step.faults {
            self.world.control("faults", script).await;
        }
        let mut transactions = Json::Array(step.transactions);
        self.name(&mut transactions);
        let order = json!({ "transactions": transactions });
        let url = &self.world.org.url;
        let told = sim::order(&self.world.http, url, "transactions", &order).await;
        self.learn(&transactions, &serde_json::from_str(&told).unwrap());
        let left = sim::told(&self.world.http, &self.world.org.url, "faults").await;
        assert_eq!(left["events"], json!([]), "{} has not happened", step.what);
        for script in step.after {
            self.world.control("faults", script).await;
        }
        self.hear(&step.what).await;
        self.pass(READS).await;
        let faults = format!("{}/_sim/faults", self.world.org.url);
        self.world.http.delete(faults).send().await.unwrap();
        // For reads that began between the two.
        self.pass(READS + 2).await;
        self.settle(&step.what).await;
    }

    /// Sets the org's clock to so many seconds after the step's beginning.
    async fn pass(&self, seconds: i64) {
        let at = self.began + TimeDelta::seconds(self.number * STEP + seconds);
        self.world.control("time", json!({ "set": at })).await;
    }

    /// Puts ids for `#Object.number`, and long texts for `#long.a` and `#long.b`.
    fn name(&self, value: &mut Json) {
        match value {
            Json::String(text) => {
                let named = text.strip_prefix('#').and_then(|name| name.split_once('.'));
                if let Some((object, number)) = named {
                    *text = match object {
                        "long" => {
                            format!("{}{number}{}", "🦀 line\n".repeat(9_000), "y".repeat(999))
                        }
                        _ => self.ids[object][number.parse::<usize>().unwrap()].clone(),
                    };
                }
            }
            Json::Array(values) => values.iter_mut().for_each(|value| self.name(value)),
            Json::Object(members) => members.values_mut().for_each(|value| self.name(value)),
            _ => {}
        }
    }

    /// The ids of what was created are numbered on.
    fn learn(&mut self, transactions: &Json, told: &Json) {
        let ordered = transactions.as_array().unwrap().iter();
        let done = told["transactions"].as_array().unwrap();
        for (transaction, done) in ordered.zip(done) {
            let results = done["results"].as_array().unwrap();
            for (op, result) in transaction["ops"].as_array().unwrap().iter().zip(results) {
                let id = result["id"].as_str();
                let id = id.unwrap_or_else(|| panic!("{op} is refused: {result}"));
                if op["op"] == "create" {
                    let object = op["object"].as_str().unwrap();
                    self.ids.get_mut(object).unwrap().push(id.to_owned());
                }
            }
        }
    }

    /// Waits until a last change is in the store, and after it another: what the step owes is stored before that one.
    async fn hear(&self, what: &str) {
        let firms = &OBJECTS[ACCOUNT];
        let id = &self.ids[firms.name][0];
        let until = Instant::now() + PATIENCE;
        for word in ["first", "second"] {
            let name = format!("The {word} word of {}", self.number);
            let op =
                json!({"op": "update", "object": firms.name, "id": id, "fields": {"Name": name}});
            self.world.commit(&[vec![op]]).await;
            let is_stored = async || {
                let rows = self.world.store.texts(firms.table).await;
                let mut rows = rows.into_iter();
                rows.any(|row| row["name"].as_ref() == Some(&name))
            };
            while !is_stored().await {
                let told = self.daemon.tail();
                assert!(Instant::now() < until, "{what}: not heard\n{told}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }

    /// Waits until the store is the org and nothing is owed.
    async fn settle(&self, what: &str) {
        let until = Instant::now() + PATIENCE;
        loop {
            let owed = owed(&self.world);
            let found = match owed {
                0 => differences(&self.world, &Ledger::of(held(&self.world).await)).await,
                _ => vec![format!("{owed} reads are owed, or holes open")],
            };
            if found.is_empty() {
                return;
            }
            assert!(
                Instant::now() < until,
                "{what} does not settle: {:#?}\n{}",
                &found[..found.len().min(5)],
                self.daemon.tail()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Leaves what an earlier owner would: the daemon's term is the next, whenever it starts.
async fn leave_a_lease(world: &World) {
    let folder = world.config().join("data");
    std::fs::create_dir_all(&folder).unwrap();
    let state = SqliteState::open(&folder).await.unwrap();
    let (connection, then) = (
        ConnectionId::new("acme"),
        DateTime::from_timestamp(TERM, 0).unwrap(),
    );
    let owned = state.acquire(&connection, "earlier", then, Duration::from_secs(1));
    let term = owned.await.unwrap().unwrap();
    state.release(&connection, term).await.unwrap();
    state.close().await.unwrap();
}

/// How many reads are owed and holes open.
fn owed(world: &World) -> i64 {
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let file = world.config().join("data/state.db");
    let state = rusqlite::Connection::open_with_flags(file, flags).unwrap();
    state.busy_timeout(Duration::from_secs(5)).unwrap();
    let sql = "SELECT (SELECT count(*) FROM owed) + (SELECT count(*) FROM hole WHERE state <> '\"closed\"')";
    state.query_row(sql, [], |row| row.get(0)).unwrap()
}

/// Object, record and image of every record.
fn images(world: &World) -> Vec<(String, String, String)> {
    let images = rusqlite::Connection::open(world.config().join("data/images.db")).unwrap();
    let mut images = images
        .prepare("SELECT object, record, image FROM image")
        .unwrap();
    let images = images.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
    images.unwrap().map(Result::unwrap).collect()
}

/// The last change of each record that the topics hold.
fn changes(world: &World) -> BTreeMap<String, String> {
    #[derive(Deserialize)]
    struct Line {
        value: Content,
    }
    #[derive(Deserialize)]
    struct Content {
        json: Box<RawValue>,
    }
    let mut changes = BTreeMap::new();
    for object in OBJECTS {
        let topic = format!("{}.acme.{}", world.prefix, object.name);
        let file = world.home.path().join("exported");
        world.command(&["topics", "export", &topic, file.to_str().unwrap(), "--json"]);
        for line in std::fs::read_to_string(&file).unwrap().lines() {
            let line: Line = serde_json::from_str(line).unwrap();
            let change = line.value.json.get().to_owned();
            let id = serde_json::from_str::<Json>(&change).unwrap()["id"].clone();
            changes.insert(format!("change {} {id}", object.name), change);
        }
    }
    changes
}

/// The records that are alive in the images hold what the org's hold, and there are no others.
fn assert_the_org_is_imaged(org: Vec<Records>, images: &[(String, String, String)]) {
    #[derive(Deserialize)]
    struct Image {
        f: Members,
        l: String,
    }
    let org = Ledger::of(org);
    for (place, object) in OBJECTS.iter().enumerate() {
        let mine = images.iter().filter(|(of, ..)| of == object.name);
        let read = mine.map(|(_, id, image)| {
            let image: Image = serde_json::from_str(image).unwrap();
            (id, image)
        });
        let live = read.filter(|(_, image)| image.l == "live");
        let live: Records = live.map(|(id, image)| (id.clone(), image.f)).collect();
        let agreed = org.agrees(place, live);
        agreed.unwrap_or_else(|why| panic!("the images of {}: {why}", object.name));
    }
}

/// An image or a change, each member as it is spelled, but for what neither transport tells of a record.
fn comparable(json: &str, began: DateTime<Utc>) -> String {
    let mut members: Members = serde_json::from_str(json).unwrap();
    members.remove("position");
    // When a row was read, when a record was not there; of a change, either's time.
    for name in ["b", "d", "committed_at"] {
        let at = members.get(name);
        let at = at.and_then(|at| serde_json::from_str::<Option<DateTime<Utc>>>(at.get()).unwrap());
        if let Some(read) = at.and_then(|at| read_at(at, began)) {
            members.insert(name.to_owned(), member(read.to_rfc3339()));
        }
    }
    serde_json::to_string(&members).unwrap()
}

/// When the reads of a step were answered; `None` for when its events were committed.
fn read_at(at: DateTime<Utc>, began: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let at = at.trunc_subsecs(0);
    let into = (at - began).num_seconds().rem_euclid(STEP);
    (at > began && into > 0).then(|| at + TimeDelta::seconds(READS - into))
}

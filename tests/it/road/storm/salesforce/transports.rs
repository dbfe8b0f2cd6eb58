//! The same scenario over both transports: what comes out has the same bytes.
//!
//! The org's clock stands still while the scenario writes, so its stamps are the same in both runs. Left out are
//! `version`, which begins with the daemon's own clock, and `position`, which is the transport's.

use std::collections::BTreeMap;
use std::time::Instant;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value as Json, json};

use super::ledger::{Ledger, OBJECTS};
use super::{LOOK, LOOKS, PATIENCE, Transport, differences, held, six_objects};
use crate::road::daemon::Daemon;
use crate::road::storm::is_quiet;
use crate::road::world::World;

const SCENARIO: &str = include_str!("../../../../scenarios/salesforce.jsonl");
/// Seconds from one step to the next.
const STEP: i64 = 3600;

/// One line of the scenario.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    what: String,
    /// Scripts before the transactions.
    #[serde(default)]
    faults: Vec<Json>,
    #[serde(default = "yes")]
    wait: bool,
    transactions: Vec<Json>,
    /// Scripts after them.
    #[serde(default)]
    after: Vec<Json>,
    /// The daemon is killed as soon as they are committed.
    #[serde(default)]
    kill: bool,
}

fn yes() -> bool {
    true
}

struct Run {
    world: World,
    daemon: Option<Daemon>,
    /// Each object's ids, in the order in which the scenario numbers them.
    ids: BTreeMap<&'static str, Vec<String>>,
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_scenario_gives_the_same_images_by_either_transport() {
    let (pubsub, cometd) = tokio::join!(played(Transport::PubSub), played(Transport::Cometd));
    assert!(pubsub.len() > 6 * 60, "{}", pubsub.len());
    for (record, image) in &pubsub {
        assert_eq!(Some(image), cometd.get(record), "{record}");
    }
    assert_eq!(pubsub.len(), cometd.len());
}

/// The last value of each record, by topic and key.
async fn played(transport: Transport) -> BTreeMap<String, String> {
    let mut run = Run::begin(transport).await;
    for (number, line) in SCENARIO.lines().enumerate() {
        let step: Step = serde_json::from_str(line).unwrap();
        let seconds = STEP * (2 + i64::try_from(number).unwrap());
        run.step(step, noon() + TimeDelta::seconds(seconds)).await;
    }
    let (status, lines) = run.daemon.take().unwrap().stop();
    assert!(status.success(), "{lines}");
    run.images()
}

fn noon() -> DateTime<Utc> {
    DateTime::from_timestamp(1_925_035_200, 0).unwrap()
}

impl Run {
    async fn begin(transport: Transport) -> Self {
        let world = six_objects(transport).await;
        let found = held(&world).await;
        let ids = OBJECTS.iter().zip(found);
        let ids = ids.map(|(object, found)| (object.name, found.into_keys().collect()));
        let daemon = world.daemon().await;
        let is_streaming = |health: &Json| health["connections"]["acme"]["state"] == "streaming";
        daemon.wait_for("the stream", is_streaming).await;
        let run = Self {
            ids: ids.collect(),
            daemon: Some(daemon),
            world,
        };
        run.settle("the first sync", noon() + TimeDelta::seconds(STEP))
            .await;
        run
    }

    async fn step(&mut self, step: Step, at: DateTime<Utc>) {
        self.world.control("time", json!({"freeze": true})).await;
        self.world.control("time", json!({ "set": at })).await;
        for script in step.faults {
            self.world.control("faults", script).await;
        }
        let mut transactions = Json::Array(step.transactions);
        self.name(&mut transactions);
        let order = json!({"wait": step.wait, "transactions": transactions});
        let url = &self.world.org.url;
        let told = crate::sim::order(&self.world.http, url, "transactions", &order).await;
        self.learn(&transactions, &serde_json::from_str(&told).unwrap());
        for script in step.after {
            self.world.control("faults", script).await;
        }
        if step.kill {
            self.daemon.take().unwrap().kill();
            self.world.control("time", json!({"freeze": false})).await;
            self.daemon = Some(self.world.daemon().await);
        }
        self.settle(&step.what, at + TimeDelta::seconds(10)).await;
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

    /// Waits until the store is the org and nothing is owed, from `at` on by the org's clock, which runs again: nothing
    /// is committed meanwhile but what was held until then.
    async fn settle(&self, what: &str, at: DateTime<Utc>) {
        self.world.control("time", json!({ "set": at })).await;
        tokio::time::sleep(LOOK).await;
        self.world.control("time", json!({"freeze": false})).await;
        let daemon = self.daemon.as_ref().unwrap();
        let until = Instant::now() + PATIENCE;
        for look in 1.. {
            let health = daemon.health().await;
            let objects = health["connections"]["acme"]["objects"].as_object();
            let is_synced = objects.is_some_and(|objects| {
                let mut objects = objects.values();
                objects.len() == OBJECTS.len() && objects.all(|of| !of["synced_at"].is_null())
            });
            if is_synced && is_quiet(&health["connections"]["acme"]) {
                let ledger = Ledger::of(held(&self.world).await);
                if differences(&self.world, &ledger).await.is_empty() {
                    return;
                }
            }
            assert!(
                Instant::now() < until,
                "{what} does not settle: {health:#}\n{}",
                daemon.tail()
            );
            if look % LOOKS == 0 {
                let order = json!({"advance_seconds": 75});
                self.world.control("time", order).await;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The last value of each record that the topics hold.
    fn images(&self) -> BTreeMap<String, String> {
        #[derive(Deserialize)]
        struct Line {
            value: Option<Content>,
        }
        #[derive(Deserialize)]
        struct Content {
            json: Box<RawValue>,
        }
        let mut images = BTreeMap::new();
        for object in OBJECTS {
            let topic = format!("{}.acme.{}", self.world.prefix, object.name);
            let file = self.world.home.path().join("exported");
            let to = file.to_str().unwrap();
            self.world
                .command(&["topics", "export", &topic, to, "--json"]);
            for line in std::fs::read_to_string(&file).unwrap().lines() {
                let line: Line = serde_json::from_str(line).unwrap();
                let value = line.value.unwrap();
                let mut value: BTreeMap<&str, &RawValue> =
                    serde_json::from_str(value.json.get()).unwrap();
                value.remove("version");
                value.remove("position");
                let id = value["id"].get().to_owned();
                let image = serde_json::to_string(&value).unwrap();
                images.insert(format!("{} {id}", object.name), image);
            }
        }
        images
    }
}

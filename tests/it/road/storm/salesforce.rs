//! Salesforce over the Pub/Sub API: the stream is cut, repeated and garbled, the daemon dies, and the test keeps a ledger of
//! its own that org and store must both equal.

mod ledger;
mod transports;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Value as Json, json};
use tributary_sim::salesforce::SimOptions;

use ledger::{ACCOUNT, Ledger, OBJECTS, Records};

use super::judge::Table;
use crate::dice::Dice;
use crate::road::daemon::Daemon;
use crate::road::dataverse::Members;
use crate::road::world::{World, main_section};
use crate::sim;

const KILLS: usize = 12;
/// Records of each object before the daemon comes.
const FIRST: usize = 60;
/// Transactions of one call.
const TOGETHER: usize = 100;
/// The longest that the end may take.
const PATIENCE: Duration = Duration::from_secs(240);
const LOOK: Duration = Duration::from_millis(200);
/// Looks between which the org's clock moves on: its log of deletes tells whole minutes.
const LOOKS: usize = 15;

struct Storm {
    dice: Dice,
    world: World,
    ledger: Ledger,
    daemon: Option<Daemon>,
    written: usize,
    misfortunes: usize,
}

#[tokio::test(flavor = "multi_thread")]
async fn random_transactions_in_salesforce_end_in_the_store() {
    let mut storm = Storm::begin().await;
    let mut deaths = super::deaths(&mut storm.dice, KILLS);
    while storm.written < super::writes() {
        storm.misfortune().await;
        storm.write().await;
        if deaths.pop_if(|at| *at <= storm.written).is_some() {
            storm.die().await;
        }
    }
    storm.end().await;
}

impl Storm {
    async fn begin() -> Self {
        let world = six_objects(Transport::PubSub).await;
        let ledger = Ledger::of(held(&world).await);
        let daemon = world.daemon().await;
        Self {
            dice: Dice::rolled(),
            ledger,
            daemon: Some(daemon),
            world,
            written: 0,
            misfortunes: 0,
        }
    }

    async fn die(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            daemon.kill();
        }
        for _ in 0..self.dice.below(4) {
            self.write().await;
        }
        self.daemon = Some(self.world.daemon().await);
    }

    /// Some transactions, each of which the org takes.
    async fn write(&mut self) {
        let together = 1 + self.dice.below(TOGETHER);
        let planned = (0..together).map(|_| self.ledger.transaction(&mut self.dice));
        let planned: Vec<Vec<_>> = planned.collect();
        let operations = planned.iter();
        let operations =
            operations.map(|one| one.iter().map(|(op, _)| op.clone()).collect::<Vec<Json>>());
        let told = self.world.commit(&operations.collect::<Vec<_>>()).await;
        let transactions = told["transactions"].as_array().unwrap();
        assert_eq!(transactions.len(), together);
        for (planned, done) in planned.into_iter().zip(transactions) {
            let results = done["results"].as_array().unwrap();
            for ((op, born), result) in planned.into_iter().zip(results) {
                let id = result["id"].as_str();
                let id = id.unwrap_or_else(|| panic!("{op} is refused: {result}"));
                if let Some((object, record)) = born {
                    self.ledger.born(object, id.to_owned(), record);
                }
            }
        }
        self.written += together;
    }

    async fn misfortune(&mut self) {
        if !self.dice.one_in(3) {
            return;
        }
        let Some(script) = misfortune(&mut self.dice) else {
            return;
        };
        self.misfortunes += 1;
        self.world.control("faults", script).await;
    }

    /// Nothing goes wrong any more: the store becomes what the ledger says, and no hole is left.
    async fn end(mut self) {
        let url = format!("{}/_sim/faults", self.world.org.url);
        self.world.http.delete(url).send().await.unwrap();
        let found = held(&self.world).await.into_iter();
        for ((place, object), found) in OBJECTS.iter().enumerate().zip(found) {
            let agreed = self.ledger.agrees(place, found);
            agreed.unwrap_or_else(|why| {
                panic!("the org's {} are not the ledger's: {why}", object.name)
            });
        }
        let until = Instant::now() + PATIENCE;
        let daemon = self.daemon.take().unwrap();
        let mut looks = 0;
        loop {
            let health = daemon.health().await;
            let found = if super::is_quiet(&health["connections"]["acme"]) {
                differences(&self.world, &self.ledger).await
            } else {
                vec!["reads are owed, or holes open".to_owned()]
            };
            if found.is_empty() {
                break;
            }
            assert!(
                Instant::now() < until,
                "the store does not become the org: {} differences: {:#?}\n{health:#}\n{}",
                found.len(),
                &found[..found.len().min(5)],
                daemon.tail()
            );
            looks += 1;
            if looks % LOOKS == 0 {
                let order = json!({"advance_seconds": 75});
                self.world.control("time", order).await;
            }
            tokio::time::sleep(LOOK).await;
        }
        let (status, lines) = daemon.stop();
        assert!(status.success(), "{lines}");
        let after = differences(&self.world, &self.ledger).await;
        assert_eq!(after, Vec::<String>::new());
        let holes = self.world.command(&["holes", "--all", "--json"]);
        let holes = holes.as_array().unwrap();
        let open = holes.iter().filter(|hole| hole["state"] != "closed");
        assert_eq!(open.count(), 0, "{holes:#?}");
        let stream = sim::told(&self.world.http, &self.world.org.url, "stream").await;
        println!(
            "{} transactions, {} misfortunes, {} holes closed, stream {stream}",
            self.written,
            self.misfortunes,
            holes.len()
        );
    }
}

/// How changes come.
#[derive(Clone, Copy)]
enum Transport {
    PubSub,
    Cometd,
}

/// An org of the six objects, and a config that reads them all.
async fn six_objects(transport: Transport) -> World {
    let mut files = Vec::new();
    for object in OBJECTS {
        let [csv, json] = object.files(FIRST);
        files.push((format!("{}.csv", object.name), csv));
        files.push((format!("{}.json", object.name), json));
    }
    let options = SimOptions {
        api_limit: 10_000_000,
        event_limit: 10_000_000,
        ..SimOptions::default()
    };
    let world = World::bare(files, options).await;
    world.put("tributary.toml", &main_section(&world.prefix, &world.store));
    let transport = match transport {
        Transport::PubSub => format!("pubsub_address = \"{}\"\n", world.org.pubsub_url),
        Transport::Cometd => "transport = \"cometd\"\n".to_owned(),
    };
    let connection = world.connection(&world.org.url, &transport);
    world.put("connections/acme.toml", &connection);
    for object in OBJECTS {
        for (name, text) in object.config() {
            world.put(&name, &text);
        }
    }
    world
}

/// What the org holds of each object, deleted records left out.
async fn held(world: &World) -> Vec<Records> {
    #[derive(Deserialize)]
    struct Told {
        records: Vec<Members>,
    }
    let mut found = Vec::new();
    for object in OBJECTS {
        let url = format!("{}/_sim/records/{}", world.org.url, object.name);
        let text = world.http.get(url).send().await.unwrap().text().await;
        let told: Told = serde_json::from_str(&text.unwrap()).unwrap();
        let live = told.records.into_iter();
        let live = live.filter(|record| record["IsDeleted"].get() != "true");
        let named = live.map(|record| {
            let id = serde_json::from_str(record["Id"].get()).unwrap();
            (id, record)
        });
        found.push(named.collect());
    }
    found
}

/// Where the store is not what the ledger says.
async fn differences(world: &World, ledger: &Ledger) -> Vec<String> {
    let firms = world.store.texts(OBJECTS[ACCOUNT].table).await;
    let pairs = firms.iter().filter_map(|row| {
        let id = row["firm_id"].clone()?;
        Some((id, row["gsid"].clone()?))
    });
    let gsids: BTreeMap<String, String> = pairs.collect();
    let gsid = |id: &str| {
        let gsid = gsids.get(id).cloned();
        gsid.unwrap_or_else(|| format!("the row of {id}"))
    };
    let mut found = Vec::new();
    for (place, object) in OBJECTS.iter().enumerate() {
        let columns = object.columns();
        let columns = columns.iter().map(|(name, form)| (name.as_str(), *form));
        let columns: Vec<_> = columns.collect();
        let table = Table {
            name: object.table,
            key: &object.key(),
            columns: &columns,
        };
        let rows = world.store.texts(object.table).await;
        found.extend(table.differences(&ledger.wanted(place, &gsid), &rows));
    }
    found
}

/// A script of the simulator, or nothing.
fn misfortune(dice: &mut Dice) -> Option<Json> {
    let times = 1 + dice.roll(8);
    let of_events = |deed: Json, times: u64| json!({"times": times, "do": deed});
    let of_calls = |on: Json, after: u64, deed: Json| json!({"on": on, "after": after, "do": deed});
    Some(match dice.roll(24) {
        0..=2 => {
            let deeds = [
                json!({"kind": "status", "status": 503}),
                json!({"kind": "status", "status": 401}),
                json!({"kind": "cut"}),
                json!({"kind": "lost_reply"}),
                json!({"kind": "lost_request"}),
                json!({"kind": "expire_tokens", "when": "before"}),
            ];
            let deed = dice.pick(&deeds).clone();
            of_calls(json!({"surface": "rest"}), dice.roll(5), deed)
        }
        3 | 4 => {
            let deeds = [
                json!({"kind": "rpc_status", "status": "UNAVAILABLE", "at": "answer"}),
                json!({"kind": "rpc_cut", "at": "answer"}),
                json!({"kind": "rpc_cut", "at": "call"}),
            ];
            let deed = dice.pick(&deeds).clone();
            of_calls(json!({"rpc": "Subscribe"}), dice.roll(20), deed)
        }
        5 => json!({"do": {"kind": "end_streams"}}),
        6 => json!({"do": {"kind": "cut_connections"}}),
        7 | 8 => json!({"do": {"kind": "duplicate", "last": 1 + dice.roll(30)}}),
        9 => json!({"do": {"kind": "expire_tokens_now"}}),
        10..=12 => of_events(json!({"kind": "gap"}), times),
        13 | 14 => of_events(json!({"kind": "merge"}), times),
        15 | 16 => of_events(json!({"kind": "share_replay_id"}), times),
        17 => of_events(json!({"kind": "split_transaction"}), times),
        18 => of_events(json!({"kind": "diff"}), times),
        19 => of_events(json!({"kind": "diff", "broken": true}), 1),
        20 => of_events(json!({"kind": "sequence_hole", "skip": 2}), times),
        21 => of_events(json!({"kind": "overflow", "keep": 1}), 1),
        22 if dice.one_in(4) => {
            let garbles = ["no_record_ids", "change_type"];
            of_events(
                json!({"kind": "undecodable", "garble": *dice.pick(&garbles)}),
                1,
            )
        }
        23 if dice.one_in(8) => json!({"do": {"kind": "cut_retention"}}),
        _ => return None,
    })
}

//! Dataverse: every way to write, an expiring token here, a lost webhook there, and a daemon that dies now and then.

mod tables;
mod wanted;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;
use tributary::app::load;
use tributary::app::webhook::open;

use tables::{Call, Tables};
use wanted::{CONFIG, differences};

use crate::dice::Dice;
use crate::road::daemon::Daemon;
use crate::road::dataverse::{Dataverse, SECRET};
use crate::road::store::Store;
use crate::road::world::{command, main_section, name_of};

const KILLS: usize = 12;
/// Rows of each table before the daemon comes.
const FIRST: usize = 200;
/// The longest that the end may take.
const PATIENCE: Duration = Duration::from_secs(240);
const LOOK: Duration = Duration::from_millis(200);
/// Misfortunes come once in so many calls.
const SELDOM: u64 = 6;

struct Storm {
    dice: Dice,
    dataverse: Dataverse,
    tables: Tables,
    home: tempfile::TempDir,
    store: Store,
    daemon: Option<Daemon>,
    written: usize,
    kinds: BTreeMap<&'static str, usize>,
    /// Columns that were added to make tokens expire.
    added: usize,
}

#[tokio::test(flavor = "multi_thread")]
async fn random_writes_to_dataverse_end_in_the_store() {
    let mut storm = Storm::begin().await;
    let mut deaths = super::deaths(&mut storm.dice, KILLS);
    while storm.written < super::writes() {
        if storm.dice.one_in(SELDOM) {
            storm.misfortune().await;
        }
        storm.write().await;
        if deaths.pop_if(|at| *at <= storm.written).is_some() {
            storm.die().await;
        }
    }
    storm.end().await;
}

impl Storm {
    async fn begin() -> Self {
        let home = tempfile::tempdir().unwrap();
        let (tables, files) = Tables::with_data(FIRST);
        let data = home.path().join("org");
        std::fs::create_dir_all(&data).unwrap();
        for (name, text) in files {
            std::fs::write(data.join(name), text).unwrap();
        }
        let store = Store::chosen(&name_of(&home), &home.path().join("config/data")).await;
        let mut storm = Self {
            dice: Dice::rolled(),
            dataverse: Dataverse::of(&data).await,
            tables,
            home,
            store,
            daemon: None,
            written: 0,
            kinds: BTreeMap::new(),
            added: 0,
        };
        storm.configure();
        storm.live().await;
        storm
    }

    fn config(&self) -> PathBuf {
        self.home.path().join("config")
    }

    fn configure(&self) {
        let put = |name: &str, text: &str| {
            let path = self.config().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        put(
            "tributary.toml",
            &main_section(&name_of(&self.home), &self.store),
        );
        let more = "poll_interval = \"50ms\"\nwebhook = { secret = { file = \"hook\" } }\n";
        put("connections/contoso.toml", &self.dataverse.connection(more));
        put("secret", SECRET);
        put("hook", "hook & secret");
        for (name, text) in CONFIG {
            put(name, text);
        }
    }

    /// Starts a daemon, and has webhooks sent to where it is.
    async fn live(&mut self) {
        let mut daemon = Daemon::spawn(&self.config(), &self.dataverse.http, &[]);
        daemon.serving().await;
        // The command that registers is no part of the storm.
        self.dataverse.calm().await;
        register(&self.config(), daemon.url()).await;
        self.daemon = Some(daemon);
    }

    /// The daemon is killed, and writes go on for a while.
    async fn die(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            daemon.kill();
        }
        for _ in 0..self.dice.below(6) {
            self.write().await;
        }
        self.live().await;
    }

    async fn write(&mut self) {
        let (call, count) = self.tables.call(&mut self.dice);
        self.written += count;
        let kind = match call {
            Call::Single(write) => {
                self.dataverse.write(&write).await;
                "single"
            }
            Call::Batch(writes) => {
                self.dataverse.batch(&writes).await;
                "batch"
            }
            Call::Multiple {
                action,
                table,
                rows,
            } => {
                let table = &self.tables.0[table];
                let (set, name) = (table.set, table.name);
                self.dataverse.multiple(action, set, name, rows).await;
                action
            }
        };
        *self.kinds.entry(kind).or_default() += count;
    }

    async fn misfortune(&mut self) {
        let dice = &mut self.dice;
        let times = 1 + dice.roll(20);
        match dice.roll(24) {
            0..=3 => {
                let reads = [
                    json!({"kind": "status", "status": 429, "code": "0x80072322", "retry_after": 1}),
                    json!({"kind": "status", "status": 503}),
                    json!({"kind": "cut"}),
                    json!({"kind": "lost_reply"}),
                    json!({"kind": "lost_request"}),
                    json!({"kind": "expire_tokens", "when": "before"}),
                    json!({"kind": "expire_tokens", "when": "after"}),
                ];
                let deed = dice.pick(&reads).clone();
                let on = json!({"surface": "web_api", "method": "GET"});
                let script = json!({"on": on, "after": dice.roll(10), "do": deed});
                self.dataverse.control("faults", script).await;
            }
            4..=19 => {
                let pushes = [
                    json!({"kind": "lose"}),
                    json!({"kind": "double"}),
                    json!({"kind": "hold", "behind": 1 + dice.roll(9)}),
                    json!({"kind": "delay", "seconds": 1}),
                ];
                let deed = dice.pick(&pushes).clone();
                let table = self.tables.0[dice.below(3)].name;
                let script = json!({"on": {"table": table}, "times": times, "do": deed});
                self.dataverse.control("faults", script).await;
            }
            20 | 21 => {
                let order = json!({"expire_access": true});
                self.dataverse.control("entra", order).await;
            }
            22 if dice.one_in(3) => {
                // All change tokens of the table expire with it.
                let table = self.tables.0[dice.below(3)].name;
                let columns = json!({format!("new_added{}", self.added): "String(10)"});
                self.added += 1;
                let order = json!({"table": table, "definition": {"columns": columns}});
                self.dataverse.control("tables", order).await;
            }
            23 if dice.one_in(10) => {
                // Longer than change tokens live.
                let order = json!({"advance_seconds": 8 * 24 * 3600});
                self.dataverse.control("time", order).await;
            }
            _ => {}
        }
    }

    /// Nothing goes wrong any more: the store becomes the environment, and no hole is left.
    async fn end(mut self) {
        self.dataverse.calm().await;
        let until = Instant::now() + PATIENCE;
        let daemon = self.daemon.take().unwrap();
        loop {
            let health = daemon.health().await;
            let found = if super::is_quiet(&health["connections"]["contoso"]) {
                differences(&mut self.dataverse, &self.store).await
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
            tokio::time::sleep(LOOK).await;
        }
        let (status, lines) = daemon.stop();
        assert!(status.success(), "{lines}");
        let after = differences(&mut self.dataverse, &self.store).await;
        assert_eq!(after, Vec::<String>::new());
        self.check_what_happened().await;
    }

    async fn check_what_happened(&self) {
        let holes = command(&self.config(), &["holes", "--all", "--json"]);
        let holes = holes.as_array().unwrap();
        let open = holes.iter().filter(|hole| hole["state"] != "closed");
        assert_eq!(open.count(), 0, "{holes:#?}");
        let pushed = self.dataverse.told("webhooks").await;
        let mut outcomes: BTreeMap<&str, usize> = BTreeMap::new();
        for sent in pushed["log"].as_array().unwrap() {
            *outcomes
                .entry(sent["outcome"].as_str().unwrap())
                .or_default() += 1;
        }
        println!(
            "{} writes {:?}, webhooks {outcomes:?}, {} holes closed",
            self.written,
            self.kinds,
            holes.len()
        );
        assert!(outcomes.get("delivered").is_some_and(|count| *count > 0));
        assert_eq!(self.kinds.len(), 5, "{:?}", self.kinds);
    }
}

async fn register(config: &Path, url: &str) {
    let config = load(config).unwrap();
    let webhook = open(&config, "contoso").unwrap();
    webhook.add(Some(url)).await.unwrap();
}

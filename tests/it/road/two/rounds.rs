//! `kill -9` of a daemon, the broker and PostgreSQL in turn, under load, with a ledger of the test's own.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use super::pair::{Pair, until};
use crate::postgres::Server;
use crate::road::data::{id, tables};

const ACCOUNTS: u64 = 100;
const ROUNDS: u64 = 30;
/// Above every number that the org begins with.
const FIRST: u64 = 1_000_000;

/// The broker's process.
struct Broker(PathBuf);

impl Broker {
    fn new() -> Self {
        let folder = std::env::var("TRIBUTARY_TEST_KAFKA_NODE");
        Self(folder.expect("run tests/run --kafka").into())
    }

    fn kill(&self) {
        let pid = std::fs::read_to_string(self.0.join("pid")).unwrap();
        let sent = Command::new("kill").args(["-KILL", pid.trim()]).status();
        assert!(sent.unwrap().success());
    }

    async fn start(&self) {
        let start = self.0.join("start");
        let started = tokio::task::spawn_blocking(move || Command::new(start).status());
        assert!(started.await.unwrap().unwrap().success());
    }
}

/// What the org was told: the number that each account was given last, and the highest of all.
#[derive(Default)]
struct Ledger {
    last: Mutex<BTreeMap<String, u64>>,
    highest: AtomicU64,
    over: AtomicBool,
}

/// Gives account after account the next number, until it is told to end.
async fn load(http: reqwest::Client, org: String, ledger: Arc<Ledger>) -> u64 {
    let mut number = FIRST;
    while !ledger.over.load(Ordering::SeqCst) {
        let account = id("001", usize::try_from(number % ACCOUNTS).unwrap());
        let op = json!({ "op": "update", "object": "Account", "id": account,
                         "fields": { "NumberOfEmployees": number } });
        let body = json!({ "transactions": [{ "ops": [op] }] });
        let told = http
            .post(format!("{org}/_sim/transactions"))
            .json(&body)
            .send();
        assert!(told.await.unwrap().status().is_success());
        ledger.last.lock().unwrap().insert(account, number);
        ledger.highest.store(number, Ordering::SeqCst);
        number += 1;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    number - FIRST
}

/// Looks at rows and versions for as long as the load goes on: none may ever go back. Answers with its looks.
async fn watch(server: Arc<Server>, database: String, ledger: Arc<Ledger>) -> u64 {
    let mut seen: HashMap<String, (i64, String)> = HashMap::new();
    let mut looks = 0;
    let sql = "SELECT c.record, s.employees::bigint, c.version FROM tributary.crosswalk c
         JOIN store.company s USING (gsid) WHERE c.object = 'Account' OR c.destination = 'Company'";
    while !ledger.over.load(Ordering::SeqCst) {
        // Away, as often as the test wills it.
        let Ok(client) = server.reach(&database).await else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        while let Ok(rows) = client.query(sql, &[]).await {
            looks += 1;
            for row in rows {
                let record: String = row.get(0);
                let now: (i64, String) = (row.get::<_, Option<i64>>(1).unwrap_or(0), row.get(2));
                if let Some(before) = seen.get(&record) {
                    assert!(
                        now.0 >= before.0 && now.1 >= before.1,
                        "{record} went back from {before:?} to {now:?}"
                    );
                }
                seen.insert(record, now);
            }
            if ledger.over.load(Ordering::SeqCst) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    looks
}

async fn stored(pair: &Pair) -> BTreeMap<String, u64> {
    let rows = pair
        .query("SELECT salesforce_account_id AS id, employees FROM store.company")
        .await;
    rows.iter()
        .map(|row| {
            let id = row["id"].as_str().unwrap().to_owned();
            (id, row["employees"].as_f64().unwrap_or_default() as u64)
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a broker that it may kill: tests/run --kafka"]
async fn kills_of_everything_in_turn_lose_nothing() {
    let rounds = std::env::var("TRIBUTARY_TEST_ROUNDS");
    let rounds = rounds.map_or(ROUNDS, |rounds| rounds.parse().unwrap());
    let broker = Broker::new();
    let accounts = usize::try_from(ACCOUNTS).unwrap();
    let pair = Pair::of(&tables(5, accounts, 20)).await;
    let world = &pair.world;
    let mut daemons = [pair.daemon("one").await, pair.daemon("other").await];
    until("the first sync", &daemons[0], async || {
        world.differences().await.is_empty()
    })
    .await;
    let ledger = Arc::new(Ledger::default());
    let loading = tokio::spawn(load(
        world.http.clone(),
        world.org.url.clone(),
        Arc::clone(&ledger),
    ));
    let watching = tokio::spawn(watch(
        Arc::clone(&pair.server),
        world.prefix.clone(),
        Arc::clone(&ledger),
    ));

    let mut slowest = [Duration::ZERO; 3];
    for round in 0..rounds {
        let began = Instant::now();
        let victim = usize::try_from(round % 3).unwrap();
        match victim {
            0 => {
                // Every second time the one who owns the connection, whichever that is.
                let (owner, _) = pair.owner().await;
                let owns = usize::from(owner.contains("/other#"));
                let dies = if round % 2 == 0 { owns } else { 1 - owns };
                let name = ["one", "other"][dies];
                daemons[dies].die();
                daemons[dies] = pair.daemon(name).await;
            }
            1 => {
                broker.kill();
                broker.start().await;
            }
            _ => {
                pair.server.kill();
                pair.server.start_again();
            }
        }
        // Over when what was committed after the restart has arrived: the road is open again from end to end.
        let sign = ledger.highest.load(Ordering::SeqCst);
        until("a change after the restart", &daemons[0], async || {
            assert!(!watching.is_finished() && !loading.is_finished());
            stored(&pair).await.values().any(|number| *number > sign)
        })
        .await;
        slowest[victim] = slowest[victim].max(began.elapsed());
    }
    ledger.over.store(true, Ordering::SeqCst);
    let (changes, looks) = (loading.await.unwrap(), watching.await.unwrap());
    world.settled(&daemons[0]).await;
    println!(
        "{rounds} rounds, {changes} changes, {looks} looks; slowest: daemon {:?}, broker {:?}, PostgreSQL {:?}",
        slowest[0], slowest[1], slowest[2]
    );
    assert!(looks > rounds, "only {looks} looks");

    nothing_lost(&pair, &ledger).await;
    nothing_doubled(&pair);
    let [one, other] = daemons;
    for daemon in [one, other] {
        let health = daemon.health().await;
        assert_eq!(
            health["jobs"]["acme"]["company_sync"]["dead_letters"], 0,
            "{health:#}"
        );
        let (status, lines) = daemon.stop();
        assert!(status.success(), "{lines}");
    }
}

/// Every account has the number that it was given last, in one row of its own.
async fn nothing_lost(pair: &Pair, ledger: &Ledger) {
    let told = ledger.last.lock().unwrap().clone();
    let stored = stored(pair).await;
    for (account, number) in &told {
        assert_eq!(stored.get(account), Some(number), "{account}");
    }
    for (table, count) in [("user", 5), ("company", ACCOUNTS), ("opportunity", 20)] {
        let sql = format!("SELECT count(*) AS rows FROM store.\"{table}\"");
        assert_eq!(pair.query(&sql).await[0]["rows"], count, "{table}");
    }
}

/// An event that was published again says what it said, and is no other change.
fn nothing_doubled(pair: &Pair) {
    let mut events: HashMap<String, Json> = HashMap::new();
    let (mut again, mut numbers) = (0, HashSet::new());
    for told in pair.topic("Account") {
        if told.change["origin"] != "stream" {
            continue;
        }
        numbers.insert(told.change["fields"]["NumberOfEmployees"].to_string());
        let event = format!("{} {}", told.change["transaction"], told.id);
        let says = told.change["fields"].clone();
        if let Some(said) = events.get(&event) {
            again += 1;
            assert_eq!(*said, says, "{event} is in the topic with other content");
        }
        events.insert(event, says);
    }
    println!(
        "{} events of the stream in the topic, {again} of them published again, {} numbers",
        events.len(),
        numbers.len()
    );
}

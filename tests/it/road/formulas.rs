//! Formulas, which no event tells: read with full syncs, or at each change where a job asks for it.

use std::time::Instant;

use serde_json::{Value as Json, json};
use tributary_sim::salesforce::SimOptions;

use super::daemon::Daemon;
use super::data::id;
use super::store::Row;
use super::world::{LOOK, PATIENCE, World, main_section};

const JOB: &str = "[to.Company]\nidentifiers = [\"salesforce_account_id\"]\n[to.Company.map]\n\
                   salesforce_account_id = \"Id\"\nname = \"Name\"\nemployees = \"Score__c\"\n";
const ACCOUNTS: usize = 300;

/// An org of accounts whose score is a formula, and a daemon with a job of more keys, its first sync done.
async fn scored(keys: &str) -> (World, Daemon) {
    let rows = (0..ACCOUNTS).map(|number| format!("{},Acme,{number}\n", id("001", number)));
    let csv = format!("Id,Name,Score__c\n{}", rows.collect::<String>());
    let notes = json!({ "fields": { "Score__c": { "type": "double", "calculated": true } } });
    let files = vec![
        ("Account.csv".to_owned(), csv),
        ("Account.json".to_owned(), notes.to_string()),
    ];
    let world = World::bare(files, SimOptions::default()).await;
    world.put("tributary.toml", &main_section(&world.prefix, &world.store));
    let connection = world.connection(&world.org.url, "transport = \"cometd\"\n");
    world.put("connections/acme.toml", &connection);
    let job = format!("source = \"Account\"\n{keys}{JOB}");
    world.put("jobs/acme/company_sync.toml", &job);
    let daemon = world.daemon().await;
    // Nobody looks into the store before it is made.
    daemon
        .wait_for("the first sync", |health| {
            !health["connections"]["acme"]["objects"]["Account"]["synced_at"].is_null()
        })
        .await;
    row(&world, &daemon, &id("001", 1), "Acme", 1).await;
    (world, daemon)
}

/// Changes records in one transaction, and with each its formula.
async fn change(world: &World, numbers: &[usize], name: &str, score: i64) {
    let each = |number: &usize| {
        let record = id("001", *number);
        [
            json!({ "op": "update", "object": "Account", "id": record, "fields": { "Name": name } }),
            json!({ "op": "recalculate", "object": "Account", "id": record, "fields": { "Score__c": score } }),
        ]
    };
    let operations: Vec<Json> = numbers.iter().flat_map(each).collect();
    world.commit(&[operations]).await;
}

/// Makes a record, whose formula has its value before anybody reads it.
async fn create(world: &World, name: &str, score: i64) -> String {
    let by_id = json!({ "path": "/services/data/v66.0/composite/sobjects" });
    let slow = json!({ "on": by_id, "do": { "kind": "slow", "seconds": 1 } });
    world.control("faults", slow).await;
    let told = world
        .commit(&[
            vec![json!({ "op": "create", "object": "Account", "fields": { "Name": name } })],
            vec![json!({ "op": "recalculate", "object": "Account", "id": "$1.0", "fields": { "Score__c": score } })],
        ])
        .await;
    let id = told["transactions"][0]["results"][0]["id"].as_str();
    id.unwrap().to_owned()
}

fn holds(row: &Row, name: &str, score: i64) -> bool {
    row["name"] == name && row["employees"].as_f64() == json!(score).as_f64()
}

/// Waits until a record's row holds these.
async fn row(world: &World, daemon: &Daemon, id: &str, name: &str, score: i64) {
    let until = Instant::now() + PATIENCE;
    loop {
        let rows = world.rows("company", "salesforce_account_id").await;
        let row = rows.get(id);
        if row.is_some_and(|row| holds(row, name, score)) {
            return;
        }
        assert!(Instant::now() < until, "{row:?}\n{}", daemon.tail());
        tokio::time::sleep(LOOK).await;
    }
}

/// Calls that read records of jobs' objects.
async fn reads(world: &World) -> u64 {
    let counts = world.counts().await;
    let calls = counts["calls"].as_object().unwrap().iter();
    calls
        .filter(|(call, _)| call.ends_with(" query") || call.contains("composite/sobjects"))
        .map(|(_, count)| count.as_u64().unwrap())
        .sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_formula_is_read_at_each_change_where_a_job_asks_for_it() {
    let (world, daemon) = scored("refresh = \"on_change\"\n").await;
    for round in 0..3 {
        let name = format!("Round {round}");
        change(&world, &[1], &name, 1000 + round).await;
        row(&world, &daemon, &id("001", 1), &name, 1000 + round).await;
    }
    let new = create(&world, "New", 7).await;
    row(&world, &daemon, &new, "New", 7).await;

    // Many at once are read many a call: some calls before their answer can be believed, and one when it can.
    let before = reads(&world).await;
    let all: Vec<usize> = (0..ACCOUNTS).collect();
    change(&world, &all, "All", 2000).await;
    for number in [0, ACCOUNTS / 2, ACCOUNTS - 1] {
        row(&world, &daemon, &id("001", number), "All", 2000).await;
    }
    daemon
        .wait_for("the owed reads", |health| {
            health["connections"]["acme"]["objects"]["Account"]["owed"] == 0
        })
        .await;
    let calls = reads(&world).await - before;
    assert!(calls > 0 && calls < ACCOUNTS as u64 / 10, "{calls} calls");
    assert!(daemon.stop().0.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_formula_waits_for_the_next_full_sync_and_costs_no_call() {
    let (world, daemon) = scored("").await;
    let [one, two] = [1, 2].map(|number| id("001", number));
    let before = reads(&world).await;
    change(&world, &[1, 2], "Changed", 1000).await;
    row(&world, &daemon, &one, "Changed", 1).await;
    row(&world, &daemon, &two, "Changed", 2).await;
    assert_eq!(reads(&world).await, before);

    // Of a new record no value is held: it is read, and those that changed are not among what was owed.
    let new = create(&world, "New", 7).await;
    row(&world, &daemon, &new, "New", 7).await;
    row(&world, &daemon, &one, "Changed", 1).await;
    row(&world, &daemon, &two, "Changed", 2).await;

    world.command(&["sync", "acme", "Account", "--json", "--url", daemon.url()]);
    row(&world, &daemon, &one, "Changed", 1000).await;
    row(&world, &daemon, &two, "Changed", 1000).await;
    assert!(daemon.stop().0.success());
}

//! One daemon is killed, stopped in its tracks, or drained: the other goes on in bounded time, and one owner writes.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use super::pair::{LEASE, OBJECTS, Pair, Told, in_state, until};
use crate::road::daemon::Daemon;
use crate::road::data::{id, tables};

const ACCOUNTS: usize = 60;

/// What a takeover may take beyond the lease: a look of the one who waits, the topics read back, the stream opened,
/// on a machine that does other things.
const SLACK: Duration = Duration::from_secs(10);

fn set(field: &str, value: &Json) -> Vec<Vec<Json>> {
    (0..ACCOUNTS)
        .map(|number| {
            vec![
                json!({ "op": "update", "object": "Account", "id": id("001", number),
                         "fields": { field: value } }),
            ]
        })
        .collect()
}

/// Two daemons, of which the first owns the connection.
async fn two() -> (Pair, Daemon, Daemon) {
    let pair = Pair::of(&tables(10, ACCOUNTS, 40)).await;
    let one = pair.daemon("one").await;
    one.synced().await;
    let other = pair.daemon("other").await;
    in_state(&other, "standby").await;
    pair.world.settled(&one).await;
    // A stream that has told no position yet begins anew after a takeover.
    pair.world.commit(&set("Industry", &json!("Energy"))).await;
    pair.world.settled(&one).await;
    shared(&one, &other).await;
    (pair, one, other)
}

/// Waits until both have partitions of the largest job, and all of them have a reader.
async fn shared(one: &Daemon, other: &Daemon) {
    for daemon in [one, other] {
        daemon
            .wait_for("its share of the partitions", |health| {
                health["jobs"]["acme"]["company_sync"]["state"] == "streaming"
            })
            .await;
    }
}

/// All that the topics hold.
fn told(pair: &Pair) -> Vec<(&'static str, Told)> {
    let told = OBJECTS.map(|object| {
        pair.topic(object)
            .into_iter()
            .map(move |told| (object, told))
    });
    told.into_iter().flatten().collect()
}

/// Where a change lies.
fn place((object, told): &(&'static str, Told)) -> (&'static str, u64, u64) {
    (object, told.partition, told.offset)
}

fn written(health: &Json) -> u64 {
    let rows = health["jobs"]["acme"]["company_sync"]["rows"].as_object();
    rows.map_or(0, |rows| rows.values().filter_map(Json::as_u64).sum())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a broker: tests/run --kafka"]
async fn work_is_shared_and_taken_over_from_the_dead() {
    let (pair, one, other) = two().await;
    let world = &pair.world;
    let (owner, term) = pair.owner().await;
    assert!(owner.contains("/one#"), "{owner}");
    // Both write, each its own partitions.
    let mut number = 0;
    until("work for both", &other, async || {
        number += 1;
        world.commit(&set("YearStarted", &json!(number))).await;
        world.settled(&one).await;
        written(&one.health().await) > 0 && written(&other.health().await) > 0
    })
    .await;

    world.commit(&set("Name", &json!("before"))).await;
    one.kill();
    let died = Instant::now();
    world.commit(&set("Name", &json!("after"))).await;
    in_state(&other, "streaming").await;
    let listening = died.elapsed();
    world.settled(&other).await;
    let whole = died.elapsed();
    println!(
        "killed: listening after {listening:?}, store whole after {whole:?} (lease {LEASE} s)"
    );
    assert!(
        listening < Duration::from_secs(LEASE) + SLACK,
        "{listening:?}"
    );
    let (owner, next) = pair.owner().await;
    assert!(owner.contains("/other#") && next > term, "{owner} {next}");

    // Whoever was killed comes back and waits.
    let one = pair.daemon("one").await;
    in_state(&one, "standby").await;
    world.commit(&set("Name", &json!("last"))).await;
    world.settled(&other).await;
    assert_eq!(pair.owner().await, (owner, next));
    assert_eq!(pair.one_owner_at_a_time(&other).await, 0);
    assert_eq!(world.command(&["holes", "--all", "--json"]), json!([]));
}

/// SIGSTOP in the middle of its work, SIGCONT when another has long taken over: it changes nothing any more.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a broker: tests/run --kafka"]
async fn a_daemon_that_was_stopped_and_continued_writes_nothing() {
    let (pair, one, other) = two().await;
    let world = &pair.world;
    // In the middle of it: changes go on arriving.
    world.commit(&set("Name", &json!("first"))).await;
    world.commit(&set("Name", &json!("second"))).await;
    one.signal("STOP");
    let stopped = Instant::now();
    world.commit(&set("NumberOfEmployees", &json!(7))).await;
    in_state(&other, "streaming").await;
    println!(
        "stopped: listening after {:?} (lease {LEASE} s)",
        stopped.elapsed()
    );
    world.commit(&set("Name", &json!("third"))).await;
    world.settled(&other).await;
    let (owner, term) = pair.owner().await;
    assert!(owner.contains("/other#"), "{owner}");
    let rows = pair.written().await;
    let before: BTreeSet<_> = told(&pair).iter().map(place).collect();

    one.signal("CONT");
    in_state(&one, "standby").await;
    shared(&one, &other).await;
    // Whatever it had in hand when it was stopped has landed, will land or was refused: what it is given now it may read.
    world.commit(&set("YearStarted", &json!(2_100))).await;
    world.settled(&other).await;
    pair.one_owner_at_a_time(&other).await;
    world.settled(&other).await;

    // What the zombie could have changed is what it was; the last commit alone is new.
    let after = pair.written().await;
    for unchanged in ["user", "opportunity", "owed", "hole"] {
        assert_eq!(after[unchanged], rows[unchanged], "{unchanged}");
    }
    // A late append makes the owner begin a term anew; it is still the owner.
    let now = pair.owner().await;
    assert!(
        now.0 == owner && now.1 >= term,
        "{now:?}, was {owner} {term}"
    );
    let mut since = told(&pair);
    since.retain(|told| !before.contains(&place(told)));
    let (late, ours): (Vec<_>, Vec<_>) = since.iter().partition(|(_, told)| told.term < term);
    let late: BTreeSet<&str> = late.iter().map(|(_, told)| told.id.as_str()).collect();
    println!(
        "{} records' appends were under way and landed late",
        late.len()
    );
    let (committed, healed): (Vec<_>, Vec<_>) = ours.into_iter().partition(|(_, told)| {
        told.change["changed"]
            .as_array()
            .is_some_and(|changed| changed.contains(&json!("YearStarted")))
    });
    let ids: BTreeSet<&str> = committed.iter().map(|(_, told)| told.id.as_str()).collect();
    assert_eq!((committed.len(), ids.len()), (ACCOUNTS, ACCOUNTS));
    // Records of which something landed late, now or before, are published again: as they are, never as they were.
    for (_, told) in healed {
        let change = &told.change;
        assert_eq!(change["changed"], json!([]), "{change}");
        assert_eq!(change["fields"]["Name"], "third", "{change}");
    }
    let companies: BTreeSet<String> = after["company"]
        .iter()
        .map(|row| row["salesforce_account_id"].to_string())
        .collect();
    assert_eq!(companies.len(), after["company"].len());
}

/// SIGTERM hands over at once, and whoever takes over again knows what happened meanwhile.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a broker: tests/run --kafka"]
async fn a_drain_hands_over_and_images_that_grew_old_are_brought_up() {
    let (pair, one, other) = two().await;
    let world = &pair.world;
    world.commit(&set("Name", &json!("of the first"))).await;
    let told = Instant::now();
    let (status, lines) = one.stop();
    assert!(status.success(), "{lines}");
    in_state(&other, "streaming").await;
    let handed = told.elapsed();
    println!("drained: listening after {handed:?} (lease {LEASE} s)");
    assert!(
        handed < Duration::from_secs(LEASE) / 2 + SLACK / 2,
        "{handed:?}"
    );
    world.settled(&other).await;

    // The first one's images know nothing of this.
    world.commit(&set("Name", &json!("of the other"))).await;
    world.commit(&set("Industry", &Json::Null)).await;
    world.settled(&other).await;
    let one = pair.daemon("one").await;
    in_state(&one, "standby").await;
    let (status, lines) = other.stop();
    assert!(status.success(), "{lines}");
    in_state(&one, "streaming").await;
    let read_back = one
        .lines()
        .iter()
        .any(|line| line.contains("topic read back"));
    assert!(read_back, "{}", one.tail());
    // An event tells one field; the image it is merged into must hold the others as they are.
    world.commit(&set("NumberOfEmployees", &json!(11))).await;
    world.settled(&one).await;
    let told = pair.topic("Account");
    let newest = told
        .iter()
        .filter(|told| told.change["fields"]["NumberOfEmployees"] == 11);
    let mut count = 0;
    for told in newest {
        count += 1;
        assert_eq!(told.change["fields"]["Name"], "of the other");
        assert_eq!(told.change["fields"]["Industry"], Json::Null);
    }
    assert_eq!(count, ACCOUNTS);
    assert_eq!(pair.one_owner_at_a_time(&one).await, 0);
    assert_eq!(world.command(&["holes", "--all", "--json"]), json!([]));
}

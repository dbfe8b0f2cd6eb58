//! `kill -9` at random moments of the first sync and of a stream of changes: nothing lost, nothing published twice.

use std::collections::HashMap;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value as Json, json};

use super::daemon::Daemon;
use super::data::{id, tables};
use super::jobs::COMPANY_JOB;
use super::world::World;
use crate::dice::Dice;

const KILLS: u64 = 20;
const CHANGES: usize = 5_000;

#[tokio::test(flavor = "multi_thread")]
async fn kills_during_the_first_sync_lose_nothing() {
    let mut dice = Dice::rolled();
    let world = World::of(&tables(41, 85, 8_800)).await;
    for _ in 0..KILLS {
        let daemon = world.daemon().await;
        // The moment of death is the point of the test: some of the way into a sync of about a second.
        tokio::time::sleep(Duration::from_millis(dice.roll(900))).await;
        daemon.kill();
    }
    let daemon = world.daemon().await;
    daemon.synced().await;
    world.settled(&daemon).await;
    once(&world, daemon);
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_during_a_stream_lose_nothing() {
    let mut dice = Dice::rolled();
    let world = World::of(&tables(10, 300, 300)).await;
    // Nearly every company loses its industry, and nobody is to be asked.
    let job = format!("brakes = {{ max_null_percent = 100 }}\n{COMPANY_JOB}");
    world.put("jobs/acme/company_sync.toml", &job);
    let daemon = world.daemon().await;
    daemon.synced().await;
    // A stream that has told no position yet begins anew after a kill: its events come again and are published again.
    world.commit(&[vec![any_change(&mut dice, 0)]]).await;
    world.settled(&daemon).await;
    daemon.kill();
    let mut done = 0;
    for _ in 0..KILLS {
        let daemon = world.daemon().await;
        let share = CHANGES / usize::try_from(KILLS).unwrap();
        let mut fatal = dice.roll(share as u64);
        for _ in 0..share / 25 {
            let batch: Vec<Vec<Json>> =
                (0..25).map(|_| vec![any_change(&mut dice, done)]).collect();
            done += 25;
            world.commit(&batch).await;
            if fatal < 25 {
                break;
            }
            fatal -= 25;
        }
        tokio::time::sleep(Duration::from_millis(dice.roll(120))).await;
        daemon.kill();
    }
    while done < CHANGES {
        let batch: Vec<Vec<Json>> = (0..50).map(|_| vec![any_change(&mut dice, done)]).collect();
        done += 50;
        world.commit(&batch).await;
    }
    let daemon = world.daemon().await;
    world.settled(&daemon).await;
    let health = daemon.health().await;
    assert_eq!(health["connections"]["acme"]["open_holes"], 0);
    assert_eq!(world.command(&["holes", "--all", "--json"]), json!([]));
    once(&world, daemon);
}

fn any_change(dice: &mut Dice, number: usize) -> Json {
    let account = id("001", usize::try_from(dice.roll(300)).unwrap());
    match dice.roll(4) {
        0 => {
            json!({ "op": "update", "object": "Account", "id": account, "fields": { "Name": format!("Name {number}") } })
        }
        1 => {
            json!({ "op": "update", "object": "Account", "id": account, "fields": { "NumberOfEmployees": number } })
        }
        2 => {
            json!({ "op": "update", "object": "Account", "id": account, "fields": { "Industry": null } })
        }
        _ => {
            json!({ "op": "update", "object": "Opportunity", "id": id("006", usize::try_from(dice.roll(300)).unwrap()),
                     "fields": { "Amount": number, "AccountId": account } })
        }
    }
}

/// No event of the stream stands in a topic twice.
fn once(world: &World, daemon: Daemon) {
    let (status, lines) = daemon.stop();
    assert!(status.success(), "{lines}");
    for object in ["Account", "Opportunity", "User"] {
        let file = world.home.path().join(format!("{object}.jsonl"));
        let exported = Command::new(env!("CARGO_BIN_EXE_tributary"))
            .args([
                "topics",
                "export",
                &format!("{}.acme.{object}", world.prefix),
            ])
            .arg(&file)
            .arg("--config")
            .arg(world.config())
            .output()
            .unwrap();
        assert!(
            exported.status.success(),
            "{}",
            String::from_utf8_lossy(&exported.stderr)
        );
        let mut seen: HashMap<String, usize> = HashMap::new();
        for line in std::fs::read_to_string(&file).unwrap().lines() {
            let record: Json = serde_json::from_str(line).unwrap();
            let change = &record["value"]["json"];
            if change["origin"] == "stream" {
                let event = format!("{} {}", change["transaction"], change["id"]);
                *seen.entry(event).or_default() += 1;
            }
        }
        let twice: Vec<_> = seen.iter().filter(|(_, times)| **times > 1).collect();
        assert!(twice.is_empty(), "published twice: {twice:?}");
    }
}

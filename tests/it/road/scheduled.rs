//! Fields that do not move in real time are written by full syncs.

use std::time::Instant;

use serde_json::{Value as Json, json};

use super::daemon::Daemon;
use super::data::{id, tables};
use super::store::Row;
use super::world::{LOOK, PATIENCE, World};

async fn company(world: &World, number: usize) -> Option<Row> {
    let mut rows = world.rows("company", "salesforce_account_id").await;
    rows.remove(&id("001", number))
}

/// The row of that name, once it is there.
async fn named(world: &World, daemon: &Daemon, name: &str) -> Row {
    let until = Instant::now() + PATIENCE;
    loop {
        let mut rows = world.store.rows("company").await.into_iter();
        if let Some(row) = rows.find(|row| row["name"] == name) {
            return row;
        }
        assert!(Instant::now() < until, "{name} never\n{}", daemon.tail());
        tokio::time::sleep(LOOK).await;
    }
}

fn sync(world: &World, daemon: &Daemon) {
    let ask = ["sync", "acme", "Account", "--json", "--url", daemon.url()];
    world.command(&ask);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_field_that_is_not_listed_waits_for_the_full_sync() {
    let world = World::of(&tables(5, 20, 50)).await;
    let job = world.config().join("jobs/acme/company_sync.toml");
    let text = std::fs::read_to_string(&job).unwrap();
    let listed = "realtime_fields = [\"Name\"]\n[to.Company]";
    std::fs::write(&job, text.replacen("[to.Company]", listed, 1)).unwrap();
    let daemon = world.daemon().await;
    daemon.synced().await;
    world.settled(&daemon).await;
    let before = company(&world, 3).await.unwrap();
    let update = |fields: Json| json!({ "op": "update", "object": "Account", "id": id("001", 3), "fields": fields });
    let all = json!({ "Name": "at once", "Industry": null, "NumberOfEmployees": 4711, "ParentId": id("001", 5) });
    let new = json!({ "Name": "new", "Industry": "Media", "NumberOfEmployees": 1 });
    let new = json!({ "op": "create", "object": "Account", "fields": new });
    world.commit(&[vec![update(all)], vec![new]]).await;
    let row = named(&world, &daemon, "at once").await;
    for column in ["industry", "employees", "parent_company"] {
        assert_eq!(row[column], before[column], "{column}");
    }
    let explained = world.command(&["explain", "acme", "Account", &id("001", 3), "--json"]);
    let waits = &explained["jobs"][0]["destinations"][0]["waits_for_full_sync"];
    let waits: Vec<&str> = waits
        .as_array()
        .unwrap()
        .iter()
        .flat_map(Json::as_str)
        .collect();
    assert!(
        waits.contains(&"industry") && !waits.contains(&"name"),
        "{waits:?}"
    );
    let row = named(&world, &daemon, "new").await;
    assert_eq!(row["industry"], "Media", "a new row is whole");
    // The full sync reads what the stream told already, and writes it.
    sync(&world, &daemon);
    world.settled(&daemon).await;
    assert_eq!(company(&world, 3).await.unwrap()["industry"], Json::Null);
    let later = json!({ "Name": "once more", "Industry": "Media" });
    world.commit(&[vec![update(later)]]).await;
    let row = named(&world, &daemon, "once more").await;
    assert_eq!(row["industry"], Json::Null);
    let (status, lines) = daemon.stop();
    assert!(status.success(), "{lines}");

    // Without its images the daemon knows from the topic what no full sync has told.
    for file in ["images.db", "images.db-wal", "images.db-shm"] {
        std::fs::remove_file(world.config().join("data").join(file)).ok();
    }
    let daemon = world.daemon().await;
    sync(&world, &daemon);
    world.settled(&daemon).await;
    assert_eq!(company(&world, 3).await.unwrap()["industry"], "Media");
    let (status, lines) = daemon.stop();
    assert!(status.success(), "{lines}");
}

//! Identifiers that were changed are asked again: two companies that one name had made one come apart.

use std::time::Instant;

use serde_json::{Value as Json, json};

use super::daemon::Daemon;
use super::data::tables;
use super::world::{LOOK, PATIENCE, World};

fn rematch(world: &World, daemon: &Daemon, dry: bool) -> Json {
    let mut told = vec!["job", "rematch", "acme/company_sync", "--json"];
    told.extend(dry.then_some("--dry-run"));
    told.extend(["--url", daemon.url()]);
    world.command(&told)
}

async fn companies(world: &World, count: usize) {
    let until = Instant::now() + PATIENCE;
    loop {
        let rows = world.store.rows("company").await;
        if rows.len() == count {
            return;
        }
        assert!(Instant::now() < until, "{} companies stay", rows.len());
        tokio::time::sleep(LOOK).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_move_to_the_rows_that_new_identifiers_say() {
    let mut tables = tables(5, 20, 20);
    for (_, table) in &mut tables {
        *table = table.replace(",Company 4,", ",Company 3,");
    }
    let world = World::of(&tables).await;
    let file = world.config().join("jobs/acme/company_sync.toml");
    let by_id = std::fs::read_to_string(&file).unwrap();
    let identifiers = "identifiers = [\"salesforce_account_id\"]";
    assert!(by_id.contains(identifiers));
    let by_name = by_id.replace(identifiers, "identifiers = [\"name\"]");
    std::fs::write(&file, by_name).unwrap();
    let daemon = world.daemon().await;
    daemon.synced().await;
    companies(&world, 19).await;
    let none = rematch(&world, &daemon, true);
    assert_eq!(none["moves"], json!([]), "{none:#}");
    let (status, lines) = daemon.stop();
    assert!(status.success(), "{lines}");

    std::fs::write(&file, by_id).unwrap();
    let daemon = world.daemon().await;
    daemon.synced().await;
    let dry = rematch(&world, &daemon, true);
    let moves = dry["moves"].as_array().unwrap();
    assert_eq!(moves.len(), 1, "{dry:#}");
    assert_eq!(
        (&moves[0]["table"], &moves[0]["to"]),
        (&json!("company"), &json!("new"))
    );
    companies(&world, 19).await;
    let done = rematch(&world, &daemon, false);
    assert_eq!(done["moves"], dry["moves"]);
    companies(&world, 20).await;
    let by_account = world.rows("company", "salesforce_account_id").await;
    assert_eq!(by_account.len(), 20);
    // Its opportunities, which no event told of, refer to the row that the account has now.
    world.settled(&daemon).await;
    let none = rematch(&world, &daemon, true);
    assert_eq!(none["moves"], json!([]), "{none:#}");
    let (status, lines) = daemon.stop();
    assert!(status.success(), "{lines}");
}

//! `verify` beside the daemon: source and store agree, until the org loses a record that no event told of, or somebody
//! changes a row of the store.

use std::process::Command;

use serde_json::{Value as Json, json};

use super::data::{id, tables};
use super::store::{STORE_PASSWORD, STORE_PASSWORD_IN};
use super::world::{SECRET, World};

/// What `verify` prints, after a second look that waits for nothing: all is settled. Exit code 3: something differs.
fn verify(world: &World, arguments: &[&str], agrees: bool) -> Json {
    let output = Command::new(env!("CARGO_BIN_EXE_tributary"))
        .args(["verify", "acme", "--json", "--wait", "0"])
        .args(arguments)
        .env(STORE_PASSWORD_IN, STORE_PASSWORD)
        .env("ACME_SECRET", SECRET)
        .arg("--config")
        .arg(world.config())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    let code = if agrees { 0 } else { 3 };
    assert_eq!(output.status.code(), Some(code), "{text}\n{complaint}");
    serde_json::from_str(&text).unwrap()
}

/// Compared, equal, different, missing, extra.
fn counts(told: &Json, object: &str) -> [u64; 5] {
    let told = &told["objects"][object];
    let count = |name: &str| told[name].as_u64().unwrap();
    ["compared", "equal", "different", "missing", "extra"].map(count)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_event_told_is_found_and_nothing_is_changed() {
    let world = World::of(&tables(5, 20, 50)).await;
    let daemon = world.daemon().await;
    daemon.synced().await;
    world.settled(&daemon).await;
    let all = verify(&world, &[], true);
    assert_eq!(counts(&all, "User"), [5, 5, 0, 0, 0], "{all:#}");
    assert_eq!(counts(&all, "Account"), [20, 20, 0, 0, 0], "{all:#}");
    assert_eq!(counts(&all, "Opportunity"), [50, 50, 0, 0, 0], "{all:#}");

    let gone = id("006", 7);
    let delete = json!({ "op": "hard_delete", "object": "Opportunity", "id": gone });
    world.commit(&[vec![delete]]).await;
    for _ in 0..2 {
        let told = verify(&world, &["Opportunity"], false);
        assert_eq!(counts(&told, "Opportunity"), [50, 49, 0, 0, 1], "{told:#}");
        assert_eq!(
            told["objects"]["Opportunity"]["found"],
            json!([{ "record": gone, "how": "extra", "fields": ["image", "opportunity"] }])
        );
    }
    let some = verify(&world, &["Account", "--sample", "7"], true);
    assert_eq!(counts(&some, "Account"), [7, 7, 0, 0, 0], "{some:#}");
    let (status, lines) = daemon.stop();
    assert!(status.success(), "{lines}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_somebody_changed_is_named_by_record_and_column() {
    let world = World::of(&tables(5, 20, 20)).await;
    let daemon = world.daemon().await;
    daemon.synced().await;
    world.settled(&daemon).await;
    let changed = id("001", 3);
    let row = format!("WHERE salesforce_account_id = '{changed}'");
    let set = format!("SET industry = 'tampered', employees = employees + 1 {row}");
    world.store.tamper("company", &set).await;
    let columns = ["company.employees", "company.industry"];
    for sample in [&[][..], &["--sample", "20"]] {
        let told = verify(&world, &[&["Account"], sample].concat(), false);
        assert_eq!(counts(&told, "Account"), [20, 19, 1, 0, 0], "{told:#}");
        let account = &told["objects"]["Account"];
        assert_eq!(account["fields"], json!({ columns[0]: 1, columns[1]: 1 }));
        assert_eq!(
            account["found"],
            json!([{ "record": changed, "how": "different", "fields": columns }])
        );
    }
    let others = verify(&world, &["Opportunity"], true);
    assert_eq!(
        counts(&others, "Opportunity"),
        [20, 20, 0, 0, 0],
        "{others:#}"
    );
    let (status, lines) = daemon.stop();
    assert!(status.success(), "{lines}");
}

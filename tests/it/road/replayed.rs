//! Replays beside the daemon: into a scratch store, without a call to the CRM, and what differs from the live one.

use std::sync::Arc;

use serde_json::{Value as Json, json};

use super::data::{id, tables};
use super::world::World;
use crate::postgres::Server;

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_tells_just_what_differs_in_a_file() {
    replays(World::on_sqlite(&tables(12, 40, 300)).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_tells_just_what_differs_in_a_database() {
    let server: Arc<Server> = Server::shared();
    let world = World::on_postgres(&tables(12, 40, 300), &server).await;
    let denied = world.command(&["job", "preview", "acme", "--json"]);
    assert_eq!(denied["kind"], "permission", "{denied}");
    world.store.let_schemas_be_made().await;
    replays(world).await;
}

async fn replays(world: World) {
    let daemon = world.daemon().await;
    daemon.synced().await;
    world.settled(&daemon).await;
    // A history that the topic tells shorter than it was.
    let (gone, moved) = (id("001", 3), id("006", 7));
    world
        .commit(&[
            vec![json!({ "op": "delete", "object": "Account", "id": gone })],
            vec![json!({ "op": "update", "object": "Opportunity", "id": moved, "fields": { "AccountId": id("001", 9) } })],
            vec![json!({ "op": "update", "object": "User", "id": id("005", 1), "fields": { "ManagerId": id("005", 2) } })],
        ])
        .await;
    world.settled(&daemon).await;
    let calls = world.counts().await["calls"].clone();

    let all = world.command(&["job", "replay", "acme", "--into", "again", "--json"]);
    for (job, records) in [
        ("user_sync", 12),
        ("company_sync", 39),
        ("opportunity_sync", 300),
    ] {
        let told = &of(&all, job)["destinations"][0];
        let equal = told["equal"].as_u64().unwrap();
        // The deleted account is equal too: neither store has a row of it.
        assert!(equal == records || equal == records + 1, "{job}: {told}");
        for differs in ["different", "live_only", "replay_only", "moved_on"] {
            assert_eq!(told[differs], 0, "{job}: {told}");
        }
    }
    assert_eq!(
        world.counts().await["calls"],
        calls,
        "a replay asks the CRM for nothing"
    );

    // A scratch store is not overwritten unless told.
    let refused = world.command(&["job", "replay", "acme", "--into", "again", "--json"]);
    assert_eq!(refused["kind"], "config", "{refused}");

    let job = world.config().join("jobs/acme/company_sync.toml");
    let text = std::fs::read_to_string(&job).unwrap();
    let text = text.replace("industry = \"Industry\"", "industry = \"BillingCountry\"");
    std::fs::write(&job, text).unwrap();
    let preview = world.command(&[
        "job",
        "preview",
        "acme/company_sync",
        "--json",
        "--limit",
        "1000",
    ]);
    let told = &of(&preview, "company_sync")["destinations"][0];
    let truth = world.truth("Account").await;
    let changed: Vec<&String> = truth
        .iter()
        .filter(|(_, account)| account["Industry"] != account["BillingCountry"])
        .map(|(id, _)| id)
        .collect();
    assert_eq!(
        told["columns"],
        json!({ "industry": changed.len() }),
        "{told}"
    );
    let differences = told["differences"].as_array().unwrap();
    for (difference, id) in differences.iter().zip(&changed) {
        let column = &difference["difference"][0];
        assert_eq!(difference["record"], json!(id));
        assert_eq!(column["live"], truth[*id]["Industry"]);
        assert_eq!(column["replay"], truth[*id]["BillingCountry"]);
        assert_eq!(column["rule"], "BillingCountry");
    }
    assert_eq!(differences.len(), changed.len());

    // What the live store lost behind the daemon's back is told as well, and the replay is the way to find it.
    let replaced = world.command(&[
        "job",
        "replay",
        "acme/opportunity_sync",
        "--into",
        "again",
        "--replace",
        "--json",
    ]);
    assert_eq!(
        of(&replaced, "opportunity_sync")["destinations"][0]["equal"],
        300
    );
    let (status, lines) = daemon.stop();
    assert!(status.success(), "{lines}");
}

/// Every record of a sales org, replayed: nothing differs, and after a change of mappings just the columns of these do.
#[tokio::test(flavor = "multi_thread")]
async fn a_replay_of_a_sales_org_tells_no_difference_and_then_the_changed_fields() {
    const RECORDS: [(&str, &str, u64); 3] = [
        ("user_sync", "User", 35),
        ("company_sync", "Account", 265),
        ("opportunity_sync", "Opportunity", 1200),
    ];
    let world = World::of(&tables(35, 265, 1200)).await;
    world.store.let_schemas_be_made().await;
    let daemon = world.daemon().await;
    daemon.synced().await;
    world.settled(&daemon).await;
    let replay = ["job", "replay", "acme", "--into", "again", "--json"];
    let (code, all) = world.ran(&replay);
    assert_eq!(code, Some(0), "beside the daemon, no difference: {all}");
    let (status, lines) = daemon.stop();
    assert!(status.success(), "{lines}");

    // Nobody calls from here on but who replays.
    let calls = world.counts().await["calls"].clone();
    let replace = [&replay[..], &["--replace"]].concat();
    let (code, all) = world.ran(&replace);
    assert_eq!(code, Some(0), "{all}");
    for (job, _, records) in RECORDS {
        let report = of(&all, job);
        assert_eq!(report["refused"], 0, "{report}");
        let told = &report["destinations"][0];
        assert_eq!(told["equal"], records, "{told}");
        assert_eq!(
            (&told["columns"], &told["differences"]),
            (&json!({}), &json!([]))
        );
    }
    let (code, refused) = world.ran(&replay);
    assert_eq!((code, &refused["kind"]), (Some(2), &json!("config")));

    world.edit(
        "jobs/acme/company_sync.toml",
        "= \"Industry\"",
        "= \"BillingCountry\"",
    );
    let stage = ("stage = \"StageName\"", "stage = \"Type\"");
    world.edit("jobs/acme/opportunity_sync.toml", stage.0, stage.1);
    let (code, all) = world.ran(&replace);
    assert_eq!(code, Some(3), "there are differences: {all}");
    let differ = async |object: &str, one: &str, other: &str| {
        let truth = world.truth(object).await;
        truth.values().filter(|it| it[one] != it[other]).count() as u64
    };
    let expected = [
        None,
        Some((
            "industry",
            differ("Account", "Industry", "BillingCountry").await,
        )),
        Some(("stage", differ("Opportunity", "StageName", "Type").await)),
    ];
    for ((job, object, records), changed) in RECORDS.into_iter().zip(expected) {
        let told = &of(&all, job)["destinations"][0];
        let (columns, different) = match changed {
            Some((column, count)) => (json!({ column: count }), count),
            None => (json!({}), 0),
        };
        assert!(
            different > 0 || changed.is_none(),
            "{object} tells too little"
        );
        assert_eq!(told["columns"], columns, "{object}: {told}");
        assert_eq!(told["different"], different, "{object}: {told}");
        assert_eq!(told["equal"], records - different, "{object}: {told}");
        for none in ["live_only", "replay_only", "moved_on"] {
            assert_eq!(told[none], 0, "{object}: {told}");
        }
    }
    let after = &world.counts().await["calls"];
    assert_eq!(*after, calls, "a replay asks the CRM for nothing");
}

fn of<'a>(report: &'a Json, job: &str) -> &'a Json {
    let mut jobs = report["jobs"]
        .as_array()
        .unwrap_or_else(|| panic!("{report}"))
        .iter();
    jobs.find(|told| told["job"] == job).unwrap()
}

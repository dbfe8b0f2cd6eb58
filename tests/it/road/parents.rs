//! Fields of parents in rows of their children: at the first sync, and whenever child or parent changes.

use std::time::Instant;

use serde_json::{Value as Json, json};

use super::daemon::Daemon;
use super::data::{id, tables};
use super::jobs::OPPORTUNITY_JOB;
use super::world::{LOOK, PATIENCE, World};

const COLUMNS: &str = "[fields.account_name]\ntype = \"string\"\n[fields.owner_email]\ntype = \"email\"\n\
                       [fields.boss_email]\ntype = \"email\"\n";
const FILTER: &str = "source = \"Opportunity\"\nwhere = \"Account.Industry != 'blocked'\"\non_filter_exit = \"delete\"";
const MAP: &str = "[to.Opportunity.map]\naccount_name = \"Account.Name\"\nowner_email = \"Owner.Email\"\n\
                   boss_email = \"Owner.Manager.Email\"";

impl World {
    /// Opportunities have columns of their account, their owner and the owner's manager, and a filter on the account.
    fn join(&self) {
        let job = OPPORTUNITY_JOB
            .replace("source = \"Opportunity\"", FILTER)
            .replace("[to.Opportunity.map]", MAP);
        let files = [
            ("objects/opportunity.toml", COLUMNS.to_owned()),
            ("jobs/acme/opportunity_sync.toml", job),
        ];
        for (name, text) in files {
            std::fs::write(self.config().join(name), text).unwrap();
        }
    }

    /// Where a row does not show its parents as they are.
    async fn unlike(&self) -> Vec<String> {
        let (accounts, users) = (self.truth("Account").await, self.truth("User").await);
        let rows = self.rows("opportunity", "external_id").await;
        let mut found = Vec::new();
        let of = |all: &std::collections::BTreeMap<String, Json>, id: &Json| {
            let parent = id.as_str().and_then(|id| all.get(id));
            parent.cloned().unwrap_or(Json::Null)
        };
        for (id, deal) in self.truth("Opportunity").await {
            let (account, owner) = (
                of(&accounts, &deal["AccountId"]),
                of(&users, &deal["OwnerId"]),
            );
            let boss = of(&users, &owner["ManagerId"]);
            let expected = [&account["Name"], &owner["Email"], &boss["Email"]];
            let is_blocked = account["Industry"] == "blocked";
            let shown = rows.get(&id).map(|row| {
                ["account_name", "owner_email", "boss_email"].map(|column| &row[column])
            });
            let holds = match &shown {
                Some(shown) => !is_blocked && *shown == expected,
                None => is_blocked,
            };
            if !holds {
                found.push(format!("{id}: {shown:?}, in the org {expected:?}"));
            }
        }
        found
    }

    async fn like(&self, daemon: &Daemon) {
        let until = Instant::now() + PATIENCE;
        loop {
            let found = self.unlike().await;
            let Some(first) = found.first() else {
                return;
            };
            assert!(
                Instant::now() < until,
                "{} rows differ, first {first}\n{}",
                found.len(),
                daemon.tail()
            );
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn update(&self, object: &str, id: &str, fields: Json) {
        let op = json!({"op": "update", "object": object, "id": id, "fields": fields});
        self.commit(&[vec![op]]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_show_their_parents_as_they_are() {
    let world = World::of(&tables(12, 10, 60)).await;
    world.join();
    let daemon = world.daemon().await;
    daemon.synced().await;
    world.like(&daemon).await;
    // Each kind of parent, one step and two steps away.
    world
        .update("Account", &id("001", 1), json!({"Name": "Renamed"}))
        .await;
    world
        .update(
            "User",
            &id("005", 2),
            json!({"Email": "new@seller.example"}),
        )
        .await;
    world
        .update(
            "User",
            &id("005", 11),
            json!({"Email": "boss@seller.example"}),
        )
        .await;
    world.like(&daemon).await;
    // The child moves: to another parent, to none, and back; and a new one comes.
    for account in [json!(id("001", 2)), Json::Null, json!(id("001", 1))] {
        world
            .update("Opportunity", &id("006", 1), json!({"AccountId": account}))
            .await;
        world.like(&daemon).await;
    }
    let fields = json!({"Name": "New", "StageName": "Won", "CloseDate": "2026-01-01",
        "AccountId": id("001", 1), "OwnerId": id("005", 3)});
    let create = json!({"op": "create", "object": "Opportunity", "fields": fields});
    world.commit(&[vec![create]]).await;
    world.like(&daemon).await;
    // A parent's change decides what passes the filter.
    for industry in ["blocked", "retail"] {
        world
            .update("Account", &id("001", 1), json!({"Industry": industry}))
            .await;
        world.like(&daemon).await;
    }
    // Nothing is left behind by a kill.
    daemon.kill();
    world
        .update(
            "Account",
            &id("001", 3),
            json!({"Name": "While it was down"}),
        )
        .await;
    let daemon = world.daemon().await;
    world
        .update("Account", &id("001", 4), json!({"Name": "While it starts"}))
        .await;
    world.like(&daemon).await;
    // What the CRM describes anew is what it was: the stream goes on.
    world.command(&[
        "metadata",
        "refresh",
        "acme",
        "--json",
        "--url",
        daemon.url(),
    ]);
    let (status, lines) = daemon.stop();
    assert!(status.success(), "{lines}");
    assert!(!lines.contains("begins anew"), "{lines}");
}

/// Nobody reads accounts: a deal that comes or moves is read, and what the account does is found by a full sync.
#[tokio::test(flavor = "multi_thread")]
async fn a_parent_that_no_job_reads_comes_with_the_childs_reads() {
    let world = World::of(&tables(4, 5, 20)).await;
    world.join();
    for job in ["company_sync", "user_sync"] {
        let file = world.config().join(format!("jobs/acme/{job}.toml"));
        std::fs::remove_file(file).unwrap();
    }
    let daemon = world.daemon().await;
    daemon
        .wait_for("the first sync", |health| {
            let deals = &health["connections"]["acme"]["objects"]["Opportunity"];
            !deals["synced_at"].is_null()
        })
        .await;
    world.like(&daemon).await;
    world
        .update(
            "Opportunity",
            &id("006", 1),
            json!({"AccountId": id("001", 4)}),
        )
        .await;
    world.like(&daemon).await;
    world
        .update("Account", &id("001", 4), json!({"Name": "Renamed"}))
        .await;
    let ask = [
        "sync",
        "acme",
        "Opportunity",
        "--json",
        "--url",
        daemon.url(),
    ];
    world.command(&ask);
    world.like(&daemon).await;
}

/// Who refers to a record that is deleted refers to nothing, and to the same row once it is back.
#[tokio::test(flavor = "multi_thread")]
async fn children_of_a_deleted_parent_are_asked_anew() {
    let world = World::of(&tables(4, 5, 20)).await;
    let daemon = world.daemon().await;
    daemon.synced().await;
    world.settled(&daemon).await;
    let account = id("001", 1);
    let before = world.rows("opportunity", "external_id").await;
    for op in ["delete", "undelete"] {
        let deed = json!({ "op": op, "object": "Account", "id": account });
        world.commit(&[vec![deed]]).await;
        world.settled(&daemon).await;
        let deals = world.truth("Opportunity").await;
        let mut deals = deals.values();
        assert!(deals.any(|deal| deal["AccountId"] == json!(account)));
    }
    let after = world.rows("opportunity", "external_id").await;
    for (id, row) in &before {
        assert_eq!(after[id]["company_id"], row["company_id"], "{id}");
    }
}

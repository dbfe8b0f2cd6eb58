//! Two Salesforce orgs in one daemon, whose records have the same ids: what one tells moves nothing of the other.

use std::collections::BTreeMap;
use std::time::Instant;

use serde_json::{Value as Json, json};
use tributary_sim::salesforce::{Running, SimOptions, start};

use super::daemon::Daemon;
use super::data::id;
use super::world::{CLIENT, LOOK, PATIENCE, SECRET, World, main_section};
use crate::sim;

const ORGS: [&str; 2] = ["acme", "umbrella"];
const ACCOUNTS: usize = 30;
const COLUMNS: &str =
    "[fields]\nacme_id = { type = \"string\" }\numbrella_id = { type = \"string\" }\n";

fn accounts(of: &str) -> Vec<(String, String)> {
    let rows = (0..ACCOUNTS).map(|number| format!("{},{of} {number}\n", id("001", number)));
    let csv = format!("Id,Name\n{}", rows.collect::<String>());
    vec![("Account.csv".to_owned(), csv)]
}

struct Two {
    world: World,
    other: Running,
    _data: tempfile::TempDir,
}

impl Two {
    async fn begin() -> Self {
        let world = World::bare(accounts(ORGS[0]), SimOptions::default()).await;
        let data = tempfile::tempdir().unwrap();
        for (name, text) in accounts(ORGS[1]) {
            std::fs::write(data.path().join(name), text).unwrap();
        }
        let other = start(SimOptions {
            data: Some(data.path().to_owned()),
            client_id: CLIENT.to_owned(),
            client_secret: SECRET.to_owned(),
            seed: 77,
            keepalive_seconds: Some(1),
            ..SimOptions::default()
        })
        .await
        .unwrap();
        world.put("tributary.toml", &main_section(&world.prefix, &world.store));
        world.put("objects/company.toml", COLUMNS);
        let transports = [
            "transport = \"cometd\"\n".to_owned(),
            format!("pubsub_address = \"{}\"\n", other.pubsub_url),
        ];
        for ((name, url), transport) in ORGS
            .iter()
            .zip([&world.org.url, &other.url])
            .zip(transports)
        {
            let connection = world.connection(url, &transport);
            world.put(&format!("connections/{name}.toml"), &connection);
            let job = format!(
                "source = \"Account\"\non_delete = \"delete\"\n[to.Company]\nidentifiers = [\"{name}_id\"]\n\
                 [to.Company.map]\n{name}_id = \"Id\"\nname = \"Name\"\n"
            );
            world.put(&format!("jobs/{name}/company_sync.toml"), &job);
        }
        Self {
            world,
            other,
            _data: data,
        }
    }

    /// One operation in one of the orgs.
    async fn does(&self, org: usize, operation: Json) {
        let url = [&self.world.org.url, &self.other.url][org];
        let order = json!({ "transactions": [{ "ops": [operation] }] });
        sim::order(&self.world.http, url, "transactions", &order).await;
    }

    /// Names by connection and id, in the orgs.
    async fn there(&self) -> BTreeMap<(String, String), Json> {
        let mut found = BTreeMap::new();
        for (name, url) in ORGS.iter().zip([&self.world.org.url, &self.other.url]) {
            let told = sim::told(&self.world.http, url, "records/Account").await;
            for record in told["records"].as_array().unwrap() {
                if record["IsDeleted"] != json!(true) {
                    let id = record["Id"].as_str().unwrap().to_owned();
                    found.insert(((*name).to_owned(), id), record["Name"].clone());
                }
            }
        }
        found
    }

    /// The same in the store, where each row is of one org.
    async fn here(&self) -> BTreeMap<(String, String), Json> {
        let mut found = BTreeMap::new();
        for row in self.world.store.rows("company").await {
            let of = ORGS.map(|name| row[&format!("{name}_id")].as_str().map(str::to_owned));
            let key = match of {
                [Some(id), None] => (ORGS[0].to_owned(), id),
                [None, Some(id)] => (ORGS[1].to_owned(), id),
                of => panic!("a row of {of:?}"),
            };
            assert!(
                found.insert(key, row["name"].clone()).is_none(),
                "{row:?} twice"
            );
        }
        found
    }

    async fn agree(&self, daemon: &Daemon) {
        let until = Instant::now() + PATIENCE;
        while self.there().await != self.here().await {
            let (there, here) = (self.there().await, self.here().await);
            assert!(
                Instant::now() < until,
                "{there:#?} {here:#?}\n{}",
                daemon.tail()
            );
            tokio::time::sleep(LOOK).await;
        }
    }
}

fn update(number: usize, name: &str) -> Json {
    json!({ "op": "update", "object": "Account", "id": id("001", number), "fields": { "Name": name } })
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_ids_of_two_orgs_are_two_records() {
    let two = Two::begin().await;
    let daemon = two.world.daemon().await;
    daemon
        .wait_for("the first syncs", |health| {
            ORGS.iter().all(|name| {
                let object = &health["connections"][name]["objects"]["Account"];
                object["synced_at"].is_string()
            })
        })
        .await;
    two.agree(&daemon).await;
    assert_eq!(two.here().await.len(), 2 * ACCOUNTS);
    for org in [0, 1] {
        two.does(org, update(1, &format!("Changed in {org}"))).await;
        let delete = json!({ "op": "delete", "object": "Account", "id": id("001", 2 + org) });
        two.does(org, delete).await;
    }
    two.agree(&daemon).await;
    daemon.kill();
    for org in [0, 1] {
        two.does(org, update(5 + org, "While it was down")).await;
    }
    let daemon = two.world.daemon().await;
    two.agree(&daemon).await;
    // What one org makes of its stream is no matter of the other's.
    let lost = json!({ "do": { "kind": "inject_overflow", "entity": "Account" } });
    sim::order(&two.world.http, &two.other.url, "faults", &lost).await;
    let until = Instant::now() + PATIENCE;
    let of = |told: &Json, key: &str| told[0][key].as_str().unwrap_or_default().to_owned();
    loop {
        let told = two.world.command(&["holes", "--all", "--json"]);
        if of(&told, "state") == "closed" {
            assert_eq!(of(&told, "connection"), ORGS[1]);
            assert_eq!(told.as_array().unwrap().len(), 1);
            break;
        }
        assert!(Instant::now() < until, "{told:#}\n{}", daemon.tail());
        tokio::time::sleep(LOOK).await;
    }
    two.agree(&daemon).await;
    assert!(daemon.stop().0.success());
}

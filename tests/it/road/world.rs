//! A world to test the road in: an org over HTTP, a daemon that can be killed, and the question whether they agree.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};
use tributary_sim::salesforce::{Running, SimOptions, start};

use super::daemon::Daemon;
use super::jobs::{
    COMPANY_COLUMNS, COMPANY_JOB, EXTRA, OPPORTUNITY_COLUMNS, OPPORTUNITY_JOB, USER_COLUMNS,
    USER_JOB,
};
use super::store::{Row, STORE_PASSWORD, STORE_PASSWORD_IN, Store};
use crate::postgres::Server;
use crate::sim;

/// The longest that anything may take; a wait on a state ends far sooner.
pub const PATIENCE: Duration = Duration::from_secs(90);
pub const LOOK: Duration = Duration::from_millis(15);

pub const CLIENT: &str = "demo";
pub const SECRET: &str = "demo-secret";

/// An org, a place for the daemon's files, and whichever daemon runs.
pub struct World {
    pub org: Running,
    /// What the world's topics begin with: a broker may hold those of other worlds.
    pub prefix: String,
    pub home: tempfile::TempDir,
    pub store: Store,
    pub http: reqwest::Client,
}

impl World {
    /// An org with the CSV files in `data`, and a config of three jobs. The log is the embedded one, or the Kafka cluster
    /// that `TRIBUTARY_TEST_KAFKA` names; the store is [`Store::chosen`].
    pub async fn of(data: &[(&str, String)]) -> Self {
        Self::in_org(data, SimOptions::default()).await
    }

    /// The same in an org that is started so.
    pub async fn in_org(data: &[(&str, String)], options: SimOptions) -> Self {
        let home = tempfile::tempdir().unwrap();
        let store = Store::chosen(&name_of(&home), &home.path().join("config/data")).await;
        Self::with(data, home, store, options).await
    }

    /// The same with its rows in a database on `server`.
    pub async fn on_postgres(data: &[(&str, String)], server: &std::sync::Arc<Server>) -> Self {
        let home = tempfile::tempdir().unwrap();
        let store = Store::postgres(std::sync::Arc::clone(server), &name_of(&home)).await;
        // Whoever is killed again and again is told the same events again and again.
        let options = SimOptions {
            event_limit: 1_000_000,
            ..SimOptions::default()
        };
        Self::with(data, home, store, options).await
    }

    /// The same with its rows in a file.
    pub async fn on_sqlite(data: &[(&str, String)]) -> Self {
        let home = tempfile::tempdir().unwrap();
        let store = Store::Sqlite(home.path().join("config/data/store.db"));
        Self::with(data, home, store, SimOptions::default()).await
    }

    /// The same with objects read by bulk queries, whose results have pages of so many rows.
    pub async fn by_bulk(data: &[(&str, String)], page: usize) -> Self {
        let home = tempfile::tempdir().unwrap();
        let store = Store::chosen(&name_of(&home), &home.path().join("config/data")).await;
        let options = SimOptions {
            bulk_page_size: page,
            ..SimOptions::default()
        };
        let world = Self::with(data, home, store, options).await;
        let file = world.config().join("connections/acme.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(file, format!("{text}bulk_from = 1\n")).unwrap();
        world
    }

    async fn with(
        data: &[(&str, String)],
        home: tempfile::TempDir,
        store: Store,
        options: SimOptions,
    ) -> Self {
        let files = data.iter();
        let files = files.map(|(name, text)| (format!("{name}.csv"), text.clone()));
        let world = Self::at(files.collect(), home, store, options).await;
        world.write_config(&world.org.url.clone());
        world
    }

    /// An org with these files, and no config.
    pub async fn bare(files: Vec<(String, String)>, options: SimOptions) -> Self {
        let home = tempfile::tempdir().unwrap();
        let store = Store::chosen(&name_of(&home), &home.path().join("config/data")).await;
        Self::at(files, home, store, options).await
    }

    async fn at(
        files: Vec<(String, String)>,
        home: tempfile::TempDir,
        store: Store,
        options: SimOptions,
    ) -> Self {
        let folder = home.path().join("org");
        std::fs::create_dir_all(&folder).unwrap();
        for (name, text) in files {
            std::fs::write(folder.join(name), text).unwrap();
        }
        let org = start(SimOptions {
            data: Some(folder),
            client_id: CLIENT.to_owned(),
            client_secret: SECRET.to_owned(),
            ..options
        })
        .await
        .unwrap();
        Self {
            prefix: name_of(&home),
            org,
            home,
            store,
            http: reqwest::Client::new(),
        }
    }

    /// A file of the config.
    pub fn put(&self, name: &str, text: &str) {
        let path = self.config().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// Replaces a text in a file of the config.
    pub fn edit(&self, name: &str, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.config().join(name)).unwrap();
        assert!(text.contains(from), "{name} has no `{from}`");
        self.put(name, &text.replace(from, to));
    }

    /// `connections/acme.toml`, by a transport.
    pub fn connection(&self, org: &str, transport: &str) -> String {
        format!(
            "kind = \"salesforce\"\n{transport}org = \"{org}\"\nplain_text = true\nread_lag = \"0s\"\n\
             auth = {{ flow = \"client_credentials\", client_id = \"{CLIENT}\", client_secret = {{ env = \"ACME_SECRET\" }} }}\n"
        )
    }

    pub fn config(&self) -> PathBuf {
        self.home.path().join("config")
    }

    pub fn write_config(&self, org: &str) {
        let files = [
            ("tributary.toml", main_section(&self.prefix, &self.store)),
            (
                "connections/acme.toml",
                self.connection(org, "transport = \"cometd\"\n"),
            ),
            ("objects/company.toml", EXTRA.to_owned()),
            ("jobs/acme/user_sync.toml", USER_JOB.to_owned()),
            ("jobs/acme/company_sync.toml", COMPANY_JOB.to_owned()),
            (
                "jobs/acme/opportunity_sync.toml",
                OPPORTUNITY_JOB.to_owned(),
            ),
        ];
        for (name, text) in files {
            self.put(name, &text);
        }
    }

    /// Starts the daemon and waits until it serves.
    pub async fn daemon(&self) -> Daemon {
        Daemon::start(&self.config(), &self.http).await
    }

    /// One transaction an element, each of operations on records.
    pub async fn commit(&self, transactions: &[Vec<Json>]) -> Json {
        let body: Vec<Json> = transactions
            .iter()
            .map(|ops| json!({ "ops": ops }))
            .collect();
        let body = json!({ "transactions": body });
        let text = sim::order(&self.http, &self.org.url, "transactions", &body).await;
        serde_json::from_str(&text).unwrap()
    }

    pub async fn control(&self, path: &str, body: Json) {
        sim::order(&self.http, &self.org.url, path, &body).await;
    }

    /// What the org holds, by id; deleted records left out.
    pub async fn truth(&self, object: &str) -> BTreeMap<String, Json> {
        let path = format!("records/{object}");
        let found = sim::told(&self.http, &self.org.url, &path).await;
        let records = found
            .get("records")
            .unwrap_or(&found)
            .as_array()
            .unwrap()
            .clone();
        records
            .into_iter()
            .filter(|record| record["IsDeleted"] != json!(true))
            .map(|record| (record["Id"].as_str().unwrap().to_owned(), record))
            .collect()
    }

    pub async fn counts(&self) -> Json {
        sim::told(&self.http, &self.org.url, "counts").await
    }

    /// What a command prints as JSON.
    pub fn command(&self, arguments: &[&str]) -> Json {
        command(&self.config(), arguments)
    }

    /// The exit code of a command, and what it prints as JSON.
    pub fn ran(&self, arguments: &[&str]) -> (Option<i32>, Json) {
        ran(&self.config(), arguments)
    }

    /// The stored rows of a table by the column that holds the CRM's id.
    pub async fn rows(&self, table: &str, key: &str) -> BTreeMap<String, Row> {
        let rows = self.store.rows(table).await;
        rows.into_iter()
            .map(|row| (row[key].as_str().unwrap_or_default().to_owned(), row))
            .collect()
    }

    /// Waits until the store holds just what the org holds.
    pub async fn settled(&self, daemon: &Daemon) {
        let until = Instant::now() + PATIENCE;
        loop {
            let differences = self.differences().await;
            if differences.is_empty() {
                return;
            }
            assert!(
                Instant::now() < until,
                "the store does not become the org: {} differences, first {:?}\n{}",
                differences.len(),
                differences.first(),
                daemon.tail()
            );
            tokio::time::sleep(LOOK * 4).await;
        }
    }

    /// Waits until something holds.
    pub async fn until(&self, what: &str, holds: impl AsyncFn() -> bool) {
        let until = Instant::now() + PATIENCE;
        while !holds().await {
            assert!(Instant::now() < until, "{what} does not come");
            tokio::time::sleep(LOOK * 4).await;
        }
    }

    /// Waits until every hole is closed. The org's log of deletes tells whole minutes only, so one has to pass.
    pub async fn holes_close(&self, daemon: &Daemon) {
        daemon
            .wait_for("the stream", |health| {
                health["connections"]["acme"]["state"] == "streaming"
            })
            .await;
        self.control("time", json!({ "advance_seconds": 75 })).await;
        daemon
            .wait_for("the holes' end", |health| {
                health["connections"]["acme"]["open_holes"] == 0
            })
            .await;
    }

    /// Where store and org differ.
    pub async fn differences(&self) -> Vec<String> {
        let mut found = Vec::new();
        let users = self.rows("user", "salesforce_user_id").await;
        let companies = self.rows("company", "salesforce_account_id").await;
        let opportunities = self.rows("opportunity", "external_id").await;
        let gsid = |rows: &BTreeMap<String, Row>, id: &Json| {
            let row = id.as_str().and_then(|id| rows.get(id));
            row.map_or(Json::Null, |row| row["gsid"].clone())
        };
        let truth = self.truth("User").await;
        differ(&mut found, "user", &truth, &users, |record, row| {
            same(record, row, USER_COLUMNS) && row["manager"] == gsid(&users, &record["ManagerId"])
        });
        let truth = self.truth("Account").await;
        differ(&mut found, "company", &truth, &companies, |record, row| {
            same(record, row, COMPANY_COLUMNS)
                && row["parent_company"] == gsid(&companies, &record["ParentId"])
        });
        let truth = self.truth("Opportunity").await;
        differ(
            &mut found,
            "opportunity",
            &truth,
            &opportunities,
            |record, row| {
                same(record, row, OPPORTUNITY_COLUMNS)
                    && row["company_id"] == gsid(&companies, &record["AccountId"])
                    && row["owner_id"] == gsid(&users, &record["OwnerId"])
            },
        );
        found
    }
}

/// `tributary.toml`: the log is the embedded one, or the Kafka cluster that `TRIBUTARY_TEST_KAFKA` names.
pub fn main_section(prefix: &str, store: &Store) -> String {
    let url = match std::env::var("TRIBUTARY_TEST_KAFKA") {
        Ok(brokers) => format!("kafka://{brokers}"),
        Err(_) => "embedded".to_owned(),
    };
    format!(
        "[admin]\nlisten = \"127.0.0.1:0\"\n[log]\nurl = \"{url}\"\nprefix = \"{prefix}\"\n{}",
        store.section()
    )
}

/// What a command prints as JSON.
pub fn command(config: &Path, arguments: &[&str]) -> Json {
    ran(config, arguments).1
}

/// The exit code of a command, and what it prints as JSON.
pub fn ran(config: &Path, arguments: &[&str]) -> (Option<i32>, Json) {
    let output = Command::new(env!("CARGO_BIN_EXE_tributary"))
        .args(arguments)
        .env(STORE_PASSWORD_IN, STORE_PASSWORD)
        .env("ACME_SECRET", SECRET)
        .arg("--config")
        .arg(config)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let told = serde_json::from_str(&text).unwrap_or_else(|error| {
        panic!(
            "{error}: {text}\n{}",
            String::from_utf8_lossy(&output.stderr)
        )
    });
    (output.status.code(), told)
}

/// A world's own name, for topics and databases.
pub fn name_of(home: &tempfile::TempDir) -> String {
    let name = home.path().file_name().unwrap().to_string_lossy();
    name.trim_start_matches('.').to_owned()
}

fn differ(
    found: &mut Vec<String>,
    table: &str,
    truth: &Row,
    rows: &BTreeMap<String, Row>,
    equal: impl Fn(&Json, &Row) -> bool,
) {
    for (id, record) in truth {
        match rows.get(id) {
            None => found.push(format!("{table} {id} is not stored")),
            Some(row) if !equal(record, row) => {
                found.push(format!("{table} {id}: {record} is stored as {row:?}"));
            }
            Some(_) => {}
        }
    }
    for id in rows.keys().filter(|id| !truth.contains_key(*id)) {
        found.push(format!("{table} {id} is stored and not in the org"));
    }
}

fn same(record: &Json, row: &Row, columns: &[(&str, &str)]) -> bool {
    columns.iter().all(|(field, column)| {
        let (asked, stored) = (&record[*field], &row[*column]);
        match (asked, stored) {
            (Json::Bool(asked), Json::Number(stored)) => stored.as_i64() == Some(i64::from(*asked)),
            (Json::Number(asked), Json::Number(stored)) => asked.as_f64() == stored.as_f64(),
            (asked, stored) => asked == stored,
        }
    })
}

//! A world to test the road in: an org over HTTP, a daemon that can be killed, and the question whether they agree.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};
use tributary_sim::salesforce::{Running, SimOptions, start};

/// The longest that anything may take; a wait on a state ends far sooner.
const PATIENCE: Duration = Duration::from_secs(90);
const LOOK: Duration = Duration::from_millis(15);

pub const CLIENT: &str = "demo";
pub const SECRET: &str = "demo-secret";

/// An org, a place for the daemon's files, and whichever daemon runs.
pub struct World {
    pub org: Running,
    /// What the world's topics begin with: a broker may hold those of other worlds.
    pub prefix: String,
    pub home: tempfile::TempDir,
    pub http: reqwest::Client,
}

/// A daemon's process.
pub struct Daemon {
    child: Child,
    url: String,
    lines: Arc<Mutex<Vec<String>>>,
    reader: Option<std::thread::JoinHandle<()>>,
    http: reqwest::Client,
}

impl World {
    /// An org with the CSV files in `data`, and a config of three jobs.
    pub async fn of(data: &[(&str, String)]) -> Self {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("org");
        std::fs::create_dir_all(&folder).unwrap();
        for (name, text) in data {
            std::fs::write(folder.join(format!("{name}.csv")), text).unwrap();
        }
        let org = start(SimOptions {
            data: Some(folder),
            client_id: CLIENT.to_owned(),
            client_secret: SECRET.to_owned(),
            ..SimOptions::default()
        })
        .await
        .unwrap();
        let prefix = home.path().file_name().unwrap().to_string_lossy();
        let world = Self {
            prefix: prefix.trim_start_matches('.').to_owned(),
            org,
            home,
            http: reqwest::Client::new(),
        };
        world.write_config(&world.org.url.clone());
        world
    }

    pub fn config(&self) -> PathBuf {
        self.home.path().join("config")
    }

    pub fn write_config(&self, org: &str) {
        let files = [
            ("tributary.toml", self.main_section()),
            (
                "connections/acme.toml",
                format!(
                    "kind = \"salesforce\"\ntransport = \"cometd\"\norg = \"{org}\"\nplain_text = true\nread_lag = \"0s\"\n\
                     auth = {{ flow = \"client_credentials\", client_id = \"{CLIENT}\", client_secret = {{ env = \"ACME_SECRET\" }} }}\n"
                ),
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
            let path = self.config().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
    }

    /// The log is the embedded one, or the Kafka cluster that `TRIBUTARY_TEST_KAFKA` names.
    pub fn main_section(&self) -> String {
        let url = match std::env::var("TRIBUTARY_TEST_KAFKA") {
            Ok(brokers) => format!("kafka://{brokers}"),
            Err(_) => "embedded".to_owned(),
        };
        format!(
            "[admin]\nlisten = \"127.0.0.1:0\"\n[log]\nurl = \"{url}\"\nprefix = \"{}\"\n",
            self.prefix
        )
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
        let url = format!("{}/_sim/transactions", self.org.url);
        let answer = self
            .http
            .post(url)
            .json(&json!({ "transactions": body }))
            .send()
            .await
            .unwrap();
        let status = answer.status();
        let text = answer.text().await.unwrap();
        assert!(status.is_success(), "{status}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    pub async fn control(&self, path: &str, body: Json) {
        let url = format!("{}/_sim/{path}", self.org.url);
        let answer = self.http.post(url).json(&body).send().await.unwrap();
        let status = answer.status();
        assert!(
            status.is_success(),
            "{status}: {}",
            answer.text().await.unwrap()
        );
    }

    /// What the org holds, by id; deleted records left out.
    pub async fn truth(&self, object: &str) -> BTreeMap<String, Json> {
        let url = format!("{}/_sim/records/{object}", self.org.url);
        let found: Json = self
            .http
            .get(url)
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
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
        let url = format!("{}/_sim/counts", self.org.url);
        self.http
            .get(url)
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap()
    }

    /// What a command prints as JSON.
    pub fn command(&self, arguments: &[&str]) -> Json {
        let output = Command::new(env!("CARGO_BIN_EXE_tributary"))
            .args(arguments)
            .arg("--config")
            .arg(self.config())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        serde_json::from_str(&text).unwrap_or_else(|error| {
            panic!(
                "{error}: {text}\n{}",
                String::from_utf8_lossy(&output.stderr)
            )
        })
    }

    pub fn store(&self) -> PathBuf {
        self.config().join("data/store.db")
    }

    /// The stored rows of a table by the column that holds the CRM's id.
    pub fn rows(&self, table: &str, key: &str) -> BTreeMap<String, BTreeMap<String, Json>> {
        read_rows(&self.store(), table)
            .into_iter()
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
        if !self.store().exists() {
            return vec!["there is no store yet".to_owned()];
        }
        let mut found = Vec::new();
        let users = self.rows("user", "salesforce_user_id");
        let companies = self.rows("company", "salesforce_account_id");
        let opportunities = self.rows("opportunity", "external_id");
        let gsid = |rows: &BTreeMap<String, BTreeMap<String, Json>>, id: &Json| {
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

fn differ(
    found: &mut Vec<String>,
    table: &str,
    truth: &BTreeMap<String, Json>,
    rows: &BTreeMap<String, BTreeMap<String, Json>>,
    equal: impl Fn(&Json, &BTreeMap<String, Json>) -> bool,
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

fn same(record: &Json, row: &BTreeMap<String, Json>, columns: &[(&str, &str)]) -> bool {
    columns.iter().all(|(field, column)| {
        let (asked, stored) = (&record[*field], &row[*column]);
        match (asked, stored) {
            (Json::Bool(asked), Json::Number(stored)) => stored.as_i64() == Some(i64::from(*asked)),
            (Json::Number(asked), Json::Number(stored)) => asked.as_f64() == stored.as_f64(),
            (asked, stored) => asked == stored,
        }
    })
}

/// Rows of a table of a SQLite store, columns by name.
pub fn read_rows(store: &Path, table: &str) -> Vec<BTreeMap<String, Json>> {
    use rusqlite::types::ValueRef;
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let connection = rusqlite::Connection::open_with_flags(store, flags).unwrap();
    connection.busy_timeout(Duration::from_secs(5)).unwrap();
    let Ok(mut statement) = connection.prepare(&format!("SELECT * FROM \"{table}\"")) else {
        return Vec::new();
    };
    let names: Vec<String> = statement.column_names().map(str::to_owned).collect();
    let mut rows = statement.query([]).unwrap();
    let mut found = Vec::new();
    while let Some(row) = rows.next().unwrap() {
        let cells = names.iter().enumerate().map(|(index, name)| {
            let value = match row.get_ref(index).unwrap() {
                ValueRef::Null => Json::Null,
                ValueRef::Integer(number) => number.into(),
                ValueRef::Real(number) => number.into(),
                ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned().into(),
                ValueRef::Blob(_) => panic!("{table}.{name} holds bytes"),
            };
            (name.clone(), value)
        });
        found.push(cells.collect());
    }
    found
}

impl Daemon {
    pub async fn start(config: &Path, http: &reqwest::Client) -> Self {
        let mut daemon = Self::spawn(config, http, &[("ACME_SECRET", SECRET)]);
        daemon.serving().await;
        daemon
    }

    /// Waits until the process tells where it serves.
    pub async fn serving(&mut self) {
        let until = Instant::now() + PATIENCE;
        while self.url.is_empty() {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the daemon ended with {status}:\n{}", self.tail());
            }
            assert!(
                Instant::now() < until,
                "the daemon does not start:\n{}",
                self.tail()
            );
            tokio::time::sleep(LOOK).await;
            self.url = self.told_address().unwrap_or_default();
        }
    }

    /// Starts the process and waits for nothing.
    pub fn spawn(config: &Path, http: &reqwest::Client, environment: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tributary"));
        command
            .args(["serve", "--log-json", "--config"])
            .arg(config)
            .envs(environment.iter().copied());
        Self::run(command, http)
    }

    /// Starts the daemon on a disk on which no file can grow past so many KiB.
    pub fn on_a_small_disk(config: &Path, http: &reqwest::Client, kib: u32) -> Self {
        // A file that would grow past the limit fails to be written, as on a full disk.
        let script =
            format!("trap '' XFSZ; ulimit -f {kib}; exec \"$0\" serve --log-json --config \"$1\"");
        let mut command = Command::new("bash");
        command
            .args(["-c", &script, env!("CARGO_BIN_EXE_tributary")])
            .arg(config)
            .env("ACME_SECRET", SECRET);
        Self::run(command, http)
    }

    fn run(mut command: Command, http: &reqwest::Client) -> Self {
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines: Arc<Mutex<Vec<String>>> = Arc::default();
        let (stderr, kept) = (child.stderr.take().unwrap(), Arc::clone(&lines));
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                kept.lock().unwrap().push(line);
            }
        });
        Self {
            child,
            url: String::new(),
            lines,
            reader: Some(reader),
            http: http.clone(),
        }
    }

    fn told_address(&self) -> Option<String> {
        let lines = self.lines.lock().unwrap();
        let line = lines.iter().find(|line| line.contains("daemon started"))?;
        let told: Json = serde_json::from_str(line).ok()?;
        Some(format!("http://{}", told["address"].as_str()?))
    }

    pub async fn health(&self) -> Json {
        let url = format!("{}/api/v1/health", self.url);
        self.http
            .get(url)
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap()
    }

    pub async fn get(&self, path: &str) -> (u16, String) {
        let answer = self
            .http
            .get(format!("{}{path}", self.url))
            .send()
            .await
            .unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    /// Waits until the health page fulfils `holds`.
    pub async fn wait_for(&self, what: &str, holds: impl Fn(&Json) -> bool) -> Json {
        let until = Instant::now() + PATIENCE;
        loop {
            let health = self.health().await;
            if holds(&health) {
                return health;
            }
            assert!(
                Instant::now() < until,
                "{what} does not come: {health:#}\n{}",
                self.tail()
            );
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits until every object has been synced once.
    pub async fn synced(&self) {
        self.wait_for("the first sync", |health| {
            let objects = health["connections"]["acme"]["objects"].as_object();
            objects.is_some_and(|objects| {
                objects.len() == 3
                    && objects
                        .values()
                        .all(|object| !object["synced_at"].is_null())
            })
        })
        .await;
    }

    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and how it ended.
    pub fn stop(mut self) -> (ExitStatus, String) {
        let pid = self.child.id().to_string();
        let told = Command::new("bash")
            .args(["-c", "kill -TERM \"$0\"", &pid])
            .status();
        assert!(told.unwrap().success());
        let status = self.child.wait().unwrap();
        // Its last words are read when the pipe ends.
        self.reader.take().unwrap().join().unwrap();
        (status, self.tail())
    }

    /// Waits for a process that ends by itself.
    pub fn ended(mut self) -> (ExitStatus, String) {
        let status = self.child.wait().unwrap();
        // Its last words are read when the pipe ends.
        self.reader.take().unwrap().join().unwrap();
        (status, self.tail())
    }

    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    pub fn tail(&self) -> String {
        let lines = self.lines.lock().unwrap();
        lines[lines.len().saturating_sub(25)..].join("\n")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Ended already, as a rule.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

const USER_COLUMNS: &[(&str, &str)] = &[
    ("Username", "username"),
    ("Email", "email"),
    ("FirstName", "first_name"),
    ("LastName", "last_name"),
    ("Title", "user_title"),
    ("TimeZoneSidKey", "time_zone"),
    ("LocaleSidKey", "locale"),
    ("Division", "division"),
    ("UserType", "user_type"),
    ("IsActive", "is_active"),
];
const COMPANY_COLUMNS: &[(&str, &str)] = &[
    ("Name", "name"),
    ("Industry", "industry"),
    ("NumberOfEmployees", "employees"),
    ("AnnualRevenue", "annual_revenue"),
    ("YearStarted", "year_started"),
    ("BillingCountry", "billing_country"),
];
const OPPORTUNITY_COLUMNS: &[(&str, &str)] = &[
    ("Name", "name"),
    ("StageName", "stage"),
    ("Amount", "amount"),
    ("CloseDate", "close_date"),
    ("Type", "type"),
];

const EXTRA: &str = "[fields.year_started]\ntype = \"number\"\nlabel = \"Year Started\"\n";

const USER_JOB: &str = r#"
source = "User"
on_delete = "delete"
[to.User]
identifiers = ["username"]
[to.User.map]
salesforce_user_id = "Id"
username = "Username"
email = "Email"
first_name = "FirstName"
last_name = "LastName"
user_title = "Title"
time_zone = "TimeZoneSidKey"
locale = "LocaleSidKey"
division = "Division"
user_type = "UserType"
is_active = "IsActive"
[to.User.derive]
manager = { from = "User", match = { "@id" = "ManagerId" }, on_multiple = "any", on_none = "null" }
"#;

const COMPANY_JOB: &str = r#"
source = "Account"
on_delete = "delete"
[to.Company]
identifiers = ["salesforce_account_id"]
[to.Company.map]
salesforce_account_id = "Id"
name = "Name"
industry = "Industry"
employees = "NumberOfEmployees"
annual_revenue = "AnnualRevenue"
year_started = "YearStarted"
billing_country = "BillingCountry"
[to.Company.derive]
parent_company = { from = "Company", match = { "@id" = "ParentId" }, on_none = "null" }
"#;

const OPPORTUNITY_JOB: &str = r#"
source = "Opportunity"
on_delete = "delete"
[to.Opportunity]
identifiers = ["external_id"]
[to.Opportunity.map]
external_id = "Id"
name = "Name"
stage = "StageName"
amount = "Amount"
close_date = "CloseDate"
type = "Type"
[to.Opportunity.derive]
company_id = { from = "Company", match = { "@id" = "AccountId" }, on_none = "null" }
owner_id = { from = "User", match = { "@id" = "OwnerId" }, on_none = "null" }
"#;

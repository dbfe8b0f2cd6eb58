//! A change in a Dataverse org reaches its row by the service bus alone: polls are an hour apart.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value as Json, json};
use tributary::app::{Daemon, load};
use tributary_sim::dynamics::{Running, SimOptions, start};

const ROUNDS: usize = 100;
/// The longest that anything may take; a wait on a state ends far sooner.
const PATIENCE: Duration = Duration::from_secs(120);
const KEY: &str = "c2ltdWxhdGVkLWtleQ==";

struct World {
    org: Running,
    options: SimOptions,
    http: reqwest::Client,
    token: String,
    home: tempfile::TempDir,
}

fn guid(number: usize) -> String {
    format!("bbbbbbbb-0000-4000-8000-{number:012x}")
}

impl World {
    /// An org with some accounts, whose changes it posts to a queue as JSON.
    async fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let data = home.path().join("org");
        std::fs::create_dir_all(&data).unwrap();
        let rows: String = (0..10)
            .map(|number| format!("{},Example {number}\n", guid(number)))
            .collect();
        std::fs::write(data.join("account.csv"), format!("accountid,name\n{rows}")).unwrap();
        let options = SimOptions {
            data: Some(data),
            amqp_listen: Some(([127, 0, 0, 1], 0).into()),
            bus_key: KEY.to_owned(),
            ..SimOptions::default()
        };
        let org = start(options.clone()).await.unwrap();
        let mut world = Self {
            org,
            options,
            http: reqwest::Client::new(),
            token: String::new(),
            home,
        };
        world.token = world.sign_in().await;
        world.register().await;
        world
    }

    async fn sign_in(&self) -> String {
        let url = format!(
            "{}/{}/oauth2/v2.0/token",
            self.org.url, self.options.tenant_id
        );
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", &self.options.client_id),
            ("client_secret", &self.options.client_secret),
            ("scope", &format!("{}/.default", self.org.url)),
        ];
        let answer = self.http.post(url).form(&form).send().await.unwrap();
        let answer: Json = answer.json().await.unwrap();
        answer["access_token"].as_str().unwrap().to_owned()
    }

    async fn call(&self, method: Method, path: &str, body: Option<Json>) -> reqwest::Response {
        let url = format!("{}/api/data/v9.2/{path}", self.org.url);
        let mut call = self.http.request(method, url).bearer_auth(&self.token);
        if let Some(body) = body {
            call = call.json(&body);
        }
        let answer = call.send().await.unwrap();
        let status = answer.status();
        assert!(status.is_success(), "{path}: {status}");
        answer
    }

    async fn register(&self) {
        let endpoint = json!({
            "name": "changes", "contract": 2, "path": "changes", "solutionnamespace": "contoso", "connectionmode": 1,
            "namespaceaddress": "sb://contoso.servicebus.windows.net", "messageformat": 2,
            "authtype": 2, "saskeyname": "send", "saskey": KEY,
        });
        let made = self
            .call(Method::POST, "serviceendpoints", Some(endpoint))
            .await;
        let made = made.headers()["odata-entityid"]
            .to_str()
            .unwrap()
            .to_owned();
        let endpoint = made.split_once("serviceendpoints").unwrap().1;
        for message in ["Create", "Update", "Delete"] {
            let filter = format!(
                "sdkmessageid/name%20eq%20'{message}'%20and%20primaryobjecttypecode%20eq%20'account'"
            );
            let path = format!(
                "sdkmessagefilters?$select=sdkmessagefilterid,_sdkmessageid_value&$filter={filter}"
            );
            let found: Json = self
                .call(Method::GET, &path, None)
                .await
                .json()
                .await
                .unwrap();
            let id = |name: &str| found["value"][0][name].as_str().unwrap().to_owned();
            let step = json!({
                "name": message, "mode": 1, "stage": 40, "rank": 1, "supporteddeployment": 0, "asyncautodelete": true,
                "sdkmessageid@odata.bind": format!("/sdkmessages({})", id("_sdkmessageid_value")),
                "sdkmessagefilterid@odata.bind": format!("/sdkmessagefilters({})", id("sdkmessagefilterid")),
                "eventhandler_serviceendpoint@odata.bind": format!("/serviceendpoints{endpoint}"),
            });
            self.call(Method::POST, "sdkmessageprocessingsteps", Some(step))
                .await;
        }
    }

    async fn daemon(&self, transport: &str) -> Daemon {
        let url = &self.org.url;
        let client = &self.options.client_id;
        let port = self.org.amqp.unwrap().port();
        let text = format!(
            r#"
[admin]
listen = "127.0.0.1:0"
[connection.contoso]
kind = "dynamics"
org = "{url}"
authority_url = "{url}"
plain_text = true
read_lag = "0s"
poll_interval = "1h"
auth = {{ flow = "client_credentials", client_id = "{client}", client_secret = {{ file = "secret" }} }}
servicebus_url = "amqp://127.0.0.1:{port}"
servicebus = {{ queue = "changes", key_name = "listen", key = {{ file = "key" }}, transport = "{transport}" }}
[job.contoso.company_sync]
source = "account"
full_sync = "daily 03:00"
on_delete = "delete"
[job.contoso.company_sync.to.Company]
identifiers = ["dynamics_account_id"]
map = {{ dynamics_account_id = "accountid", name = "name" }}
"#
        );
        let file = |name: &str, text: &str| std::fs::write(self.home.path().join(name), text);
        file("secret", &self.options.client_secret).unwrap();
        file("key", KEY).unwrap();
        file("all.toml", &text).unwrap();
        let config = load(&self.home.path().join("all.toml")).unwrap();
        Daemon::start(config).await.unwrap()
    }

    /// The stored name of an account's company, if there is one.
    fn stored(&self, number: usize) -> Option<String> {
        let file = self.home.path().join("data/store.db");
        let store = rusqlite::Connection::open(file).ok()?;
        let sql = "SELECT name FROM company WHERE dynamics_account_id = ?1";
        store.query_row(sql, [guid(number)], |row| row.get(0)).ok()
    }

    /// Waits until an account's company has a name, or is not there.
    async fn wait(&self, daemon: &Daemon, number: usize, name: Option<&str>) {
        let began = Instant::now();
        while self.stored(number).as_deref() != name {
            let picture = daemon.picture();
            assert!(
                began.elapsed() < PATIENCE,
                "{name:?} does not come: {picture:#?}"
            );
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    }

    /// Waits until the daemon says that the bus is in a state; the text of its fault.
    async fn bus_is(&self, daemon: &Daemon, state: &str) -> String {
        let began = Instant::now();
        loop {
            let picture = daemon.picture();
            let bus = &picture
                .connections
                .get("contoso")
                .and_then(|of| of.servicebus.clone());
            if let Some(bus) = bus.as_ref().filter(|bus| bus.state == state) {
                return bus
                    .fault
                    .as_ref()
                    .map(|fault| fault.text.clone())
                    .unwrap_or_default();
            }
            assert!(began.elapsed() < PATIENCE, "never {state}: {bus:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn put(&self, number: usize, name: &str) {
        let path = format!("accounts({})", guid(number));
        self.call(Method::PATCH, &path, Some(json!({"name": name})))
            .await;
    }

    async fn delete(&self, number: usize) {
        let path = format!("accounts({})", guid(number));
        self.call(Method::DELETE, &path, None).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_change_reaches_its_row_by_the_bus_within_a_second() {
    for transport in ["tcp", "websocket"] {
        let world = World::new().await;
        let daemon = world.daemon(transport).await;
        world.bus_is(&daemon, "connected").await;
        world.wait(&daemon, 9, Some("Example 9")).await;
        let mut waits = Vec::new();
        for round in 0..ROUNDS {
            let number = 100 + round;
            let mut began = Instant::now();
            world.put(number, "born").await;
            world.wait(&daemon, number, Some("born")).await;
            waits.push(began.elapsed());
            began = Instant::now();
            world.put(number, "grown").await;
            world.wait(&daemon, number, Some("grown")).await;
            waits.push(began.elapsed());
            began = Instant::now();
            world.delete(number).await;
            world.wait(&daemon, number, None).await;
            waits.push(began.elapsed());
        }
        waits.sort_unstable();
        let (median, p99) = (waits[waits.len() / 2], waits[waits.len() * 99 / 100]);
        println!(
            "{transport}: write in the org to row in the store: median {median:?}, p99 {p99:?}"
        );
        assert!(p99 < Duration::from_secs(1), "{transport}: p99 {p99:?}");
        daemon.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_refused_is_seen_in_health_and_a_new_one_is_taken() {
    let world = World::new().await;
    let policies = format!("{}/_sim/bus/policies", world.org.url);
    let policy = json!({"name": "listen", "key": "another", "rights": ["Listen"]});
    world
        .http
        .post(policies)
        .json(&policy)
        .send()
        .await
        .unwrap();
    let daemon = world.daemon("websocket").await;
    let text = world.bus_is(&daemon, "refused").await;
    assert!(
        text.contains("policy `listen`") && text.contains("remedy"),
        "{text}"
    );
    assert!(!text.contains(KEY), "{text}");
    // The connection goes on without it.
    world.wait(&daemon, 9, Some("Example 9")).await;
    daemon.stop().await.unwrap();
}

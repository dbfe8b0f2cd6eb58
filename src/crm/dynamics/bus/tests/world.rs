//! A simulated org with a bus, a state that hints go to, and a listener that can be watched.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tributary_sim::dynamics::{Running, SimOptions, start};

use crate::runtime::clock::SystemClock;
use crate::secret::Secret;
use crate::state::port::State;
use crate::state::sqlite::SqliteState;

use super::super::settings::Transport;
use super::super::*;

/// The longest that anything may take; a wait on a state ends far sooner.
pub const PATIENCE: Duration = Duration::from_secs(60);
pub const KEY: &str = "c2ltdWxhdGVkLWtleQ==";
const CONNECTION: &str = "contoso";
const TENANT: &str = "7e0a0000-0000-4000-8000-00000000b005";

/// An org with a bus, and where hints go.
pub struct World {
    pub sim: Running,
    pub state: Arc<SqliteState>,
    pub home: tempfile::TempDir,
    http: reqwest::Client,
    token: String,
}

/// A listener under way.
pub struct Listening {
    /// What it said, oldest first: a state's name, and the report of its fault.
    said: Arc<Mutex<Vec<(&'static str, String)>>>,
    stop: StopSignal,
    task: JoinHandle<()>,
}

impl World {
    pub async fn new() -> Self {
        Self::with(None).await
    }

    /// With a certificate and its key, PEM in two files.
    pub async fn with(tls: Option<(&Path, &Path)>) -> Self {
        let options = SimOptions {
            amqp_listen: Some(([127, 0, 0, 1], 0).into()),
            bus_key: KEY.to_owned(),
            tenant_id: TENANT.to_owned(),
            tls_cert: tls.map(|(cert, _)| cert.to_owned()),
            tls_key: tls.map(|(_, key)| key.to_owned()),
            ..SimOptions::default()
        };
        let sim = start(options.clone()).await.unwrap();
        let home = tempfile::tempdir().unwrap();
        let state = Arc::new(SqliteState::open(home.path()).await.unwrap());
        crate::tls::install();
        let http = reqwest::Client::builder()
            .tls_danger_accept_invalid_certs(true)
            .build()
            .unwrap();
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", options.client_id.as_str()),
            ("client_secret", options.client_secret.as_str()),
            ("scope", &format!("{}/.default", sim.url)),
        ];
        let url = format!("{}/{TENANT}/oauth2/v2.0/token", sim.url);
        let answer = http.post(url).form(&form).send().await.unwrap();
        let answer: Json = answer.json().await.unwrap();
        Self {
            token: answer["access_token"].as_str().unwrap().to_owned(),
            sim,
            state,
            home,
            http,
        }
    }

    /// Settings for a listener: quick to try again, so that tests are.
    pub fn settings(&self, transport: Transport) -> BusSettings {
        let key = Arc::new(|| Ok(Secret::new(KEY)));
        let mut settings =
            BusSettings::new(CONNECTION.into(), "127.0.0.1", "changes", "listen", key);
        settings.port = self.sim.amqp.map(|address| address.port());
        settings.encrypted = false;
        settings.transport = transport;
        settings.backoff.first = Duration::from_millis(20);
        settings.backoff.cap = Duration::from_millis(200);
        settings
    }

    pub fn inbox(&self) -> Inbox {
        Inbox::new(
            CONNECTION.into(),
            ["account".into()].into(),
            Arc::clone(&self.state) as Arc<dyn State>,
            Arc::new(Notify::new()),
            Arc::new(SystemClock),
            Metrics::none(),
        )
    }

    pub fn listen(&self, settings: BusSettings) -> Listening {
        let said = Arc::new(Mutex::new(Vec::new()));
        let hears = Arc::clone(&said);
        let told: Told = Arc::new(move |state| {
            let fault = state.fault().map(Fault::report).unwrap_or_default();
            hears.lock().unwrap().push((state.label(), fault));
        });
        let stop = StopSignal::new();
        let task = keep(settings, self.inbox(), Metrics::none(), told, stop.clone());
        Listening {
            said,
            stop,
            task: tokio::spawn(task),
        }
    }

    /// Listens over TCP, and is connected.
    pub async fn connected(&self) -> Listening {
        let listening = self.listen(self.settings(Transport::Tcp));
        listening.wait("connected").await;
        listening
    }

    /// Puts a message of an account's change into the queue, as if the org had posted it.
    pub async fn post(&self, number: usize) {
        let context = json!({
            "MessageName": "Update", "PrimaryEntityName": "account", "PrimaryEntityId": guid(number),
        });
        self.put(&context.to_string(), "application/json").await;
    }

    pub async fn put(&self, body: &str, content_type: &str) {
        let order = json!({"queue": "changes", "body": body, "content_type": content_type});
        self.control("bus/messages", order).await;
    }

    pub async fn control(&self, path: &str, body: Json) {
        let url = format!("{}/_sim/{path}", self.sim.url);
        let answer = self.http.post(url).json(&body).send().await.unwrap();
        let status = answer.status();
        assert!(status.is_success(), "{status}: {:?}", answer.text().await);
    }

    /// What `/_sim/<path>` shows.
    pub async fn shown(&self, path: &str) -> Json {
        let url = format!("{}/_sim/{path}", self.sim.url);
        let answer = self.http.get(url).send().await.unwrap();
        answer.json().await.unwrap()
    }

    /// Counts of the queue.
    pub async fn queue(&self) -> Json {
        self.shown("bus").await["queues"]["changes"].clone()
    }

    /// Waits until the queue's counts are as `holds` says.
    pub async fn until(&self, holds: impl Fn(&Json) -> bool) -> Json {
        let began = Instant::now();
        loop {
            let counts = self.queue().await;
            if holds(&counts) {
                return counts;
            }
            assert!(began.elapsed() < PATIENCE, "{counts:#}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until all messages are settled and gone, `count` of them completed.
    pub async fn completed(&self, count: u64) -> Json {
        self.until(|counts| {
            counts["completed"] == count && counts["ready"] == 0 && counts["locked"] == 0
        })
        .await
    }

    /// The records that are hinted at.
    pub async fn hints(&self) -> Vec<String> {
        let hints = self.state.hints(&CONNECTION.into(), 10_000).await.unwrap();
        let mut hints: Vec<_> = hints
            .iter()
            .map(|hint| hint.record.as_str().to_owned())
            .collect();
        hints.sort();
        hints
    }

    /// Keeps everybody else from writing to the state, until the connection is dropped.
    pub fn hold_state(&self) -> rusqlite::Connection {
        let other = rusqlite::Connection::open(self.home.path().join("state.db")).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        other
    }

    async fn web(&self, method: reqwest::Method, path: &str, body: Option<Json>) -> Option<String> {
        let url = format!("{}/api/data/v9.2/{path}", self.sim.url);
        let mut call = self.http.request(method, url).bearer_auth(&self.token);
        if let Some(body) = body {
            call = call.json(&body);
        }
        let answer = call.send().await.unwrap();
        assert!(
            answer.status().is_success(),
            "{path}: {:?}",
            answer.text().await
        );
        let id = answer.headers().get("odata-entityid")?.to_str().unwrap();
        Some(id.split_once('(')?.1.trim_end_matches(')').to_owned())
    }

    /// Has the org post a table's changes to the queue: a service endpoint, and a step for each message.
    pub async fn register(&self, message_format: u8) {
        let endpoint = json!({
            "name": "changes", "contract": 2, "path": "changes", "solutionnamespace": "contoso",
            "namespaceaddress": "sb://contoso.servicebus.windows.net", "messageformat": message_format,
            "authtype": 2, "saskeyname": "send", "saskey": KEY, "connectionmode": 1,
        });
        let endpoint = self
            .web(reqwest::Method::POST, "serviceendpoints", Some(endpoint))
            .await
            .unwrap();
        for message in ["Create", "Update", "Delete"] {
            let query = format!(
                "sdkmessagefilters?$filter=sdkmessageid/name%20eq%20'{message}'%20and%20primaryobjecttypecode%20eq%20'account'&$select=sdkmessagefilterid,_sdkmessageid_value"
            );
            let url = format!("{}/api/data/v9.2/{query}", self.sim.url);
            let found = self.http.get(url).bearer_auth(&self.token).send().await;
            let found: Json = found.unwrap().json().await.unwrap();
            let row = &found["value"][0];
            let text = |name: &str| row[name].as_str().unwrap().to_owned();
            let step = json!({
                "name": message, "mode": 1, "stage": 40, "rank": 1, "supporteddeployment": 0, "asyncautodelete": true,
                "sdkmessageid@odata.bind": format!("/sdkmessages({})", text("_sdkmessageid_value")),
                "sdkmessagefilterid@odata.bind": format!("/sdkmessagefilters({})", text("sdkmessagefilterid")),
                "eventhandler_serviceendpoint@odata.bind": format!("/serviceendpoints({endpoint})"),
            });
            self.web(
                reqwest::Method::POST,
                "sdkmessageprocessingsteps",
                Some(step),
            )
            .await;
        }
    }

    /// Writes an account, which may be new.
    pub async fn write(&self, number: usize, name: &str) {
        let path = format!("accounts({})", guid(number));
        self.web(reqwest::Method::PATCH, &path, Some(json!({"name": name})))
            .await;
    }
}

impl Listening {
    /// Waits until it says `state`, from the beginning on; the report of its fault.
    pub async fn wait(&self, state: &str) -> String {
        self.wait_after(0, state).await
    }

    /// Waits until it says `state` after its first `passed` words.
    pub async fn wait_after(&self, passed: usize, state: &str) -> String {
        let began = Instant::now();
        loop {
            let said = self.said();
            let mut after = said.iter().skip(passed);
            if let Some((_, fault)) = after.find(|(label, _)| *label == state) {
                return fault.clone();
            }
            assert!(began.elapsed() < PATIENCE, "never {state}: {said:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until a fault is said that holds `word`.
    pub async fn wait_for(&self, word: &str) -> String {
        let began = Instant::now();
        loop {
            let said = self.said();
            if let Some((_, fault)) = said.iter().find(|(_, fault)| fault.contains(word)) {
                return fault.clone();
            }
            assert!(began.elapsed() < PATIENCE, "never {word}: {said:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub fn said(&self) -> Vec<(&'static str, String)> {
        self.said.lock().unwrap().clone()
    }

    pub fn count(&self, state: &str) -> usize {
        self.said()
            .iter()
            .filter(|(label, _)| *label == state)
            .count()
    }

    /// Stops it, and waits until it has ended.
    pub async fn stop(self) {
        self.stop.stop();
        tokio::time::timeout(PATIENCE, self.task)
            .await
            .unwrap()
            .unwrap();
    }
}

pub fn guid(number: usize) -> String {
    format!("aaaaaaaa-0000-4000-8000-{number:012x}")
}

pub fn guids(numbers: std::ops::Range<usize>) -> Vec<String> {
    numbers.map(guid).collect()
}

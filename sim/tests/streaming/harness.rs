//! An org with data, a frozen clock, and a client that says exactly what a test wants it to say.

use std::fs;
use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;
use tributary_sim::salesforce::{Running, SimOptions, start};

pub const ALL: &str = "/data/ChangeEvents";
/// Nothing here takes so long; a test that waits longer hangs.
const HANG: Duration = Duration::from_secs(20);

pub struct Sim {
    pub running: Running,
    pub token: String,
    http: reqwest::Client,
    _data: TempDir,
}

pub async fn sim() -> Sim {
    sim_with(SimOptions::default()).await
}

pub async fn sim_with(options: SimOptions) -> Sim {
    let data = tempfile::tempdir().unwrap();
    for (name, rows) in [
        ("Account", "Id,Name,Industry,Description\n"),
        ("Contact", "Id,FirstName,LastName\n"),
        ("Employee__c", "Id,Name\n"),
    ] {
        fs::write(data.path().join(format!("{name}.csv")), rows).unwrap();
    }
    let options = SimOptions {
        data: Some(data.path().to_owned()),
        ..options
    };
    let running = start(options).await.unwrap();
    running.org.clock.freeze();
    let mut sim = Sim {
        running,
        token: String::new(),
        http: reqwest::Client::new(),
        _data: data,
    };
    sim.token = sim.login();
    sim
}

impl Sim {
    /// A new token of the integration user.
    pub fn login(&self) -> String {
        let org = &self.running.org;
        org.sessions.issue(org.profile.run_as.clone())
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.running.url)
    }

    /// A client with a cookie jar of its own, that has said nothing yet.
    pub fn client(&self) -> Client {
        Client {
            http: reqwest::Client::builder()
                .cookie_store(true)
                .build()
                .unwrap(),
            url: self.url("/cometd/66.0/"),
            token: self.token.clone(),
            id: String::new(),
        }
    }

    /// A client that has shaken hands, subscribed and been advised.
    pub async fn subscribed(&self, channel: &str, from: i64) -> Client {
        let mut client = self.client();
        client.handshake().await;
        assert_eq!(client.subscribe(channel, from).await["successful"], true);
        client.first_connect().await;
        client
    }

    pub async fn get(&self, path: &str) -> Value {
        let response = self
            .http
            .get(self.url(path))
            .bearer_auth(&self.token)
            .send();
        response.await.unwrap().json().await.unwrap()
    }

    pub async fn post(&self, path: &str, body: Value) -> (StatusCode, String) {
        let response = self
            .http
            .post(self.url(path))
            .json(&body)
            .send()
            .await
            .unwrap();
        (response.status(), response.text().await.unwrap())
    }

    /// Plays scripts that must be taken.
    pub async fn script(&self, scripts: Value) {
        let (status, text) = self.post("/_sim/faults", scripts).await;
        assert_eq!(status, StatusCode::NO_CONTENT, "{text}");
    }

    pub async fn advance(&self, seconds: u64) {
        let (status, text) = self
            .post("/_sim/time", json!({"advance_seconds": seconds}))
            .await;
        assert_eq!(status, StatusCode::OK, "{text}");
    }

    /// Commits one transaction of these operations and tells its events' replay ids and records.
    pub async fn commit(&self, ops: Value) -> Vec<(u64, String)> {
        let body = json!({"transactions": [{"ops": ops}]});
        let (status, text) = self.post("/_sim/transactions", body).await;
        assert_eq!(status, StatusCode::OK, "{text}");
        let answer: Value = serde_json::from_str(&text).unwrap();
        let done = &answer["transactions"][0];
        for result in done["results"].as_array().unwrap() {
            assert!(result["error"].is_null(), "{result}");
        }
        done["events"]
            .as_array()
            .unwrap()
            .iter()
            .map(|event| {
                let id = event["id"].as_str().unwrap_or_default();
                (event["replay_id"].as_u64().unwrap(), id.to_owned())
            })
            .collect()
    }

    /// Creates an account and tells its event's replay id and its own id.
    pub async fn account(&self, name: &str) -> (u64, String) {
        let op = json!([{"op": "create", "object": "Account", "fields": {"Name": name}}]);
        self.commit(op).await.remove(0)
    }

    /// Waits until so many polls are held.
    pub async fn held(&self, polls: usize) {
        let mut changed = self.running.org.streaming.watch();
        let reached = async {
            loop {
                let clients = self.running.org.streaming.clients();
                if clients.iter().filter(|client| client.held).count() == polls {
                    return;
                }
                changed.changed().await.unwrap();
            }
        };
        let waited = tokio::time::timeout(HANG, reached).await;
        assert!(waited.is_ok(), "{polls} polls were never held");
    }
}

#[derive(Clone)]
pub struct Client {
    pub http: reqwest::Client,
    pub url: String,
    pub token: String,
    pub id: String,
}

impl Client {
    pub fn request(&self, messages: &Value) -> reqwest::RequestBuilder {
        self.http
            .post(&self.url)
            .bearer_auth(&self.token)
            .json(messages)
    }

    /// Sends messages and reads the answer's array.
    pub async fn send(&self, messages: Value) -> Vec<Value> {
        let answer = async {
            let response = self.request(&messages).send().await.unwrap();
            assert_eq!(response.status(), StatusCode::OK);
            response.json().await.unwrap()
        };
        tokio::time::timeout(HANG, answer)
            .await
            .expect("no answer: is a poll held?")
    }

    /// Sends one message whose answer is one message.
    pub async fn ask(&self, message: Value) -> Value {
        let mut answer = self.send(json!([message])).await;
        assert_eq!(answer.len(), 1, "{answer:?}");
        answer.remove(0)
    }

    pub async fn handshake(&mut self) -> Value {
        let reply = self.ask(handshake()).await;
        self.id = reply["clientId"].as_str().unwrap_or_default().to_owned();
        reply
    }

    pub fn message(&self, channel: &str) -> Value {
        json!({"id": "9", "channel": channel, "clientId": self.id})
    }

    pub fn poll(&self) -> Value {
        let mut message = self.message("/meta/connect");
        message["connectionType"] = json!("long-polling");
        message
    }

    pub async fn connect(&self) -> Vec<Value> {
        self.send(json!([self.poll()])).await
    }

    /// A poll that is not to be held: it shows what is there.
    pub async fn glance(&self) -> Vec<Value> {
        let mut poll = self.poll();
        poll["advice"] = json!({"timeout": 0});
        self.send(json!([poll])).await
    }

    pub async fn first_connect(&self) -> Value {
        let answer = self.connect().await;
        let reply = ack(&answer).clone();
        assert_eq!(reply["advice"]["reconnect"], "retry", "{reply}");
        reply
    }

    /// A poll in a task of its own, so that it can be held.
    pub fn poll_aside(&self) -> tokio::task::JoinHandle<Vec<Value>> {
        let client = self.clone();
        tokio::spawn(async move { client.connect().await })
    }

    /// Subscribes; events that ride in the answer are a defect of the test that uses this.
    pub async fn subscribe(&self, channel: &str, from: i64) -> Value {
        let answer = self
            .send(json!([self.subscription(channel, json!(from))]))
            .await;
        ack(&answer).clone()
    }

    pub fn subscription(&self, channel: &str, from: Value) -> Value {
        let mut message = self.message("/meta/subscribe");
        message["subscription"] = json!(channel);
        message["ext"] = json!({"replay": {channel: from}});
        message
    }
}

pub fn handshake() -> Value {
    json!({"id": "1", "channel": "/meta/handshake", "version": "1.0", "minimumVersion": "1.0",
           "supportedConnectionTypes": ["long-polling"], "ext": {"replay": true}})
}

/// The one reply among events.
pub fn ack(answer: &[Value]) -> &Value {
    let mut replies = answer.iter().filter(|item| item["data"].is_null());
    let reply = replies.next().expect("an answer has a reply");
    assert!(replies.next().is_none(), "{answer:?}");
    reply
}

/// The replay ids of an answer's events, in order.
pub fn replay_ids(answer: &[Value]) -> Vec<u64> {
    events(answer)
        .map(|event| event["event"]["replayId"].as_u64().unwrap())
        .collect()
}

/// The `data` of an answer's events.
pub fn events(answer: &[Value]) -> impl Iterator<Item = &Value> {
    answer
        .iter()
        .map(|item| &item["data"])
        .filter(|data| !data.is_null())
}

//! A simulated Dataverse environment, written to as an application does: call by call, in batches, many rows a call.

use std::collections::BTreeMap;
use std::path::Path;

use reqwest::{Method, RequestBuilder, StatusCode};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value as Json, json};
use tributary_sim::dynamics::{Running, SimOptions, start};

use crate::sim;

pub const CLIENT: &str = "c11e0000-0000-4000-8000-00000000d001";
pub const SECRET: &str = "simulated-secret";
const TENANT: &str = "7e0a0000-0000-4000-8000-00000000d001";
const ROOT: &str = "/api/data/v9.2";
/// Boundaries that no text of a test holds.
const BATCH: &str = "batch_6b1f";
const SET: &str = "changeset_6b1f";

/// A JSON object with its numbers as they are spelled.
pub type Members = BTreeMap<String, Box<RawValue>>;

/// One row's write.
pub struct Write {
    /// POST, PATCH or DELETE.
    pub method: Method,
    /// The set, or the row in its set.
    pub path: String,
    pub body: Option<Members>,
}

pub struct Dataverse {
    pub org: Running,
    pub http: reqwest::Client,
    token: String,
}

#[derive(Deserialize)]
struct Page {
    value: Vec<Members>,
    #[serde(rename = "@odata.nextLink")]
    next: Option<String>,
}

/// A value as a member.
pub fn member(value: impl Into<Json>) -> Box<RawValue> {
    serde_json::value::to_raw_value(&value.into()).unwrap()
}

/// A number as a member, every digit of it.
pub fn number(digits: String) -> Box<RawValue> {
    RawValue::from_string(digits).unwrap()
}

impl Dataverse {
    /// An environment with the tables of a folder, which no user's limits hold up.
    pub async fn of(data: &Path) -> Self {
        let org = start(SimOptions {
            data: Some(data.to_owned()),
            client_id: CLIENT.to_owned(),
            client_secret: SECRET.to_owned(),
            tenant_id: TENANT.to_owned(),
            ..SimOptions::default()
        })
        .await
        .unwrap();
        let mut dataverse = Self {
            org,
            http: reqwest::Client::new(),
            token: String::new(),
        };
        let limits =
            json!({"requests": 10_000_000, "execution_ms": 1_000_000_000, "concurrency": 1000});
        dataverse.control("limits", limits).await;
        dataverse.sign_in().await;
        dataverse
    }

    /// `connections/<id>.toml` of a daemon that reads it; `secret` lies beside the config.
    pub fn connection(&self, more: &str) -> String {
        let url = &self.org.url;
        format!(
            "kind = \"dynamics\"\norg = \"{url}\"\nauthority_url = \"{url}\"\nplain_text = true\nread_lag = \"0s\"\n{more}\
             auth = {{ flow = \"client_credentials\", client_id = \"{CLIENT}\", client_secret = {{ file = \"secret\" }} }}\n"
        )
    }

    pub async fn control(&self, path: &str, body: Json) {
        sim::order(&self.http, &self.org.url, path, &body).await;
    }

    pub async fn told(&self, path: &str) -> Json {
        sim::told(&self.http, &self.org.url, path).await
    }

    /// No script is left.
    pub async fn calm(&self) {
        let url = format!("{}/_sim/faults", self.org.url);
        let answer = self.http.delete(url).send().await.unwrap();
        assert!(answer.status().is_success());
    }

    async fn sign_in(&mut self) {
        let url = format!("{}/{TENANT}/oauth2/v2.0/token", self.org.url);
        let scope = format!("{}/.default", self.org.url);
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", CLIENT),
            ("client_secret", SECRET),
            ("scope", &scope),
        ];
        let answer = self.http.post(url).form(&form).send().await.unwrap();
        let answer: Json = answer.json().await.unwrap();
        self.token = answer["access_token"].as_str().unwrap().to_owned();
    }

    /// Sends a call, with a new token if the one in hand has ended: such a call was not executed.
    async fn send(&mut self, call: impl Fn(&Self) -> RequestBuilder) -> String {
        loop {
            let answer = call(self).bearer_auth(&self.token).send().await.unwrap();
            let status = answer.status();
            let text = answer.text().await.unwrap();
            if status == StatusCode::UNAUTHORIZED {
                self.sign_in().await;
                continue;
            }
            assert!(status.is_success(), "{status}: {text}");
            return text;
        }
    }

    fn call(&self, method: &Method, path: &str) -> RequestBuilder {
        let url = format!("{}{ROOT}/{path}", self.org.url);
        self.http.request(method.clone(), url)
    }

    /// One row's write as a call of its own.
    pub async fn write(&mut self, write: &Write) {
        self.send(|this| {
            let call = this.call(&write.method, &write.path);
            match &write.body {
                Some(body) => call.json(body),
                None => call,
            }
        })
        .await;
    }

    /// All rows' writes in one transaction: a change set of `$batch`.
    pub async fn batch(&mut self, writes: &[Write]) {
        let mut body =
            format!("--{BATCH}\r\nContent-Type: multipart/mixed; boundary={SET}\r\n\r\n");
        for (place, write) in writes.iter().enumerate() {
            let content = write.body.as_ref();
            let content = content.map(|body| serde_json::to_string(body).unwrap());
            body.push_str(&format!(
                "--{SET}\r\nContent-Type: application/http\r\nContent-Transfer-Encoding: binary\r\nContent-ID: {}\r\n\r\n\
                 {} {ROOT}/{} HTTP/1.1\r\nContent-Type: application/json\r\n\r\n{}\r\n",
                place + 1,
                write.method,
                write.path,
                content.unwrap_or_default()
            ));
        }
        body.push_str(&format!("--{SET}--\r\n--{BATCH}--\r\n"));
        let answer = self
            .send(|this| {
                let call = this.call(&Method::POST, "$batch");
                call.header("content-type", format!("multipart/mixed; boundary={BATCH}"))
                    .body(body.clone())
            })
            .await;
        let done = answer.matches("HTTP/1.1 204").count();
        assert_eq!(done, writes.len(), "{answer}");
    }

    /// `CreateMultiple`, `UpdateMultiple` or `UpsertMultiple` of a table's rows.
    pub async fn multiple(&mut self, action: &str, set: &str, table: &str, rows: Vec<Members>) {
        let typed = |mut row: Members| {
            let named = member(format!("Microsoft.Dynamics.CRM.{table}"));
            row.insert("@odata.type".to_owned(), named);
            row
        };
        let targets: Vec<Members> = rows.into_iter().map(typed).collect();
        let path = format!("{set}/Microsoft.Dynamics.CRM.{action}");
        let body = BTreeMap::from([("Targets", targets)]);
        self.send(|this| this.call(&Method::POST, &path).json(&body))
            .await;
    }

    /// Every row of a set, with labels and the tables that look-ups point to.
    pub async fn rows(&mut self, set: &str) -> Vec<Members> {
        let mut next = Some(format!("{}{ROOT}/{set}", self.org.url));
        let mut rows = Vec::new();
        while let Some(url) = next {
            let page = self
                .send(|this| {
                    let call = this.http.get(&url);
                    call.header("prefer", "odata.include-annotations=\"*\"")
                })
                .await;
            let page: Page = serde_json::from_str(&page).unwrap();
            rows.extend(page.value);
            next = page.next;
        }
        rows
    }
}

//! A receiver of webhooks that answers what it is told to.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::harness::TestOrg;

/// What a receiver got.
#[derive(Debug, Clone)]
pub struct Got {
    pub uri: String,
    pub headers: HeaderMap,
    pub text: String,
    pub body: Value,
}

/// A receiver that answers what it is told to, and 200 then.
#[derive(Clone, Default)]
pub struct Receiver {
    got: Arc<Mutex<Vec<Got>>>,
    answers: Arc<Mutex<Vec<u16>>>,
    came: Arc<Notify>,
}

async fn receive(
    State(receiver): State<Receiver>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    let text = String::from_utf8(body.to_vec()).unwrap();
    let parsed = serde_json::from_str(&text).unwrap();
    receiver.got.lock().unwrap().push(Got {
        uri: uri.to_string(),
        headers,
        text,
        body: parsed,
    });
    receiver.came.notify_waiters();
    let answer = receiver.answers.lock().unwrap().pop().unwrap_or(200);
    if answer == 1 {
        std::future::pending::<()>().await;
    }
    StatusCode::from_u16(answer).unwrap()
}

impl Receiver {
    pub async fn start() -> (Self, String) {
        let receiver = Self::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let router = Router::new().fallback(receive).with_state(receiver.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (receiver, url)
    }

    pub fn answer(&self, statuses: &[u16]) {
        *self.answers.lock().unwrap() = statuses.iter().rev().copied().collect();
    }

    pub fn all(&self) -> Vec<Got> {
        self.got.lock().unwrap().clone()
    }

    /// Waits until so many have come.
    pub async fn wait(&self, count: usize) -> Vec<Got> {
        let enough = async {
            loop {
                let came = self.came.notified();
                if self.all().len() >= count {
                    return;
                }
                came.await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), enough)
            .await
            .unwrap_or_else(|_| panic!("{} of {count} came", self.all().len()));
        self.all()
    }
}

pub struct Registered {
    pub org: TestOrg,
    pub receiver: Receiver,
    pub endpoint: String,
}

pub async fn endpoint(org: &TestOrg, url: &str, auth: (u8, &str)) -> String {
    let body =
        json!({"name": "hook", "url": url, "contract": 8, "authtype": auth.0, "authvalue": auth.1});
    org.create("serviceendpoints", body).await
}

/// Ids by the query that registrars use.
pub async fn filter(org: &TestOrg, message: &str, table: &str) -> (String, String) {
    let query = format!("sdkmessageid/name eq '{message}' and primaryobjecttypecode eq '{table}'");
    let request = org
        .request(reqwest::Method::GET, "sdkmessagefilters")
        .query(&[
            ("$filter", query.as_str()),
            ("$select", "sdkmessagefilterid,_sdkmessageid_value"),
        ]);
    let answer = org.send(request).await.expect(200);
    let row = &answer.rows()[0];
    (
        row["sdkmessagefilterid"].as_str().unwrap().to_owned(),
        row["_sdkmessageid_value"].as_str().unwrap().to_owned(),
    )
}

pub async fn step(
    org: &TestOrg,
    endpoint: &str,
    message: &str,
    table: &str,
    more: Value,
) -> String {
    let (filter, of) = filter(org, message, table).await;
    let mut body = json!({
        "name": format!("{message} {table}"), "mode": 1, "stage": 40, "rank": 1, "supporteddeployment": 0, "asyncautodelete": true,
        "sdkmessageid@odata.bind": format!("/sdkmessages({of})"),
        "sdkmessagefilterid@odata.bind": format!("/sdkmessagefilters({filter})"),
        "eventhandler_serviceendpoint@odata.bind": format!("/serviceendpoints({endpoint})"),
    });
    body.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    org.create("sdkmessageprocessingsteps", body).await
}

pub async fn registered(auth: (u8, &str)) -> Registered {
    let org = TestOrg::start().await;
    let (receiver, url) = Receiver::start().await;
    let endpoint = endpoint(&org, &url, auth).await;
    Registered {
        org,
        receiver,
        endpoint,
    }
}

/// Waits until nothing is under way, and hands back the log.
pub async fn settled(org: &TestOrg) -> Vec<Value> {
    loop {
        let state = org.look("webhooks").await;
        if state["waiting"] == 0 {
            return state["log"].as_array().unwrap().clone();
        }
        tokio::task::yield_now().await;
    }
}

pub fn attribute<'b>(target: &'b Value, key: &str) -> Option<&'b Value> {
    target["Attributes"]
        .as_array()?
        .iter()
        .find(|pair| pair["key"] == key)
        .map(|pair| &pair["value"])
}

pub fn target(got: &Got) -> &Value {
    assert_eq!(got.body["InputParameters"][0]["key"], "Target");
    &got.body["InputParameters"][0]["value"]
}

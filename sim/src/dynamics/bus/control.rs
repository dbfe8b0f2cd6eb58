//! The control API of the bus under `/_sim/bus`.
//!
//! | Call | Body | Effect |
//! |---|---|---|
//! | `GET /_sim/bus` | | `{"connections":1,"settings":{…},"queues":{"changes":{"ready":0,…,"dead":{…}}}}` |
//! | `POST /_sim/bus` | any of `{"lock_ms":60000,"most_deliveries":10,"idle_ms":240000,"token_ms":20000,"refuse_connections":0,"lose_settlements":0}` | what is absent stays |
//! | `POST /_sim/bus/queues` | `{"name":"changes"}` | makes a queue (`topic/Subscriptions/name`: a topic's subscription) |
//! | `POST /_sim/bus/policies` | `{"name":"listen","key":"…","rights":["Listen"]}` | makes a policy, or gives it another key; no key takes it away |
//! | `POST /_sim/bus/messages` | `{"queue":"changes","body":"…","content_type":"application/json","properties":{}}` | puts a message in; `base64` in place of `body` for bytes |
//! | `GET /_sim/bus/dead?queue=changes` | | `[{"reason":"…","description":"…","content_type":"…","body":"…"}]` |
//! | `POST /_sim/bus/orders` | `{"kind":"drop"}`, `{"kind":"freeze"}` | every connection ends without a word; stops reading and writing |
//! | | `{"kind":"close","condition":"…","description":"…"}`, `{"kind":"detach",…}` | closes every connection, or detaches every link to a queue, with this error |
#![allow(clippy::unused_async, reason = "axum's handlers are async")]

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::Bus;
use super::message::Message;
use super::node::Node;
use super::sas::{Policy, Right};
use super::settings::{Order, Settings};
use crate::dynamics::org::Org;
use crate::salesforce::lock::lock;

type Shared = State<(Arc<Org>, Arc<Bus>)>;

/// The calls of this module.
pub(crate) fn router(org: &Arc<Org>, bus: &Arc<Bus>) -> Router {
    Router::new()
        .route("/_sim/bus", get(show).post(set))
        .route("/_sim/bus/queues", post(create))
        .route("/_sim/bus/policies", post(policy))
        .route("/_sim/bus/messages", post(put))
        .route("/_sim/bus/dead", get(dead))
        .route("/_sim/bus/orders", post(order))
        .with_state((Arc::clone(org), Arc::clone(bus)))
}

/// Why a call was refused.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("the body is not what this call takes: {0}")]
    Body(#[from] serde_json::Error),
    #[error("`base64` can't be read: {0}")]
    Base64(#[from] base64::DecodeError),
    #[error("give exactly one of `body`, `base64`")]
    OneBody,
    #[error("there is no queue `{0}`")]
    NoQueue(String),
    #[error("the queue `{0}` is there already, or its name is none")]
    NotMade(String),
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (
            StatusCode::BAD_REQUEST,
            Json(json!({"error": self.to_string()})),
        )
            .into_response()
    }
}

fn read<T: DeserializeOwned>(body: &Bytes) -> Result<T, Refused> {
    Ok(serde_json::from_slice(body)?)
}

async fn show(State((org, bus)): Shared) -> Json<Value> {
    let now = org.clock.now();
    let mut state = lock(&bus.state);
    let queues = state.queues.values_mut().map(|queue| {
        queue.expire(now);
        let mut shown = json!(queue.counts());
        shown["dead"] = json!(queue.dead().map(super::queue::Queue::counts));
        (queue.name().to_owned(), shown)
    });
    let queues: Map<String, Value> = queues.collect();
    let connections = *bus.connected.borrow();
    Json(json!({"connections": connections, "settings": state.settings, "queues": queues}))
}

async fn set(State((_, bus)): Shared, body: Bytes) -> Result<StatusCode, Refused> {
    let change: Map<String, Value> = read(&body)?;
    let Value::Object(mut settings) = json!(bus.settings()) else {
        return Ok(StatusCode::INTERNAL_SERVER_ERROR);
    };
    settings.extend(change);
    bus.set(Settings::deserialize(Value::Object(settings))?);
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct QueueOrder {
    name: String,
}

async fn create(State((_, bus)): Shared, body: Bytes) -> Result<StatusCode, Refused> {
    let QueueOrder { name } = read(&body)?;
    let is_name = matches!(Node::parse(&name), Some(Node::Entity { dead: false, .. }));
    if !is_name || !bus.create(&name) {
        return Err(Refused::NotMade(name));
    }
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyOrder {
    name: String,
    key: Option<String>,
    #[serde(default)]
    rights: Vec<Right>,
}

async fn policy(State((_, bus)): Shared, body: Bytes) -> Result<StatusCode, Refused> {
    let PolicyOrder { name, key, rights } = read(&body)?;
    let policies = &mut lock(&bus.state).policies;
    match key {
        Some(key) => drop(policies.insert(name, Policy { key, rights })),
        None => drop(policies.remove(&name)),
    }
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MessageOrder {
    queue: String,
    body: Option<String>,
    base64: Option<String>,
    content_type: String,
    #[serde(default)]
    properties: BTreeMap<String, String>,
}

async fn put(State((org, bus)): Shared, body: Bytes) -> Result<StatusCode, Refused> {
    let order: MessageOrder = read(&body)?;
    let bytes = match (order.body, order.base64) {
        (Some(text), None) => text.into_bytes(),
        (None, Some(text)) => STANDARD.decode(text)?,
        _ => return Err(Refused::OneBody),
    };
    let properties: Vec<_> = order.properties.into_iter().collect();
    let message = Message::data(
        bytes,
        org.draw().to_string(),
        &order.content_type,
        &properties,
    );
    let node = Node::parse(&order.queue).filter(|node| bus.push(node, message, org.clock.now()));
    match node {
        Some(_) => Ok(StatusCode::NO_CONTENT),
        None => Err(Refused::NoQueue(order.queue)),
    }
}

#[derive(Deserialize)]
struct DeadOrder {
    queue: String,
}

async fn dead(
    State((_, bus)): Shared,
    Query(DeadOrder { queue }): Query<DeadOrder>,
) -> Result<Json<Value>, Refused> {
    let node = Node::Entity {
        name: queue.clone(),
        dead: true,
    };
    let shown = bus.with(&node, |dead, _| {
        let one = |message: &Message| {
            let told = |name: &str| {
                let value = message
                    .property(name)
                    .and_then(|value| value.word().map(str::to_owned));
                value.unwrap_or_default()
            };
            json!({
                "reason": told("DeadLetterReason"),
                "description": told("DeadLetterErrorDescription"),
                "content_type": message.content_type(),
                "body": message.shown(),
            })
        };
        dead.messages().map(one).collect::<Vec<_>>()
    });
    shown
        .map(|all| Json(json!(all)))
        .ok_or(Refused::NoQueue(queue))
}

async fn order(State((_, bus)): Shared, body: Bytes) -> Result<StatusCode, Refused> {
    let order: Order = read(&body)?;
    // Nobody may be connected.
    drop(bus.orders.send(order));
    Ok(StatusCode::NO_CONTENT)
}

//! Sends messages: one attempt, a second after a gateway's error, and a job's row when it ends.

use std::sync::Arc;
use std::time::Duration;

use super::super::cell::Cell;
use super::super::faults::WebhookFault;
use super::super::odata::percent;
use super::super::org::Org;
use super::super::outbox::BusMessage;
use super::{Auth, Post, Webhooks};
use crate::salesforce::lock::lock;

/// Claims of a queue's message begin so.
const CLAIMS: &str = "http://schemas.microsoft.com/xrm/2011/Claims/";

/// Sends a message as the scripts allow.
pub(super) fn send(webhooks: &Webhooks, org: &Arc<Org>, post: Post) {
    match org.faults.webhook(&post.table, post.message) {
        None => spawn(webhooks, org, post, None),
        Some(WebhookFault::Lose {}) => webhooks.note(&post, 0, "lost", None),
        Some(WebhookFault::Double {}) => {
            spawn(webhooks, org, post.clone(), None);
            spawn(webhooks, org, post, None);
        }
        Some(WebhookFault::Hold { behind }) => {
            lock(&webhooks.state).held.push((behind.max(1), post))
        }
        Some(WebhookFault::Delay { seconds }) => {
            spawn(webhooks, org, post, Some(Duration::from_secs(seconds)))
        }
    }
}

fn spawn(webhooks: &Webhooks, org: &Arc<Org>, post: Post, delay: Option<Duration>) {
    let org = Arc::clone(org);
    let stop = webhooks.stop.clone();
    webhooks.tasks.spawn(async move {
        let work = async {
            if let Some(delay) = delay {
                org.clock.sleep(delay).await;
            }
            deliver(&org, post).await;
        };
        tokio::select! {
            () = work => {}
            () = stop.cancelled() => {}
        }
    });
}

/// Delivers a message, then those that were held until it was.
async fn deliver(org: &Arc<Org>, post: Post) {
    let mut next = vec![post];
    while let Some(post) = next.pop() {
        if post.contract == 8 {
            org.counters.count("webhooks", "asynchronous");
            let (attempts, result) = attempt(&org.webhooks, &post).await;
            let failure = result.err();
            org.webhooks.note(
                &post,
                attempts,
                if failure.is_none() {
                    "delivered"
                } else {
                    "failed"
                },
                failure.clone(),
            );
            finish(org, &post, failure).await;
        } else {
            org.counters.count("webhooks", "queued");
            queue(org, &post).await;
        }
        next.extend(released(&org.webhooks));
    }
}

/// The held messages whose turn has come.
fn released(webhooks: &Webhooks) -> Vec<Post> {
    let mut state = lock(&webhooks.state);
    let mut free = Vec::new();
    let held = std::mem::take(&mut state.held);
    for (left, post) in held {
        match left.saturating_sub(1) {
            0 => free.push(post),
            left => state.held.push((left, post)),
        }
    }
    free
}

/// One attempt, and one more after 502, 503 or 504; their number and what went wrong.
pub(super) async fn attempt(webhooks: &Webhooks, post: &Post) -> (u32, Result<(), String>) {
    let mut attempts = 0;
    loop {
        attempts += 1;
        let sent = request(webhooks, post).send().await;
        let result = match sent {
            Ok(answer) if answer.status().is_success() => return (attempts, Ok(())),
            Ok(answer) => Err(answer.status().as_u16()),
            Err(error) if error.is_timeout() => {
                return (
                    attempts,
                    Err("the receiver did not answer in time".to_owned()),
                );
            }
            Err(error) => {
                return (
                    attempts,
                    Err(format!("the receiver could not be reached: {error}")),
                );
            }
        };
        match result {
            Err(502..=504) if attempts == 1 => {}
            Err(status) => return (attempts, Err(format!("the receiver answered {status}"))),
            Ok(()) => return (attempts, Ok(())),
        }
    }
}

fn request(webhooks: &Webhooks, post: &Post) -> reqwest::RequestBuilder {
    let mut url = post.url.clone();
    let mut pair = |key: &str, value: &str| {
        url.push(if url.contains('?') { '&' } else { '?' });
        url.push_str(&format!(
            "{}={}",
            percent::encode(key),
            percent::encode(value)
        ));
    };
    match &post.auth {
        Auth::Code(key) => pair("code", key),
        Auth::Query(pairs) => pairs.iter().for_each(|(key, value)| pair(key, value)),
        Auth::None | Auth::Headers(_) => {}
    }
    let mut request = webhooks
        .client
        .post(url)
        .timeout(webhooks.timeout())
        .header("content-type", "application/json; charset=utf-8")
        .header("x-ms-dynamics-organization", "simulated.crm.dynamics.com")
        .header("x-ms-dynamics-entity-name", &post.table)
        .header("x-ms-dynamics-request-name", post.message)
        .header("x-ms-correlation-request-id", post.correlation.to_string());
    if post.oversized {
        request = request.header("x-ms-dynamics-msg-size-exceeded", "true");
    }
    if let Auth::Headers(pairs) = &post.auth {
        for (key, value) in pairs {
            request = request.header(key, value);
        }
    }
    request.body(post.body.clone())
}

/// Leaves the row of the system job, unless it succeeded and its step says that it goes then.
async fn finish(org: &Arc<Org>, post: &Post, failure: Option<String>) {
    if failure.is_none() && post.auto_delete {
        return;
    }
    let Some(table) = org
        .store()
        .table("asyncoperation")
        .map(|rows| Arc::clone(&rows.table))
    else {
        return;
    };
    let id = org.draw();
    let now = Cell::Time(org.clock.second());
    let mut cells = vec![Cell::Null; table.columns.len()];
    let set = [
        ("asyncoperationid", Cell::Id(id)),
        ("name", Cell::text(&post.step_name)),
        ("operationtype", Cell::Int(1)),
        ("messagename", Cell::text(post.message)),
        ("primaryentitytype", Cell::text(&post.table)),
        ("correlationid", Cell::Id(post.correlation)),
        (
            "owningextensionid",
            Cell::Ref(Arc::from("sdkmessageprocessingstep"), post.step),
        ),
        ("createdon", now.clone()),
        ("modifiedon", now.clone()),
        ("completedon", now),
        ("statecode", Cell::Int(3)),
        (
            "statuscode",
            Cell::Int(if failure.is_some() { 31 } else { 30 }),
        ),
        ("message", failure.as_deref().map_or(Cell::Null, Cell::text)),
    ];
    for (name, cell) in set {
        if let Some(place) = table.place(name) {
            cells[place] = cell;
        }
    }
    if let Err(error) = org.record("asyncoperation", id, cells).await {
        tracing::error!(
            error = &error as &dyn std::error::Error,
            "recording a system job"
        );
    }
}

/// Hands a message to the service bus.
async fn queue(org: &Arc<Org>, post: &Post) {
    let claim = |name: &str, value: &str| (format!("{CLAIMS}{name}"), value.to_owned());
    let mut properties = vec![
        claim("Organization", "simulated.crm.dynamics.com"),
        claim("User", &post.user.to_string()),
        claim("InitiatingUser", &post.user.to_string()),
        claim("EntityLogicalName", &post.table),
        claim("RequestName", post.message),
    ];
    if post.oversized {
        properties.push(("MessageMaxSizeExceeded".to_owned(), "true".to_owned()));
    }
    if post.body.len() > super::QUEUE_MOST {
        let problem = "the message is too large even without its parameters".to_owned();
        org.webhooks.note(post, 0, "failed", Some(problem.clone()));
        return finish(org, post, Some(problem)).await;
    }
    let message = BusMessage {
        endpoint: post.endpoint,
        entity: post.path.clone(),
        contract: post.contract,
        content_type: match post.message_format {
            2 => "application/json",
            3 => "application/xml",
            _ => "application/msbin1",
        },
        body: post.body.clone(),
        properties,
        enqueued: org.clock.now(),
    };
    let refused = match &org.bus {
        Some(bus) if !bus.post(&message) => Some(format!(
            "The messaging entity '{}' could not be found.",
            post.path
        )),
        Some(_) => None,
        None => {
            org.outbox.post(message);
            None
        }
    };
    if refused.is_some() {
        org.webhooks.note(post, 1, "failed", refused.clone());
        return finish(org, post, refused).await;
    }
    org.webhooks.note(post, 1, "queued", None);
    finish(org, post, None).await;
}

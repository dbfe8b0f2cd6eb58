//! The transport: versions, sizes, tokens, cookies, and polls that are held.

use std::sync::Arc;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Path, Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, COOKIE, SET_COOKIE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use super::super::faults::{BayeuxFault, Denial, WhileHeld};
use super::super::lock::lock;
use super::super::org::Org;
use super::super::sessions::User;
use super::client::{BALANCER, BROWSER, Cookies};
use super::message::{
    AUTHENTICATION_INVALID, AUTHENTICATION_REQUIRED, Advice, HANDSHAKE_DENIED, Item, Message,
    Reply, TOO_BUSY, TOO_MANY_CLIENTS,
};
use super::server::{Caller, Held, NoUser, Step};

/// The largest request body, in bytes.
const MAX_BODY: usize = 32_768;
/// Sessions older than this version know no replay.
const OLDEST_VERSION: f64 = 37.0;

/// `POST /cometd/{version}`.
pub(super) async fn serve(
    State(org): State<Arc<Org>>,
    Path(path): Path<Vec<(String, String)>>,
    request: Request,
) -> Response {
    let version = path.first().map_or("", |(_, version)| version.as_str());
    let problem = version_problem(version, &org.profile.api_version);
    let (parts, body) = request.into_parts();
    let messages = match read(&parts.headers, body).await {
        Ok(messages) => messages,
        Err(refused) => return *refused,
    };
    if let Some(problem) = problem {
        return version_refused(&messages, problem);
    }
    let while_held = parts.extensions.get::<WhileHeld>().copied();
    Turn::new(&org, parts.headers, messages.len() == 1, while_held)
        .run(messages)
        .await
}

/// `POST /cometd/`.
pub(super) async fn without_version(request: Request) -> Response {
    let (parts, body) = request.into_parts();
    match read(&parts.headers, body).await {
        Ok(messages) => version_refused(
            &messages,
            "400::API version in the URI is mandatory. URI format: '/cometd/66.0'",
        ),
        Err(refused) => *refused,
    }
}

fn version_problem(version: &str, newest: &str) -> Option<&'static str> {
    const UNSUPPORTED: &str =
        "400::Unsupported API version. Only API versions '37.0' and above are supported.";
    let number = |text: &str| text.strip_suffix(".0")?.parse::<u16>().ok().map(f64::from);
    match (number(version), number(newest)) {
        (Some(version), Some(newest)) if (OLDEST_VERSION..=newest).contains(&version) => None,
        _ => Some(UNSUPPORTED),
    }
}

fn version_refused(messages: &[Message], problem: &str) -> Response {
    let replies: Vec<_> = messages
        .iter()
        .map(|message| Item::reply(Reply::refused(message, problem).advised(Advice::None)))
        .collect();
    json(StatusCode::BAD_REQUEST, &replies)
}

async fn read(headers: &HeaderMap, body: Body) -> Result<Vec<Message>, Box<Response>> {
    let is_json = headers
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok())
        .is_some_and(|kind| {
            kind.split(';').next().unwrap_or_default().trim() == "application/json"
        });
    let body: Bytes = to_bytes(body, MAX_BODY).await.map_err(|_| {
        let text = "Maximum Request Size Exceeded";
        Box::new((StatusCode::PAYLOAD_TOO_LARGE, text).into_response())
    })?;
    let refused = |text: String| Box::new((StatusCode::BAD_REQUEST, text).into_response());
    if !is_json {
        return Err(refused("Content-Type must be application/json".to_owned()));
    }
    Message::read(&body).map_err(|error| refused(format!("Invalid Bayeux messages: {error}")))
}

fn json(status: StatusCode, items: &[Item]) -> Response {
    match serde_json::to_vec(items) {
        Ok(body) => {
            let kind = HeaderValue::from_static("application/json;charset=UTF-8");
            (status, [(CONTENT_TYPE, kind)], body).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// A handshake denied by script. Salesforce may call the server's overload an authentication error, and tell the
/// truth in the failure's reason only.
fn denied(message: &Message, reason: Denial) -> Reply {
    let (error, reason) = match reason {
        Denial::AuthenticationInvalid => (HANDSHAKE_DENIED, AUTHENTICATION_INVALID),
        Denial::AuthenticationRequired => (HANDSHAKE_DENIED, AUTHENTICATION_REQUIRED),
        Denial::TooManyClients => (HANDSHAKE_DENIED, TOO_MANY_CLIENTS),
        Denial::TooBusy => (HANDSHAKE_DENIED, TOO_BUSY),
        Denial::TooBusyAsAuthentication => (AUTHENTICATION_INVALID, TOO_BUSY),
    };
    Reply::denied(message, error, reason)
}

/// One HTTP request and the answer that grows for it.
struct Turn<'a> {
    org: &'a Arc<Org>,
    headers: HeaderMap,
    cookies: Cookies,
    alone: bool,
    while_held: Option<WhileHeld>,
    items: Vec<Item>,
    set: Option<Cookies>,
}

impl<'a> Turn<'a> {
    fn new(
        org: &'a Arc<Org>,
        headers: HeaderMap,
        alone: bool,
        while_held: Option<WhileHeld>,
    ) -> Self {
        let sent = headers
            .get_all(COOKIE)
            .iter()
            .filter_map(|value| value.to_str().ok());
        Self {
            cookies: Cookies::read(sent),
            org,
            headers,
            alone,
            while_held,
            items: Vec::new(),
            set: None,
        }
    }

    async fn run(mut self, messages: Vec<Message>) -> Response {
        for message in messages {
            if let Some(fault) = self.org.faults.bayeux(&message.channel)
                && let Some(refusal) = self.strike(&fault, &message)
            {
                self.items.push(Item::reply(refusal));
                continue;
            }
            let caller = Caller {
                user: self.user(),
                cookies: self.cookies.clone(),
                alone: self.alone,
                now: self.org.clock.now(),
            };
            let step = lock(&self.org.streaming.server).take(self.org, message, &caller);
            match step {
                Step::Answer(items) => self.items.extend(items),
                Step::Welcome(items, cookies) => {
                    self.items.extend(items);
                    self.set = Some(cookies);
                }
                Step::Hold(held) => {
                    let items = self.hold(*held).await;
                    self.items.extend(items);
                }
            }
            self.org.streaming.wake();
        }
        self.answer()
    }

    fn user(&self) -> Result<User, NoUser> {
        let token = self
            .headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| matches!(*scheme, "Bearer" | "OAuth"))
            .map(|(_, token)| token.trim())
            .ok_or(NoUser::NoToken)?;
        self.org.sessions.check(token).ok_or(NoUser::DeadToken)
    }

    /// Plays a script's part; a reply stands instead of the server's own.
    fn strike(&self, fault: &BayeuxFault, message: &Message) -> Option<Reply> {
        let streaming = &self.org.streaming;
        match fault {
            BayeuxFault::UnknownClient {} => streaming.forget_clients(),
            BayeuxFault::LostCookie {} => streaming.forget_cookies(),
            BayeuxFault::Dismiss {} => streaming.dismiss(),
            BayeuxFault::Refuse {
                error,
                reason,
                advice,
            } => {
                let reply = match reason {
                    Some(reason) => Reply::denied(message, error, reason),
                    None => Reply::refused(message, error.as_str()),
                };
                return Some(match advice {
                    Some(advice) => reply.advised(*advice),
                    None => reply,
                });
            }
            BayeuxFault::DenyHandshake { reason } => return Some(denied(message, *reason)),
        }
        None
    }

    /// Waits until there is something to say to a held poll.
    async fn hold(&self, held: Held) -> Vec<Item> {
        let org = self.org;
        let mut log = org.log.watch();
        let mut changed = org.streaming.watch();
        let until = held.until;
        let waiting = Waiting { org, held };
        org.streaming.wake();
        if self.while_held == Some(WhileHeld::ExpireTokens) {
            org.sessions.expire_all();
        }
        loop {
            let user = self.user();
            let now = org.clock.now();
            let said = lock(&org.streaming.server).poll(org, &waiting.held, user, now);
            if let Some(items) = said {
                return items;
            }
            tokio::select! {
                moved = log.changed() => if moved.is_err() { return Vec::new() },
                moved = changed.changed() => if moved.is_err() { return Vec::new() },
                () = org.clock.sleep_until(until) => {}
            }
        }
    }

    fn answer(self) -> Response {
        let mut response = json(StatusCode::OK, &self.items);
        let Some(cookies) = self.set else {
            return response;
        };
        let secure = if self.org.url().starts_with("https") {
            "; Secure"
        } else {
            ""
        };
        for (name, value) in [(BROWSER, cookies.browser), (BALANCER, cookies.balancer)] {
            let cookie = format!(
                "{name}={}; Path=/cometd/; HttpOnly{secure}",
                value.unwrap_or_default()
            );
            if let Ok(cookie) = HeaderValue::from_str(&cookie) {
                response.headers_mut().append(SET_COOKIE, cookie);
            }
        }
        response
    }
}

/// A held poll; when its connection is gone, the session's time to come back begins.
struct Waiting<'a> {
    org: &'a Arc<Org>,
    held: Held,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let now = self.org.clock.now();
        lock(&self.org.streaming.server).let_go(&self.held, now);
        self.org.streaming.wake();
    }
}

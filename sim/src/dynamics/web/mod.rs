//! The Web API, version 9.2: admits callers, finds what a URL names, answers.

mod address;
mod batch;
mod bulk;
mod csdl;
mod delta;
mod functions;
mod metadata;
mod page;
mod payload;
mod query;
mod read;
mod rows;
mod write;

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};

use self::address::Address;
use self::page::Prefer;
use super::cell::Cell;
use super::entra::grants::Principal;
use super::error::ApiError;
use super::guid::Guid;
use super::node::Node;
use super::org::Org;
use super::throttle::Admitted;

/// The path under which the Web API lies.
pub(crate) const ROOT: &str = "/api/data/v9.2/";

/// The largest body: a hundred megabytes and some.
const LARGEST_BODY: usize = 128 << 20;

/// Who calls.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caller {
    pub user: Guid,
}

/// A call, alone or as a part of a batch.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub method: Method,
    /// Behind `/api/data/v9.2/`, decoded only where it is read.
    pub path: String,
    pub query: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Call {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    pub fn prefer(&self) -> Prefer {
        Prefer::read(&self.headers)
    }
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub status: StatusCode,
    pub headers: Vec<(&'static str, String)>,
    pub body: Option<Node>,
    /// A body that is no JSON.
    pub text: Option<(&'static str, String)>,
}

impl Reply {
    pub fn empty(status: StatusCode) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: None,
            text: None,
        }
    }

    pub fn json(body: Node) -> Self {
        Self {
            body: Some(body),
            ..Self::empty(StatusCode::OK)
        }
    }

    pub fn text(kind: &'static str, text: String) -> Self {
        Self {
            text: Some((kind, text)),
            ..Self::empty(StatusCode::OK)
        }
    }

    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub fn error(error: &ApiError, detailed: bool) -> Self {
        let mut reply = Self {
            body: Some(error.body(detailed)),
            ..Self::empty(error.status)
        };
        if let Some(seconds) = error.retry_after {
            reply.headers.push(("Retry-After", seconds.to_string()));
        }
        reply
    }

    /// The body's media type and text.
    pub fn content(&self) -> Option<(&str, String)> {
        match (&self.body, &self.text) {
            (Some(body), _) => Some(("application/json; odata.metadata=minimal", body.text())),
            (None, Some((kind, text))) => Some((kind, text.clone())),
            (None, None) => None,
        }
    }
}

impl IntoResponse for Reply {
    fn into_response(self) -> Response {
        let mut response = match self.content() {
            Some((kind, text)) => {
                (self.status, [(CONTENT_TYPE, kind.to_owned())], text).into_response()
            }
            None => self.status.into_response(),
        };
        for (name, value) in self.headers {
            let name = match name {
                "Retry-After" => RETRY_AFTER,
                name => match HeaderName::from_bytes(name.as_bytes()) {
                    Ok(name) => name,
                    Err(_) => continue,
                },
            };
            if let Ok(value) = HeaderValue::from_str(&value) {
                if name == CONTENT_TYPE {
                    response.headers_mut().insert(name, value);
                } else {
                    response.headers_mut().append(name, value);
                }
            }
        }
        response
    }
}

/// The calls of this module.
pub(super) fn router(org: &Arc<Org>) -> Router {
    Router::new()
        .fallback(entry)
        .layer(DefaultBodyLimit::max(LARGEST_BODY))
        .with_state(Arc::clone(org))
}

/// The token of a request.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    value
        .strip_prefix("Bearer ")
        .or_else(|| value.strip_prefix("bearer "))
}

/// 401 with the hint where to sign in.
pub(crate) fn challenge(org: &Org, resource: &str) -> Response {
    let hint = format!(
        "Bearer authorization_uri={}/{}/oauth2/authorize, resource_id={resource}/",
        org.url(),
        org.entra.tenant
    );
    let mut response = StatusCode::UNAUTHORIZED.into_response();
    if let Ok(hint) = HeaderValue::from_str(&hint) {
        response.headers_mut().insert(WWW_AUTHENTICATE, hint);
    }
    response
}

async fn entry(State(org): State<Arc<Org>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let Some(path) = versioned(parts.uri.path()) else {
        return (StatusCode::NOT_FOUND, "").into_response();
    };
    let Some(access) = bearer(&parts.headers).and_then(|token| org.entra.access(token, &org))
    else {
        org.counters.count("web_api", "401");
        return challenge(&org, org.url());
    };
    if access.audience != org.url() {
        org.counters.count("web_api", "401");
        return challenge(&org, org.url());
    }
    let body = match axum::body::to_bytes(body, LARGEST_BODY).await {
        Ok(body) => body,
        Err(_) => return StatusCode::PAYLOAD_TOO_LARGE.into_response(),
    };
    let call = Call {
        method: parts.method,
        path: path.to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        headers: parts.headers,
        body,
    };
    let detailed = call.prefer().every_annotation();
    let mut reply = match admitted(&org, access.principal, &call).await {
        Ok(reply) => reply,
        Err(error) => Reply::error(&error, detailed),
    };
    if call
        .header("odata-version")
        .is_some_and(|version| version != "4.0")
        || call
            .header("odata-maxversion")
            .is_some_and(|version| version != "4.0")
    {
        reply = Reply::error(&ApiError::odata("The OData version must be 4.0."), false);
    }
    reply.headers.push(("OData-Version", "4.0".to_owned()));
    reply
        .headers
        .push(("x-ms-service-request-id", org.draw().to_string()));
    reply.into_response()
}

/// The path behind a version that is served.
fn versioned(path: &str) -> Option<&str> {
    if let Some(path) = path.strip_prefix(ROOT) {
        return Some(path);
    }
    (path == ROOT.trim_end_matches('/')).then_some("")
}

/// A call that counts as running until it ends, by an answer or because its client went away.
struct Running<'o> {
    org: &'o Org,
    admitted: Admitted,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.org
            .throttle
            .leave(&self.admitted, self.org.clock.now());
    }
}

async fn admitted(org: &Arc<Org>, principal: Principal, call: &Call) -> Result<Reply, ApiError> {
    let caller = member(org, principal, call)?;
    let now = org.clock.now();
    let admitted = org
        .throttle
        .enter(caller.user, now)
        .inspect_err(|_| org.counters.count("web_api", "429"))?;
    let left = admitted.left;
    let running = Running { org, admitted };
    let result = answer(org, caller, call).await;
    drop(running);
    let mut reply =
        result.unwrap_or_else(|error| Reply::error(&error, call.prefer().every_annotation()));
    reply.headers.push((
        "x-ms-ratelimit-burst-remaining-xrm-requests",
        left.0.to_string(),
    ));
    reply.headers.push((
        "x-ms-ratelimit-time-remaining-xrm-requests",
        format!("{:.2}", left.1.max(0)),
    ));
    Ok(reply)
}

/// The user behind a token: the person, or the application's user; or the one to be impersonated.
fn member(org: &Org, principal: Principal, call: &Call) -> Result<Caller, ApiError> {
    let outside = || {
        ApiError::new(
            StatusCode::FORBIDDEN,
            "0x80072560",
            "The user is not a member of the organization.",
        )
    };
    let store = org.store();
    let users = store.table("systemuser").ok_or_else(outside)?;
    let by = |column: &str, id: Option<Guid>| {
        let (place, id) = (users.table.place(column)?, id?);
        users
            .rows()
            .find(|(_, row)| row.cell(place).id() == Some(id))
    };
    let found = match principal {
        Principal::User(id) => users.row(id).map(|row| (id, row)),
        Principal::Application => by(
            "applicationid",
            org.entra.application.client_id.parse().ok(),
        ),
    };
    let (id, row) = found.ok_or_else(outside)?;
    let disabled = users
        .table
        .place("isdisabled")
        .is_some_and(|place| *row.cell(place) == Cell::Bool(true));
    if disabled {
        let message = "The user with SystemUserId is disabled.";
        return Err(ApiError::new(StatusCode::FORBIDDEN, "0x80040225", message));
    }
    match call.header("callerobjectid") {
        None => Ok(Caller { user: id }),
        Some(object) => by("azureactivedirectoryobjectid", object.parse().ok())
            .map(|(user, _)| Caller { user })
            .ok_or_else(outside),
    }
}

async fn answer(org: &Arc<Org>, caller: Caller, call: &Call) -> Result<Reply, ApiError> {
    if call.path == "$batch" {
        org.counters.count("web_api", "POST $batch");
        if call.method != Method::POST {
            return Err(ApiError::not_allowed("$batch takes POST"));
        }
        return Box::pin(batch::batch(org, caller, call)).await;
    }
    single(org, caller, call).await
}

/// Whether a call changes rows.
pub(crate) fn is_write(call: &Call) -> bool {
    call.method != Method::GET && call.method != Method::HEAD
}

/// A call that is no batch.
async fn single(org: &Arc<Org>, caller: Caller, call: &Call) -> Result<Reply, ApiError> {
    let address = Address::read(&call.path)?;
    org.counters.count(
        "web_api",
        &format!("{} {}", call.method, address.resource()),
    );
    if is_write(call) {
        return org
            .transact(caller.user, |tx| {
                write::write(org, tx, caller, call, &address)
            })
            .await;
    }
    read::read(org, caller, call, &address)
}

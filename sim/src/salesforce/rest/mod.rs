//! The REST API (REST API Developer Guide): routes, and the rules that every call obeys.
#![allow(clippy::unused_async, reason = "axum's handlers are async")]

mod collections;
mod composite;
mod describe;
pub(super) mod error;
mod limits;
mod oauth;
mod permissions;
mod query;
mod records;
mod replication;
mod resources;
mod tooling;
mod upserts;

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, DATE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, patch, post};
use axum::{Extension, Router};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::de::DeserializeOwned;

use self::error::ApiError;
use super::bulk;
use super::org::Org;
use super::sessions::User;

/// URI and headers together may be so long.
const LONGEST_HEAD: usize = 16_384;
const LARGEST_BODY: usize = 50 << 20;
static LIMIT_INFO: HeaderName = HeaderName::from_static("sforce-limit-info");

/// Who calls, by which version, under which tag.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub user: User,
    /// `66.0`.
    pub version: String,
    /// `client=` of `Sforce-Call-Options`.
    pub client: Option<String>,
}

impl Caller {
    /// The `changeOrigin` of what the caller writes.
    pub fn origin(&self) -> String {
        match &self.client {
            Some(client) => format!("com/salesforce/api/rest/{};client={client}", self.version),
            None => format!("com/salesforce/api/rest/{}", self.version),
        }
    }
}

pub(super) type Caught = Extension<Caller>;
pub(super) type Shared = State<Arc<Org>>;

/// OAuth and REST.
pub(super) fn router(org: &Arc<Org>) -> Router {
    let data = [
        ("", get(resources::resources)),
        ("/limits", get(limits::limits)),
        ("/query", get(query::query)),
        ("/queryAll", get(query::query_all)),
        ("/query/{locator}", get(query::more)),
        ("/queryAll/{locator}", get(query::more)),
        ("/sobjects", get(describe::global)),
        (
            "/sobjects/{object}",
            get(describe::basic).post(records::create),
        ),
        ("/sobjects/{object}/describe", get(describe::object)),
        ("/sobjects/{object}/updated", get(replication::updated)),
        ("/sobjects/{object}/deleted", get(replication::deleted)),
        (
            "/sobjects/{object}/{id}",
            get(records::read)
                .patch(records::update)
                .delete(records::delete),
        ),
        ("/composite", post(composite::composite)),
        (
            "/composite/sobjects",
            post(collections::create)
                .patch(collections::update)
                .delete(collections::delete),
        ),
        ("/composite/sobjects/{object}", post(collections::fetch)),
        (
            "/composite/sobjects/{object}/{field}",
            patch(upserts::upsert_all),
        ),
        (
            "/sobjects/{object}/{id}/{value}",
            get(upserts::read).patch(upserts::upsert),
        ),
        ("/tooling/query", get(tooling::query)),
        ("/tooling/sobjects/{object}", post(tooling::create)),
        (
            "/tooling/sobjects/{object}/{id}",
            get(tooling::read).delete(tooling::delete),
        ),
    ];
    let versioned =
        data.into_iter()
            .chain(bulk::routes())
            .fold(Router::new(), |router, (path, methods)| {
                both(
                    router,
                    &format!("/services/data/{{version}}{path}"),
                    methods,
                )
            });
    let open = both(Router::new(), "/services/data", get(resources::versions));
    versioned
        .method_not_allowed_fallback(method_not_allowed)
        .route_layer(from_fn_with_state(Arc::clone(org), guard))
        .merge(open)
        .merge(oauth::router())
        .layer(DefaultBodyLimit::max(LARGEST_BODY))
        .with_state(Arc::clone(org))
}

/// A path with and without a slash at its end.
fn both(router: Router<Arc<Org>>, path: &str, methods: MethodRouter<Arc<Org>>) -> Router<Arc<Org>> {
    router
        .route(&format!("{path}/"), methods.clone())
        .route(path, methods)
}

/// Nothing is at this path.
pub(super) async fn not_found() -> ApiError {
    ApiError::not_found()
}

async fn method_not_allowed(request: Request) -> ApiError {
    let message = format!("HTTP Method '{}' not allowed", request.method());
    ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "METHOD_NOT_ALLOWED",
        message,
    )
}

/// Version, session, quota; then the call, with what is left of the quota in its answer.
async fn guard(
    State(org): Shared,
    path: Option<MatchedPath>,
    mut request: Request,
    next: Next,
) -> Response {
    // A call within another is admitted and counted with it.
    if let Some(composite::Within(caller)) = request.extensions_mut().remove() {
        request.extensions_mut().insert::<Caller>(caller);
        return next.run(request).await;
    }
    let now = org.clock.now();
    let mut response = match admit(&org, path.as_ref(), &request, now) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(error) => error.into_response(),
    };
    let usage = format!(
        "api-usage={}/{}",
        org.counters.used(now),
        org.counters.api_limit()
    );
    if let Ok(usage) = HeaderValue::from_str(&usage) {
        response.headers_mut().insert(LIMIT_INFO.clone(), usage);
    }
    response
}

fn admit(
    org: &Org,
    path: Option<&MatchedPath>,
    request: &Request,
    now: DateTime<Utc>,
) -> Result<Caller, ApiError> {
    let version = version(org, request.uri().path()).ok_or_else(ApiError::not_found)?;
    let headers = request.headers();
    let user = match bearer(headers) {
        Some(token) => org.sessions.check(token).ok_or_else(|| {
            ApiError::new(
                StatusCode::UNAUTHORIZED,
                "INVALID_SESSION_ID",
                "Session expired or invalid",
            )
        })?,
        None => {
            return Err(ApiError::new(
                StatusCode::UNAUTHORIZED,
                "INVALID_AUTH_HEADER",
                "INVALID_HEADER_TYPE",
            ));
        }
    };
    let resource = path
        .and_then(|path| path.as_str().strip_prefix("/services/data/{version}"))
        .map_or("", |path| path.trim_matches('/'));
    if org.counters.used(now) >= org.counters.api_limit() {
        return Err(ApiError::new(
            StatusCode::FORBIDDEN,
            "REQUEST_LIMIT_EXCEEDED",
            "TotalRequests Limit exceeded.",
        ));
    }
    org.counters
        .call(&format!("{} {resource}", request.method()), now);
    Ok(Caller {
        user,
        version,
        client: option(headers, "sforce-call-options", "client"),
    })
}

/// The version of `/services/data/v66.0/…`, if it is served.
fn version(org: &Org, path: &str) -> Option<String> {
    let version = path.strip_prefix("/services/data/v")?.split('/').next()?;
    let number = |text: &str| text.strip_suffix(".0")?.parse::<u32>().ok();
    let newest = number(&org.profile.api_version)?;
    (resources::OLDEST..=newest)
        .contains(&number(version)?)
        .then(|| version.to_owned())
}

/// The token of `Authorization: Bearer …`.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let known = scheme.eq_ignore_ascii_case("Bearer") || scheme.eq_ignore_ascii_case("OAuth");
    (known && !token.trim().is_empty()).then(|| token.trim())
}

/// One pair of a header such as `Sforce-Query-Options: batchSize=500`.
fn option(headers: &HeaderMap, header: &str, name: &str) -> Option<String> {
    headers
        .get(header)?
        .to_str()
        .ok()?
        .split([',', ';'])
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, _)| key.trim().eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim().to_owned())
}

/// A JSON body; anything else is refused as Salesforce does.
pub(super) fn json<T: DeserializeOwned>(headers: &HeaderMap, body: &Bytes) -> Result<T, ApiError> {
    let is_json = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.starts_with("application/json"));
    if !is_json {
        return Err(ApiError::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "UNSUPPORTED_MEDIA_TYPE",
            "Content-Type header must be application/json",
        ));
    }
    serde_json::from_slice(body)
        .map_err(|error| ApiError::bad_request("JSON_PARSER_ERROR", error.to_string()))
}

/// An HTTP date: `Tue, 09 Apr 2024 20:26:27 GMT`.
fn http_date(time: DateTime<Utc>) -> String {
    time.format("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

fn parse_http_date(text: &str) -> Option<DateTime<Utc>> {
    DateTime::parse_from_rfc2822(text)
        .ok()
        .map(|time| time.with_timezone(&Utc))
}

/// What holds for every surface: the org's own date on each answer, and no endless heads.
pub(super) async fn envelope(State(org): Shared, request: Request, next: Next) -> Response {
    let uri = request.uri().to_string().len();
    let head = request
        .headers()
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 4)
        .sum::<usize>();
    let mut response = if uri > LONGEST_HEAD {
        StatusCode::URI_TOO_LONG.into_response()
    } else if uri + head > LONGEST_HEAD {
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE.into_response()
    } else {
        next.run(request).await
    };
    if let Ok(date) = HeaderValue::from_str(&http_date(org.clock.now())) {
        response.headers_mut().insert(DATE, date);
    }
    response
}

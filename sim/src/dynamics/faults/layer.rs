//! The layer that plays request faults, in front of every surface but the control API.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::stream;

use super::super::error::ApiError;
use super::super::org::Org;
use super::script::{Fault, Moment};
use crate::salesforce::lock::lock;

/// The middleware (`axum::middleware::from_fn_with_state`): asks the scripts, and lets the request fail as they say.
pub(crate) async fn apply(State(org): State<Arc<Org>>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let surface = match path {
        path if path.starts_with("/api/data/") => "web_api",
        path if path.starts_with("/api/discovery/") => "discovery",
        path if path.contains("/oauth2/")
            || path.ends_with("/adminconsent")
            || path.contains("/v2.0/") =>
        {
            "entra"
        }
        _ => "other",
    };
    match org.faults.request(surface, request.method().as_str(), path) {
        None => next.run(request).await,
        Some(fault) => Box::pin(suffer(&org, fault, request, next)).await,
    }
}

async fn suffer(org: &Arc<Org>, fault: Fault, request: Request, next: Next) -> Response {
    match fault {
        Fault::Status {
            status,
            code,
            message,
            retry_after,
        } => answer(status, code, message, retry_after),
        Fault::ExpireTokens { when } => {
            let expire = || lock(&org.entra.grants).expire_access();
            if when == Moment::Before {
                expire();
            }
            let response = next.run(request).await;
            if when == Moment::After {
                expire();
            }
            response
        }
        Fault::Slow { seconds } => {
            org.clock.sleep(Duration::from_secs(seconds)).await;
            next.run(request).await
        }
        Fault::Cut { bytes } => cut(next.run(request).await, bytes).await,
        Fault::LostReply {} => {
            // The whole answer is made, so that all of its effects are there.
            drop(whole(next.run(request).await).await);
            broken()
        }
        Fault::LostRequest {} => broken(),
        Fault::Stall {} => std::future::pending().await,
    }
}

/// Gateways answer HTML, the Web API its own error.
fn answer(
    status: u16,
    code: Option<String>,
    message: Option<String>,
    retry_after: Option<u64>,
) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = if matches!(status.as_u16(), 502..=504) && code.is_none() {
        let page = format!(
            "<html><head><title>{status}</title></head><body><h2>{status}</h2></body></html>"
        );
        (
            status,
            [(CONTENT_TYPE, "text/html")],
            message.unwrap_or(page),
        )
            .into_response()
    } else {
        let usual = match status.as_u16() {
            401 => "",
            403 => "0x80040220",
            429 => "0x80072322",
            _ => "0x80040216",
        };
        let message = message.unwrap_or_else(|| "An unexpected error occurred.".to_owned());
        let error = ApiError::new(status, code.as_deref().unwrap_or(usual), message);
        let kind = [(CONTENT_TYPE, "application/json; odata.metadata=minimal")];
        (status, kind, error.body(false).text()).into_response()
    };
    if let Some(seconds) = retry_after {
        response
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

async fn whole(response: Response) -> (axum::http::response::Parts, Bytes) {
    let (parts, body) = response.into_parts();
    // Only the simulator's own surfaces lie behind: their bodies are in memory and can't fail.
    let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
    (parts, body)
}

/// A beginning of the body under the length of the whole, then nothing.
async fn cut(response: Response, bytes: Option<usize>) -> Response {
    let (mut parts, body) = whole(response).await;
    let length = body.len().max(1);
    let kept = bytes.unwrap_or(length / 2).min(length - 1);
    let begin = body.slice(..kept.min(body.len()));
    parts
        .headers
        .insert(CONTENT_LENGTH, HeaderValue::from(length));
    let pieces = stream::unfold(Some(begin), |begin| async move {
        match begin {
            Some(begin) => Some((Ok(begin), None)),
            None => {
                // What was written before must leave the buffer: the connection ends with this error.
                tokio::task::yield_now().await;
                Some((Err(gone()), None))
            }
        }
    });
    Response::from_parts(parts, Body::from_stream(pieces))
}

/// An answer that fails before its first byte: the server closes the connection without writing anything.
fn broken() -> Response {
    let body = Body::from_stream(stream::once(async { Err::<Bytes, _>(gone()) }));
    let mut response = Response::new(body);
    response
        .headers_mut()
        .insert(CONTENT_LENGTH, HeaderValue::from(1));
    response
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "cut by a script")
}

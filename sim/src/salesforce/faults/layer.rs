//! The layer that plays request faults, in front of every surface but the control API.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::CONTENT_LENGTH;
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::stream;

use super::super::org::Org;
use super::answers;
use super::script::{Moment, RequestFault, Surface};

/// Bayeux bodies are looked into up to this size; the surface refuses larger ones anyway.
const LOOK_INTO: usize = 64 * 1024;

/// What a request is to suffer while its poll is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WhileHeld {
    ExpireTokens,
}

/// The middleware (`axum::middleware::from_fn_with_state`): asks the scripts, and lets the request fail as they say.
pub async fn apply(State(org): State<Arc<Org>>, request: Request, next: Next) -> Response {
    let Some(surface) = Surface::of(request.uri().path()) else {
        return next.run(request).await;
    };
    let (request, messages) = if surface == Surface::Cometd && org.faults.look_into_bodies() {
        match look_into(request).await {
            Ok(seen) => seen,
            Err(refused) => return *refused,
        }
    } else {
        (request, Vec::new())
    };
    let fault = org.faults.request(
        surface,
        request.method().as_str(),
        request.uri().path(),
        &messages,
    );
    match fault {
        None => next.run(request).await,
        Some(fault) => Box::pin(suffer(&org, surface, fault, request, next)).await,
    }
}

async fn suffer(
    org: &Arc<Org>,
    surface: Surface,
    fault: RequestFault,
    mut request: Request,
    next: Next,
) -> Response {
    match fault {
        RequestFault::Status {
            status,
            code,
            message,
            retry_after,
        } => answers::status(surface, status, code, message, retry_after),
        RequestFault::ExpireTokens { when } => {
            if when == Moment::Before {
                expire(org);
            }
            if when == Moment::During {
                request.extensions_mut().insert(WhileHeld::ExpireTokens);
            }
            let response = next.run(request).await;
            if when == Moment::After {
                expire(org);
            }
            response
        }
        RequestFault::Slow { seconds } => {
            org.clock.sleep(Duration::from_secs(seconds)).await;
            next.run(request).await
        }
        RequestFault::SlowBody { chunk, seconds } => {
            let response = next.run(request).await;
            slow(org, response, chunk, Duration::from_secs(seconds)).await
        }
        RequestFault::Cut { bytes } => cut(next.run(request).await, bytes).await,
        RequestFault::LostReply {} => {
            // The whole answer is made, so that all of its effects are there.
            drop(whole(next.run(request).await).await);
            broken()
        }
        RequestFault::LostRequest {} => broken(),
        RequestFault::Stall {} => std::future::pending().await,
    }
}

/// Ends all tokens, and lets held polls notice.
fn expire(org: &Org) {
    org.sessions.expire_all();
    org.streaming.wake();
}

/// The Bayeux channels of a request, which stays whole.
async fn look_into(request: Request) -> Result<(Request, Vec<String>), Box<Response>> {
    #[derive(serde::Deserialize)]
    struct Channel {
        channel: String,
    }
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, LOOK_INTO).await.map_err(|_| {
        let text = "Maximum Request Size Exceeded";
        Box::new((StatusCode::PAYLOAD_TOO_LARGE, text).into_response())
    })?;
    let messages = serde_json::from_slice::<Vec<Channel>>(&body)
        .or_else(|_| serde_json::from_slice::<Channel>(&body).map(|channel| vec![channel]))
        .unwrap_or_default();
    let channels = messages
        .into_iter()
        .map(|message| message.channel)
        .collect();
    Ok((Request::from_parts(parts, Body::from(body)), channels))
}

async fn whole(response: Response) -> (axum::http::response::Parts, Bytes) {
    let (parts, body) = response.into_parts();
    // Only the simulator's own surfaces lie behind: their bodies are in memory and can't fail.
    let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
    (parts, body)
}

/// Pieces of the body, each after a pause.
async fn slow(org: &Arc<Org>, response: Response, chunk: usize, pause: Duration) -> Response {
    let (mut parts, body) = whole(response).await;
    parts
        .headers
        .insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    let clock = org.clock.clone();
    let pieces = stream::unfold((body, clock), move |(mut rest, clock)| async move {
        if rest.is_empty() {
            return None;
        }
        clock.sleep(pause).await;
        let piece = rest.split_to(chunk.min(rest.len()));
        Some((Ok::<_, io::Error>(piece), (rest, clock)))
    });
    Response::from_parts(parts, Body::from_stream(pieces))
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

//! What a failing org or its gateway answers, by status and surface.

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::script::Surface;

const OVERLOADED: &str = "<html><head><title>Service Unavailable</title></head><body>\
    <h1>503</h1><p>The server is down for maintenance.</p></body></html>";
const BAD_GATEWAY: &str =
    "<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>";

/// The answer of a scripted status; `code` and `message` replace those that go with it.
pub(super) fn status(
    surface: Surface,
    status: u16,
    code: Option<String>,
    message: Option<String>,
    retry_after: Option<u64>,
) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = match usual(status) {
        Usual::Html(page) if code.is_none() => html(status, &message.unwrap_or(page.to_owned())),
        Usual::Empty if code.is_none() => (status, message.unwrap_or_default()).into_response(),
        Usual::Html(_) | Usual::Empty => {
            error(surface, status, code, message, ("UNKNOWN_EXCEPTION", ""))
        }
        Usual::Error(usual) => error(surface, status, code, message, usual),
    };
    if let Some(seconds) = retry_after {
        response
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

enum Usual {
    Error((&'static str, &'static str)),
    Html(&'static str),
    Empty,
}

fn usual(status: StatusCode) -> Usual {
    match status.as_u16() {
        401 => Usual::Error(("INVALID_SESSION_ID", "Session expired or invalid")),
        403 => Usual::Error(("REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded.")),
        404 => Usual::Error(("NOT_FOUND", "The requested resource does not exist")),
        500 => Usual::Error((
            "UNKNOWN_EXCEPTION",
            "An unexpected error occurred. Please include this ErrorId if you contact support: 1-1",
        )),
        503 => Usual::Html(OVERLOADED),
        502 | 504 => Usual::Html(BAD_GATEWAY),
        406 | 420 | 429 => Usual::Empty,
        _ => Usual::Error(("UNKNOWN_EXCEPTION", "Simulated failure")),
    }
}

/// REST answers an array, OAuth an object with names of its own.
fn error(
    surface: Surface,
    status: StatusCode,
    code: Option<String>,
    message: Option<String>,
    usual: (&str, &str),
) -> Response {
    let body = if surface == Surface::Oauth {
        json!({
            "error": code.as_deref().unwrap_or("unknown_error"),
            "error_description": message.as_deref().unwrap_or("retry your request"),
        })
    } else {
        json!([{
            "message": message.as_deref().unwrap_or(usual.1),
            "errorCode": code.as_deref().unwrap_or(usual.0),
        }])
    };
    let kind = HeaderValue::from_static("application/json;charset=UTF-8");
    (status, [(CONTENT_TYPE, kind)], body.to_string()).into_response()
}

fn html(status: StatusCode, page: &str) -> Response {
    let kind = HeaderValue::from_static("text/html; charset=UTF-8");
    (status, [(CONTENT_TYPE, kind)], Body::from(page.to_owned())).into_response()
}

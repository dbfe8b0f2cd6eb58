//! The web server flow's first step: the user approves at once, or never.

use std::collections::HashMap;

use aws_lc_rs::digest::{SHA256, digest};
use axum::Json;
use axum::extract::{Query, State};
use axum::http::header::LOCATION;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use super::super::super::org::Org;
use super::super::Shared;

/// A code challenge is this long.
const CHALLENGE: usize = 43;

/// `GET /services/oauth2/authorize`.
pub(super) async fn authorize(
    State(org): Shared,
    Query(asked): Query<HashMap<String, String>>,
) -> Response {
    org.counters.note("GET oauth2/authorize");
    let field = |name: &str| asked.get(name).map(String::as_str);
    // Who can't be trusted with the user is not sent back to.
    let Some(redirect) = field("redirect_uri").filter(|uri| uri.contains("://")) else {
        return page("redirect_uri_missing", "missing redirect_uri");
    };
    if field("client_id") != Some(org.profile.client_id.as_str()) {
        return page("invalid_client_id", "client identifier invalid");
    }
    let settings = &org.sign_in.settings;
    if settings
        .redirect_uri
        .as_deref()
        .is_some_and(|own| own != redirect)
    {
        return page(
            "redirect_uri_mismatch",
            "redirect_uri must match configuration",
        );
    }
    let mut answer = match decide(&org, redirect, &field) {
        Ok(code) => vec![("code", code)],
        Err((error, description)) => vec![
            ("error", error.to_owned()),
            ("error_description", description.to_owned()),
        ],
    };
    if let Some(state) = field("state") {
        answer.push(("state", state.to_owned()));
    }
    let pairs: Vec<_> = answer
        .iter()
        .map(|(name, value)| format!("{name}={}", encoded(value)))
        .collect();
    let mark = if redirect.contains('?') { '&' } else { '?' };
    match HeaderValue::from_str(&format!("{redirect}{mark}{}", pairs.join("&"))) {
        Ok(location) => (StatusCode::FOUND, [(LOCATION, location)]).into_response(),
        Err(_) => page("redirect_uri_mismatch", "redirect_uri is no URL"),
    }
}

fn decide<'a>(
    org: &Org,
    redirect: &str,
    field: &impl Fn(&str) -> Option<&'a str>,
) -> Result<String, (&'static str, &'static str)> {
    if field("response_type") != Some("code") {
        return Err(("unsupported_response_type", "response type not supported"));
    }
    let challenge = field("code_challenge");
    if challenge.is_some() && field("code_challenge_method").is_some_and(|method| method != "S256")
    {
        return Err(("invalid_request", "code challenge method not supported"));
    }
    if challenge.is_some_and(|challenge| challenge.len() != CHALLENGE) {
        return Err(("invalid_request", "invalid code challenge"));
    }
    if !org.sign_in.settings.auto_approve {
        return Err(("access_denied", "end-user denied authorization"));
    }
    let scope = field("scope").filter(|scope| !scope.trim().is_empty());
    Ok(org
        .sign_in
        .approve(redirect, scope.unwrap_or("api refresh_token"), challenge))
}

/// `base64url(SHA-256(verifier))` without padding (RFC 7636, 4.2).
pub(super) fn challenge(verifier: &str) -> String {
    URL_SAFE_NO_PAD.encode(digest(&SHA256, verifier.as_bytes()))
}

fn page(error: &str, description: &str) -> Response {
    let body = json!({"error": error, "error_description": description});
    (StatusCode::BAD_REQUEST, Json(body)).into_response()
}

fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

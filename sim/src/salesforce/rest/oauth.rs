//! OAuth 2.0: the client-credentials flow, revocation, and who a token speaks for.
//!
//! Source: Salesforce help, "OAuth 2.0 Client Credentials Flow for Server-to-Server Integration", "Identity URLs",
//! "OAuth 2.0 Authorization Errors".

use std::collections::HashMap;
use std::sync::Arc;

use aws_lc_rs::hmac;
use axum::extract::rejection::FormRejection;
use axum::extract::{Form, Path, Query, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::super::org::Org;
use super::super::sessions::User;
use super::{Shared, bearer};

type Fields = HashMap<String, String>;

pub(super) fn router() -> Router<Arc<Org>> {
    Router::new()
        .route("/services/oauth2/token", post(token))
        .route(
            "/services/oauth2/revoke",
            post(revoke_form).get(revoke_query),
        )
        .route("/services/oauth2/userinfo", get(userinfo).post(userinfo))
        .route("/id/{org}/{user}", get(identity))
}

/// `{base}/id/{org}/{user}`.
pub(super) fn identity_url(org: &Org, user: &User) -> String {
    format!("{}/id/{}/{}", org.url(), org.profile.org_id, user.id)
}

fn refused(error: &str, description: &str) -> Response {
    let body = json!({"error": error, "error_description": description});
    (StatusCode::BAD_REQUEST, Json(body)).into_response()
}

async fn token(
    State(org): Shared,
    headers: HeaderMap,
    form: Result<Form<Fields>, FormRejection>,
) -> Response {
    answer_token(&org, &headers, form.ok().map(|Form(fields)| fields))
}

fn answer_token(org: &Org, headers: &HeaderMap, form: Option<Fields>) -> Response {
    org.counters.note("POST oauth2/token");
    let Some(form) = form else {
        return refused("unsupported_grant_type", "grant type not supported");
    };
    match form.get("grant_type").map(String::as_str) {
        Some("client_credentials") => {}
        None => return refused("invalid_request", "missing required parameter: grant_type"),
        Some(_) => return refused("unsupported_grant_type", "grant type not supported"),
    }
    let basic = headers.contains_key(AUTHORIZATION).then(|| basic(headers));
    let (id, secret) = match basic {
        Some(Some(credentials)) => credentials,
        Some(None) => return refused("invalid_request", "malformed Authorization header"),
        None => {
            let field = |name: &str| form.get(name).cloned().unwrap_or_default();
            (field("client_id"), field("client_secret"))
        }
    };
    if id != org.profile.client_id {
        return refused("invalid_client_id", "client identifier invalid");
    }
    if secret != org.profile.client_secret {
        return refused("invalid_client", "invalid client credentials");
    }
    Json(issue(org)).into_response()
}

fn issue(org: &Org) -> Value {
    let user = &org.profile.run_as;
    let id = identity_url(org, user);
    let issued_at = org.clock.now().timestamp_millis().to_string();
    let key = hmac::Key::new(hmac::HMAC_SHA256, org.profile.client_secret.as_bytes());
    let signature = hmac::sign(&key, format!("{id}{issued_at}").as_bytes());
    json!({
        "access_token": org.sessions.issue(user.clone()),
        "instance_url": org.url(),
        "id": id,
        "token_type": "Bearer",
        "issued_at": issued_at,
        "signature": STANDARD.encode(signature),
        "scope": "api",
    })
}

fn basic(headers: &HeaderMap) -> Option<(String, String)> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("Basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (id, secret) = decoded.split_once(':')?;
    Some((id.to_owned(), secret.to_owned()))
}

async fn revoke_form(State(org): Shared, form: Result<Form<Fields>, FormRejection>) -> Response {
    revoke(&org, form.ok().map(|Form(fields)| fields))
}

async fn revoke_query(State(org): Shared, Query(fields): Query<Fields>) -> Response {
    revoke(&org, Some(fields))
}

fn revoke(org: &Org, fields: Option<Fields>) -> Response {
    let token = fields.and_then(|mut fields| fields.remove("token"));
    match token {
        Some(token) if org.sessions.revoke(&token) => StatusCode::OK.into_response(),
        Some(_) => refused("invalid_token", "invalid token"),
        None => refused("unsupported_token_type", "this token type is not supported"),
    }
}

/// The identity services answer with a short text, not JSON.
fn spoken_for(org: &Org, headers: &HeaderMap) -> Result<User, &'static str> {
    let token = bearer(headers).ok_or("Missing_OAuth_Token")?;
    org.sessions.check(token).ok_or("Bad_OAuth_Token")
}

async fn userinfo(State(org): Shared, headers: HeaderMap) -> Response {
    match spoken_for(&org, &headers) {
        Ok(user) => Json(json!({
            "sub": identity_url(&org, &user),
            "user_id": user.id,
            "organization_id": org.profile.org_id,
            "preferred_username": user.username,
            "name": user.username,
            "email": user.username,
            "email_verified": true,
            "active": true,
            "urls": urls(&org),
        }))
        .into_response(),
        Err(denied) => (StatusCode::FORBIDDEN, denied).into_response(),
    }
}

async fn identity(
    State(org): Shared,
    Path((wanted_org, wanted_user)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    match spoken_for(&org, &headers) {
        Ok(_) if wanted_org != org.profile.org_id => {
            (StatusCode::FORBIDDEN, "Wrong_Org").into_response()
        }
        Ok(user) if wanted_user != user.id => (StatusCode::NOT_FOUND, "Bad_Id").into_response(),
        Ok(user) => Json(json!({
            "id": identity_url(&org, &user),
            "asserted_user": true,
            "user_id": user.id,
            "organization_id": org.profile.org_id,
            "username": user.username,
            "display_name": user.username,
            "email": user.username,
            "active": true,
            "urls": urls(&org),
        }))
        .into_response(),
        Err(denied) => (StatusCode::FORBIDDEN, denied).into_response(),
    }
}

fn urls(org: &Org) -> Value {
    let base = org.url();
    json!({
        "rest": format!("{base}/services/data/v{{version}}/"),
        "sobjects": format!("{base}/services/data/v{{version}}/sobjects/"),
        "query": format!("{base}/services/data/v{{version}}/query/"),
        "custom_domain": base,
    })
}

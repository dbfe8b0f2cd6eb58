//! OAuth 2.0: five ways to a token, revocation, and who a token speaks for.
//!
//! Sources: Salesforce help, "OAuth 2.0 Web Server Flow", "OAuth 2.0 JWT Bearer Flow", "OAuth 2.0 Client Credentials Flow",
//! "OAuth 2.0 Refresh Token Flow", "OAuth 2.0 Username-Password Flow", "Identity URLs", "OAuth 2.0 Authorization Errors";
//! RFC 7636 (PKCE).

mod authorize;
mod identity;
mod jwt;

use std::collections::HashMap;
use std::sync::Arc;

use aws_lc_rs::hmac;
use axum::extract::rejection::FormRejection;
use axum::extract::{Form, Query, State};
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
use super::Shared;

type Fields = HashMap<String, String>;

pub(super) fn router() -> Router<Arc<Org>> {
    Router::new()
        .route("/services/oauth2/authorize", get(authorize::authorize))
        .route("/services/oauth2/token", post(token))
        .route(
            "/services/oauth2/revoke",
            post(revoke_form).get(revoke_query),
        )
        .route(
            "/services/oauth2/userinfo",
            get(identity::userinfo).post(identity::userinfo),
        )
        .route("/id/{org}/{user}", get(identity::identity))
}

/// `{base}/id/{org}/{user}`.
pub(super) fn identity_url(org: &Org, user: &User) -> String {
    format!("{}/id/{}/{}", org.url(), org.profile.org_id, user.id)
}

/// An error of the token endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Denied(&'static str, &'static str);

impl IntoResponse for Denied {
    fn into_response(self) -> Response {
        let body = json!({"error": self.0, "error_description": self.1});
        (StatusCode::BAD_REQUEST, Json(body)).into_response()
    }
}

const fn invalid_grant(description: &'static str) -> Denied {
    Denied("invalid_grant", description)
}

async fn token(
    State(org): Shared,
    headers: HeaderMap,
    form: Result<Form<Fields>, FormRejection>,
) -> Response {
    org.counters.note("POST oauth2/token");
    let Ok(Form(form)) = form else {
        return Denied("unsupported_grant_type", "grant type not supported").into_response();
    };
    match grant(&org, &headers, &form) {
        Ok(answer) => Json(answer).into_response(),
        Err(denied) => denied.into_response(),
    }
}

fn grant(org: &Org, headers: &HeaderMap, form: &Fields) -> Result<Value, Denied> {
    let kind = form.get("grant_type").map(String::as_str);
    match kind {
        Some("client_credentials") => {
            client(org, headers, form, true)?;
            Ok(issue(org, "api").0)
        }
        Some("authorization_code") => code(org, headers, form),
        Some("refresh_token") => refresh(org, headers, form),
        Some("password") if org.sign_in.settings.password.is_some() => password(org, headers, form),
        Some(jwt::GRANT) => {
            jwt::check(org, form)?;
            Ok(issue(org, "api refresh_token").0)
        }
        Some(_) => Err(Denied("unsupported_grant_type", "grant type not supported")),
        None => Err(Denied(
            "invalid_request",
            "missing required parameter: grant_type",
        )),
    }
}

/// The connected app behind a call; its secret may be left out where the app says so.
fn client(
    org: &Org,
    headers: &HeaderMap,
    form: &Fields,
    secret_needed: bool,
) -> Result<(), Denied> {
    let (id, secret) = if headers.contains_key(AUTHORIZATION) {
        let (id, secret) =
            basic(headers).ok_or(Denied("invalid_request", "malformed Authorization header"))?;
        (id, Some(secret))
    } else {
        let field = |name: &str| form.get(name).cloned();
        (
            field("client_id").unwrap_or_default(),
            field("client_secret"),
        )
    };
    if id != org.profile.client_id {
        return Err(Denied("invalid_client_id", "client identifier invalid"));
    }
    match secret {
        None if !secret_needed && org.sign_in.settings.secret_optional => Ok(()),
        Some(secret) if secret == org.profile.client_secret => Ok(()),
        _ => Err(Denied("invalid_client", "invalid client credentials")),
    }
}

/// The web server flow's second step.
fn code(org: &Org, headers: &HeaderMap, form: &Fields) -> Result<Value, Denied> {
    client(org, headers, form, false)?;
    let text = form.get("code").ok_or(Denied(
        "invalid_request",
        "missing required parameter: code",
    ))?;
    let code = org
        .sign_in
        .redeem(text)
        .ok_or(invalid_grant("expired authorization code"))?;
    if form.get("redirect_uri") != Some(&code.redirect_uri) {
        return Err(Denied(
            "redirect_uri_mismatch",
            "redirect_uri must match configuration",
        ));
    }
    match (&code.challenge, form.get("code_verifier")) {
        (Some(_), None) => return Err(invalid_grant("missing code verifier")),
        (Some(challenge), Some(verifier)) if authorize::challenge(verifier) != *challenge => {
            return Err(Denied("invalid_request", "invalid code verifier"));
        }
        _ => {}
    }
    let lasting = code
        .scope
        .split_whitespace()
        .any(|scope| matches!(scope, "refresh_token" | "offline_access"));
    let (mut answer, access) = issue(org, &code.scope);
    if lasting {
        answer["refresh_token"] = json!(org.sign_in.remember(&code.scope, vec![access]));
    }
    Ok(answer)
}

/// Normally the answer has no refresh token; under rotation it has the successor of one that is dead at once.
fn refresh(org: &Org, headers: &HeaderMap, form: &Fields) -> Result<Value, Denied> {
    client(org, headers, form, false)?;
    let token = form.get("refresh_token").ok_or(Denied(
        "invalid_request",
        "missing required parameter: refresh_token",
    ))?;
    let dead = invalid_grant("expired access/refresh token");
    let known = org.sign_in.known(token).ok_or(dead)?;
    let (mut answer, access) = issue(org, &known.scope);
    if let Some(next) = org.sign_in.renew(token, access) {
        answer["refresh_token"] = json!(next);
    }
    Ok(answer)
}

fn password(org: &Org, headers: &HeaderMap, form: &Fields) -> Result<Value, Denied> {
    client(org, headers, form, false)?;
    let user = form.get("username") == Some(&org.profile.run_as.username);
    if !user || form.get("password") != org.sign_in.settings.password.as_ref() {
        return Err(invalid_grant("authentication failure"));
    }
    Ok(issue(org, "api").0)
}

/// A token answer, and its access token.
fn issue(org: &Org, scope: &str) -> (Value, String) {
    let user = &org.profile.run_as;
    let id = identity_url(org, user);
    let issued_at = org.clock.now().timestamp_millis().to_string();
    let key = hmac::Key::new(hmac::HMAC_SHA256, org.profile.client_secret.as_bytes());
    let signature = hmac::sign(&key, format!("{id}{issued_at}").as_bytes());
    let access = org.sessions.issue(user.clone());
    let answer = json!({
        "access_token": access,
        "instance_url": org.url(),
        "id": id,
        "token_type": "Bearer",
        "issued_at": issued_at,
        "signature": STANDARD.encode(signature),
        "scope": scope,
    });
    (answer, access)
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

/// Ends an access token, or a refresh token with all that came of it.
fn revoke(org: &Org, fields: Option<Fields>) -> Response {
    let Some(token) = fields.and_then(|mut fields| fields.remove("token")) else {
        let text = "this token type is not supported";
        return Denied("unsupported_token_type", text).into_response();
    };
    let given = org.sign_in.forget(&token);
    let known = given.is_some() || org.sessions.revoke(&token);
    for access in given.unwrap_or_default() {
        org.sessions.revoke(&access);
    }
    if !known {
        return Denied("invalid_token", "invalid token").into_response();
    }
    org.streaming.wake();
    StatusCode::OK.into_response()
}

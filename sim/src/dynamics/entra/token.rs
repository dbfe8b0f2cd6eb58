//! The token endpoint: three grants.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::super::guid::Guid;
use super::super::odata::percent;
use super::super::org::Org;
use super::grants::{Access, Principal};
use super::refusal::Refusal;
use super::{DISCOVERY, client};
use crate::salesforce::lock::lock;

/// `POST /{tenant}/oauth2/v2.0/token`.
#[allow(clippy::unused_async, reason = "axum's handlers are async")]
pub(super) async fn token(
    State(org): State<Arc<Org>>,
    Path(tenant): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let form = pairs(&String::from_utf8_lossy(&body));
    let grant = form.get("grant_type").map_or("", String::as_str);
    org.counters.count("entra", &format!("POST token {grant}"));
    match granted(&org, &tenant, &headers, &form) {
        Ok(answer) => {
            let no_store = [
                ("cache-control", "no-store, no-cache"),
                ("pragma", "no-cache"),
            ];
            (StatusCode::OK, no_store, Json(answer)).into_response()
        }
        Err(refusal) => refusal.answer(&org),
    }
}

fn granted(
    org: &Org,
    tenant: &str,
    headers: &HeaderMap,
    form: &HashMap<String, String>,
) -> Result<Value, Refusal> {
    let kind = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    if !kind.starts_with("application/x-www-form-urlencoded") {
        return Err(Refusal::new(
            900_144,
            "The request body must contain the following parameter: 'grant_type'.",
        ));
    }
    if !org.entra.is_tenant(tenant) {
        return Err(Refusal::new(
            90002,
            format!(
                "Tenant '{tenant}' not found. Check to make sure you have the correct tenant ID and are signing into the correct cloud."
            ),
        ));
    }
    if let Some(code) = org.faults.sign_in("token") {
        return Err(Refusal::usual(code));
    }
    let need = |name: &str| {
        form.get(name).map(String::as_str).ok_or_else(|| {
            Refusal::new(
                900_144,
                format!("The request body must contain the following parameter: '{name}'."),
            )
        })
    };
    let grant = need("grant_type")?;
    client::check(org, tenant, headers, form, grant == "client_credentials")?;
    match grant {
        "client_credentials" => by_application(org, tenant, need("scope")?),
        "authorization_code" => by_code(org, need("code")?, need("redirect_uri")?, form),
        "refresh_token" => by_refresh(org, need("refresh_token")?, form.get("scope")),
        other => Err(Refusal::new(
            70003,
            format!("The app requested an unsupported grant type '{other}'."),
        )),
    }
}

fn by_application(org: &Org, tenant: &str, scope: &str) -> Result<Value, Refusal> {
    if tenant != org.entra.tenant {
        return Err(Refusal::new(
            50059,
            "No tenant-identifying information found in either the request or implied by any provided credentials.",
        ));
    }
    let mut scopes = scope.split_whitespace();
    let (Some(only), None) = (scopes.next(), scopes.next()) else {
        return Err(Refusal::usual(70011));
    };
    let Some(resource) = only.strip_suffix("/.default") else {
        return Err(Refusal::new(
            1_002_012,
            format!(
                "The provided value for scope {scope} is not valid. Client credential flows must have a scope value with /.default suffixed to the resource identifier (application ID URI)."
            ),
        ));
    };
    let resource = known(org, resource)?;
    let now = org.clock.now();
    let mut grants = lock(&org.entra.grants);
    let lifetime = grants.lifetimes.access;
    let access = Access {
        principal: Principal::Application,
        audience: resource.clone(),
        expires: now + lifetime,
    };
    let token = grants.add_access(access, &claims(org, &resource, None, now));
    Ok(json!({
        "token_type": "Bearer",
        "expires_in": lifetime.num_seconds(),
        "ext_expires_in": lifetime.num_seconds(),
        "access_token": token,
    }))
}

fn by_code(
    org: &Org,
    code: &str,
    redirect: &str,
    form: &HashMap<String, String>,
) -> Result<Value, Refusal> {
    let now = org.clock.now();
    let code = lock(&org.entra.grants).redeem(code, now)?;
    if code.redirect_uri != redirect {
        return Err(Refusal::new(
            500_112,
            format!(
                "The reply address '{redirect}' does not match the reply address '{}' provided when requesting Authorization code.",
                code.redirect_uri
            ),
        ));
    }
    match (&code.challenge, form.get("code_verifier")) {
        (Some((challenge, digest)), Some(verifier)) if proves(challenge, *digest, verifier) => {}
        (None, None) => {}
        _ => return Err(Refusal::usual(501_481)),
    }
    if let Some(scope) = form.get("scope")
        && resource(org, scope)?.0 != code.resource
    {
        return Err(Refusal::usual(70000));
    }
    delegated(org, &code.resource, code.user, &code.scopes, None)
}

fn by_refresh(org: &Org, token: &str, scope: Option<&String>) -> Result<Value, Refusal> {
    let now = org.clock.now();
    let old = lock(&org.entra.grants).refresh(token, now)?;
    // A refresh token is bound to user and client, not to a resource.
    let (resource, scopes) = match scope {
        Some(scope) => resource(org, scope)?,
        None => (old.resource.clone(), vec!["user_impersonation".to_owned()]),
    };
    let mut scopes = scopes;
    scopes.push("offline_access".to_owned());
    delegated(org, &resource, old.user, &scopes, old.ends)
}

fn delegated(
    org: &Org,
    resource: &str,
    user: Guid,
    scopes: &[String],
    ends: Option<DateTime<Utc>>,
) -> Result<Value, Refusal> {
    let now = org.clock.now();
    let mut grants = lock(&org.entra.grants);
    if !grants.consented {
        return Err(Refusal::usual(65001));
    }
    let lifetime = grants.lifetimes.access;
    let access = Access {
        principal: Principal::User(user),
        audience: resource.to_owned(),
        expires: now + lifetime,
    };
    let token = grants.add_access(access, &claims(org, resource, Some(user), now));
    let has = |name: &str| scopes.iter().any(|scope| scope == name);
    let mut answer = json!({
        "token_type": "Bearer",
        "expires_in": lifetime.num_seconds(),
        "ext_expires_in": lifetime.num_seconds(),
        "scope": format!("{resource}/user_impersonation"),
        "access_token": token,
    });
    if has("offline_access") {
        answer["refresh_token"] = grants.add_refresh(None, resource, user, now, ends).into();
    }
    if has("openid") {
        answer["id_token"] = format!(
            "eyJ0eXAiOiJKV1QifQ.{}.",
            claims(org, &org.entra.application.client_id, Some(user), now)
        )
        .into();
    }
    Ok(answer)
}

fn claims(org: &Org, audience: &str, user: Option<Guid>, now: DateTime<Utc>) -> String {
    let claims = json!({
        "aud": audience,
        "iss": format!("{}/{}/v2.0", org.url(), org.entra.tenant),
        "appid": org.entra.application.client_id,
        "tid": org.entra.tenant,
        "oid": user,
        "iat": now.timestamp(),
    });
    URL_SAFE_NO_PAD.encode(claims.to_string())
}

fn proves(challenge: &str, digest: bool, verifier: &str) -> bool {
    if !(43..=128).contains(&verifier.len()) && digest {
        return false;
    }
    if !digest {
        return challenge == verifier;
    }
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, verifier.as_bytes());
    URL_SAFE_NO_PAD.encode(hash) == challenge
}

/// The one resource of a user's scopes, and all scopes by their short names.
pub(super) fn resource(org: &Org, scope: &str) -> Result<(String, Vec<String>), Refusal> {
    let mut found: Option<String> = None;
    let mut scopes = Vec::new();
    for scope in scope.split_whitespace() {
        if matches!(scope, "openid" | "profile" | "email" | "offline_access") {
            scopes.push(scope.to_owned());
            continue;
        }
        let (resource, name) = scope
            .rsplit_once('/')
            .ok_or_else(|| Refusal::usual(70011))?;
        if !matches!(name, "user_impersonation" | ".default") {
            return Err(Refusal::usual(70011));
        }
        let resource = known(org, resource)?;
        if found.as_ref().is_some_and(|other| *other != resource) {
            return Err(Refusal::usual(28002));
        }
        scopes.push(name.to_owned());
        found = Some(resource);
    }
    found
        .map(|resource| (resource, scopes))
        .ok_or_else(|| Refusal::usual(70011))
}

/// A resource that the tenant has: the organization, or the discovery service.
fn known(org: &Org, resource: &str) -> Result<String, Refusal> {
    if resource == org.url() || resource == DISCOVERY {
        return Ok(resource.to_owned());
    }
    Err(Refusal::new(
        500_011,
        format!(
            "The resource principal named {resource} was not found in the tenant named {}.",
            org.entra.tenant
        ),
    ))
}

/// The pairs of a form or a query.
pub(super) fn pairs(text: &str) -> HashMap<String, String> {
    let parts = text.split('&').filter(|part| !part.is_empty());
    parts
        .map(|part| {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            (percent::decode(key), percent::decode(value))
        })
        .collect()
}

//! The authorize and admin-consent pages: they approve at once.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse, Response};

use super::super::odata::percent;
use super::super::org::Org;
use super::grants::Code;
use super::refusal::Refusal;
use super::token::{pairs, resource};
use crate::salesforce::lock::lock;

/// `GET /{tenant}/oauth2/v2.0/authorize`.
#[allow(clippy::unused_async, reason = "axum's handlers are async")]
pub(super) async fn authorize(
    State(org): State<Arc<Org>>,
    Path(tenant): Path<String>,
    RawQuery(query): RawQuery,
) -> Response {
    org.counters.count("entra", "GET authorize");
    let query = pairs(query.as_deref().unwrap_or_default());
    let redirect = match client(&org, &tenant, &query) {
        Ok(redirect) => redirect,
        Err(refusal) => return refusal.page(),
    };
    let mut answer = match approve(&org, &query, &redirect) {
        Ok(code) => vec![("code", code)],
        Err(refusal) => {
            let (error, description) = refusal.redirect();
            vec![
                ("error", error.to_owned()),
                ("error_description", description),
            ]
        }
    };
    if let Some(state) = query.get("state") {
        answer.push(("state", state.clone()));
    }
    send(&query, &redirect, &answer)
}

/// Tenant, application and redirect URI: errors in these are shown, never sent on.
fn client(org: &Org, tenant: &str, query: &HashMap<String, String>) -> Result<String, Refusal> {
    if !org.entra.is_tenant(tenant) {
        return Err(Refusal::usual(90002));
    }
    let known = &org.entra.application;
    if query.get("client_id") != Some(&known.client_id) {
        return Err(Refusal::usual(700_016));
    }
    let missing = || {
        Refusal::new(
            900_144,
            "The request must contain the parameter 'redirect_uri'.",
        )
    };
    let redirect = query.get("redirect_uri").ok_or_else(missing)?;
    if !known.redirect_uris.is_empty() && !known.redirect_uris.contains(redirect) {
        return Err(Refusal::new(
            50011,
            format!(
                "The redirect URI '{redirect}' specified in the request does not match the redirect URIs configured for the application '{}'.",
                known.client_id
            ),
        ));
    }
    Ok(redirect.clone())
}

fn approve(org: &Org, query: &HashMap<String, String>, redirect: &str) -> Result<String, Refusal> {
    if let Some(code) = org.faults.sign_in("authorize") {
        return Err(Refusal::usual(code));
    }
    if query.get("response_type").map(String::as_str) != Some("code") {
        return Err(Refusal::new(
            900_144,
            "The request must contain the parameter 'response_type', which is 'code'.",
        ));
    }
    let (resource, scopes) = resource(org, query.get("scope").map_or("", String::as_str))?;
    let challenge = match (
        query.get("code_challenge"),
        query.get("code_challenge_method").map(String::as_str),
    ) {
        (None, _) => None,
        (Some(challenge), Some("S256")) => Some((challenge.clone(), true)),
        (Some(challenge), None | Some("plain")) => Some((challenge.clone(), false)),
        (Some(_), Some(_)) => {
            return Err(Refusal::new(
                501_491,
                "Invalid size or method of Code_Challenge parameter.",
            ));
        }
    };
    if challenge.is_none() && org.entra.application.public {
        return Err(Refusal::new(
            9_002_325,
            "Proof Key for Code Exchange is required for cross-origin authorization code redemption.",
        ));
    }
    let user = org.profile.user;
    let mut grants = lock(&org.entra.grants);
    grants.consented = true;
    let now = org.clock.now();
    let expires = now + grants.lifetimes.code;
    Ok(grants.add_code(Code {
        redirect_uri: redirect.to_owned(),
        challenge,
        resource,
        scopes,
        user,
        expires,
        redeemed: false,
    }))
}

/// By the response mode: in the query, behind the hash, or as a form that posts itself.
fn send(query: &HashMap<String, String>, redirect: &str, answer: &[(&str, String)]) -> Response {
    let encoded: Vec<_> = answer
        .iter()
        .map(|(key, value)| format!("{key}={}", percent::encode(value)))
        .collect();
    let encoded = encoded.join("&");
    let target = match query.get("response_mode").map(String::as_str) {
        Some("fragment") => format!("{redirect}#{encoded}"),
        Some("form_post") => return form(redirect, answer),
        _ if redirect.contains('?') => format!("{redirect}&{encoded}"),
        _ => format!("{redirect}?{encoded}"),
    };
    (StatusCode::FOUND, [(LOCATION, target)]).into_response()
}

fn form(redirect: &str, answer: &[(&str, String)]) -> Response {
    let escape = |text: &str| {
        text.replace('&', "&amp;")
            .replace('"', "&quot;")
            .replace('<', "&lt;")
    };
    let inputs: String = answer
        .iter()
        .map(|(key, value)| {
            format!(
                "<input type=\"hidden\" name=\"{key}\" value=\"{}\" />",
                escape(value)
            )
        })
        .collect();
    let page = format!(
        "<html><head><title>Working...</title></head><body><form method=\"POST\" name=\"hiddenform\" action=\"{}\">{inputs}\
         <noscript><input type=\"submit\" value=\"Submit\" /></noscript></form>\
         <script>window.setTimeout('document.forms[0].submit()', 0);</script></body></html>",
        escape(redirect)
    );
    (
        StatusCode::OK,
        [("content-type", "text/html; charset=utf-8")],
        page,
    )
        .into_response()
}

/// `GET /{tenant}/adminconsent`.
#[allow(clippy::unused_async, reason = "axum's handlers are async")]
pub(super) async fn admin_consent(
    State(org): State<Arc<Org>>,
    Path(tenant): Path<String>,
    RawQuery(query): RawQuery,
) -> Response {
    org.counters.count("entra", "GET adminconsent");
    let query = pairs(query.as_deref().unwrap_or_default());
    let redirect = match client(&org, &tenant, &query) {
        Ok(redirect) => redirect,
        Err(refusal) => return refusal.page(),
    };
    let mut answer = if org.faults.sign_in("adminconsent").is_some() {
        vec![
            ("error", "permission_denied".to_owned()),
            (
                "error_description",
                "The admin canceled the request".to_owned(),
            ),
        ]
    } else {
        lock(&org.entra.grants).consented = true;
        vec![
            ("tenant", org.entra.tenant.clone()),
            ("admin_consent", "True".to_owned()),
        ]
    };
    if let Some(state) = query.get("state") {
        answer.push(("state", state.clone()));
    }
    send(&HashMap::new(), &redirect, &answer)
}

//! Who a token speaks for: user info and the identity URL.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::super::super::org::Org;
use super::super::super::sessions::User;
use super::super::{Shared, bearer};
use super::identity_url;

/// The identity services answer with a short text, not JSON.
fn spoken_for(org: &Org, headers: &HeaderMap) -> Result<User, &'static str> {
    let token = bearer(headers).ok_or("Missing_OAuth_Token")?;
    org.sessions.check(token).ok_or("Bad_OAuth_Token")
}

pub(super) async fn userinfo(State(org): Shared, headers: HeaderMap) -> Response {
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

pub(super) async fn identity(
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

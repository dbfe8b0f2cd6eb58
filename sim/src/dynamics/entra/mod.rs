//! The sign-in service (Microsoft identity platform, OAuth 2.0 of version 2) and the global discovery of organizations.

mod authorize;
pub(crate) mod client;
pub(crate) mod grants;
pub(crate) mod refusal;
mod token;

use std::sync::{Arc, Mutex};

use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::json;

use self::client::Registration;
use self::grants::{Access, Grants};
use super::guid::Guid;
use super::org::Org;
use crate::salesforce::lock::lock;

/// The resource of the global discovery service.
pub(crate) const DISCOVERY: &str = "https://globaldisco.crm.dynamics.com";

/// The directory: one tenant with one application.
#[derive(Debug)]
pub struct Entra {
    pub tenant: String,
    pub(crate) application: Registration,
    pub(crate) grants: Mutex<Grants>,
}

impl Entra {
    /// The content of an access token that is alive.
    pub(crate) fn access(&self, token: &str, org: &Org) -> Option<Access> {
        lock(&self.grants).access(token, org.clock.now())
    }

    /// Whether a path segment names this tenant, or every tenant.
    fn is_tenant(&self, segment: &str) -> bool {
        segment.eq_ignore_ascii_case(&self.tenant) || matches!(segment, "common" | "organizations")
    }

    /// Adds a refresh token given from outside.
    pub(crate) fn adopt(&self, token: String, resource: &str, user: Guid, org: &Org) {
        lock(&self.grants).add_refresh(Some(token), resource, user, org.clock.now(), None);
    }
}

/// The calls of this module.
pub(super) fn router(org: &Arc<Org>) -> Router {
    Router::new()
        .route(
            "/{tenant}/v2.0/.well-known/openid-configuration",
            get(configuration),
        )
        .route("/{tenant}/discovery/v2.0/keys", get(keys))
        .route("/{tenant}/oauth2/v2.0/authorize", get(authorize::authorize))
        .route("/{tenant}/oauth2/v2.0/token", post(token::token))
        .route("/{tenant}/adminconsent", get(authorize::admin_consent))
        .route("/api/discovery/v2.0/Instances", get(instances))
        .with_state(Arc::clone(org))
}

#[allow(clippy::unused_async, reason = "axum's handlers are async")]
async fn configuration(State(org): State<Arc<Org>>, Path(tenant): Path<String>) -> Response {
    if !org.entra.is_tenant(&tenant) {
        return refusal::Refusal::usual(90002).answer(&org);
    }
    let base = org.url();
    Json(json!({
        "issuer": format!("{base}/{}/v2.0", org.entra.tenant),
        "authorization_endpoint": format!("{base}/{tenant}/oauth2/v2.0/authorize"),
        "token_endpoint": format!("{base}/{tenant}/oauth2/v2.0/token"),
        "jwks_uri": format!("{base}/{tenant}/discovery/v2.0/keys"),
        "response_types_supported": ["code"],
        "response_modes_supported": ["query", "fragment", "form_post"],
        "scopes_supported": ["openid", "profile", "email", "offline_access"],
        "subject_types_supported": ["pairwise"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "token_endpoint_auth_methods_supported": ["client_secret_post", "private_key_jwt", "client_secret_basic"],
    }))
    .into_response()
}

/// Tokens are opaque to clients: there is no key to check them by.
#[allow(clippy::unused_async, reason = "axum's handlers are async")]
async fn keys() -> Response {
    Json(json!({"keys": []})).into_response()
}

#[allow(clippy::unused_async, reason = "axum's handlers are async")]
async fn instances(State(org): State<Arc<Org>>, headers: HeaderMap) -> Response {
    org.counters.count("discovery", "GET Instances");
    let access = super::web::bearer(&headers).and_then(|token| org.entra.access(token, &org));
    if access.is_none_or(|access| access.audience != DISCOVERY) {
        return super::web::challenge(&org, DISCOVERY);
    }
    let profile = &org.profile;
    Json(json!({
        "@odata.context": format!("{}/api/discovery/v2.0/$metadata#Instances", org.url()),
        "value": [{
            "Id": profile.organization,
            "UniqueName": profile.name,
            "UrlName": profile.name,
            "FriendlyName": profile.name,
            "ApiUrl": org.url(),
            "Url": org.url(),
            "TenantId": org.entra.tenant,
            "EnvironmentId": profile.organization,
            "State": 0,
            "StatusMessage": 0,
            "Version": "9.2.25061.00000",
            "Region": "NA",
        }],
    }))
    .into_response()
}

//! The JWT bearer flow: a signed assertion in the place of a user.

use chrono::TimeDelta;
use jsonwebtoken::{Algorithm, Validation, decode};
use serde::Deserialize;

use super::super::super::org::Org;
use super::{Denied, Fields, invalid_grant};

/// The flow's grant type.
pub(super) const GRANT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const LOGIN_HOSTS: [&str; 2] = [
    "https://login.salesforce.com",
    "https://test.salesforce.com",
];
/// An assertion ends within so long.
const FARTHEST: TimeDelta = TimeDelta::minutes(5);

#[derive(Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: Audience,
    exp: i64,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

/// Whether the assertion is signed by the app's key, for its user, for this org, and not over.
pub(super) fn check(org: &Org, form: &Fields) -> Result<(), Denied> {
    let assertion = form.get("assertion").ok_or(Denied(
        "invalid_request",
        "missing required parameter: assertion",
    ))?;
    let unapproved = invalid_grant("user hasn't approved this consumer");
    let key = org.sign_in.settings.jwt_key.as_ref().ok_or(unapproved)?;
    let mut rules = Validation::new(Algorithm::RS256);
    // The org's clock decides, and each claim has an error of its own.
    rules.validate_exp = false;
    rules.validate_aud = false;
    rules.required_spec_claims.clear();
    let claims = decode::<Claims>(assertion, key, &rules)
        .map_err(|_| invalid_grant("invalid assertion"))?
        .claims;
    if claims.iss != org.profile.client_id {
        return Err(Denied("invalid_client_id", "client identifier invalid"));
    }
    let own = |audience: &String| {
        let audience = audience.trim_end_matches('/');
        LOGIN_HOSTS.contains(&audience) || audience == org.url()
    };
    let meant = match &claims.aud {
        Audience::One(audience) => own(audience),
        Audience::Many(audiences) => audiences.iter().any(own),
    };
    if !meant {
        return Err(invalid_grant("audience is invalid"));
    }
    let now = org.clock.now();
    if claims.exp <= now.timestamp() {
        return Err(invalid_grant("expired authorization code"));
    }
    if claims.exp > (now + FARTHEST).timestamp() {
        return Err(invalid_grant("invalid assertion"));
    }
    if claims.sub != org.profile.run_as.username {
        return Err(unapproved);
    }
    Ok(())
}

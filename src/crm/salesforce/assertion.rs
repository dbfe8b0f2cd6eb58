//! The assertion of the JWT bearer flow: names the user, signed with the app's private key.

use std::time::Duration;

use chrono::{DateTime, Utc};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde::Serialize;

use crate::fault::{Fault, FaultKind};
use crate::secret::Secret;

/// How long an assertion may be used: the CRM refuses one that ends in more than three minutes.
const LIFE: Duration = Duration::from_mins(2);

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a str,
    exp: i64,
}

/// An assertion for `user` at the login host `audience` (Salesforce Help, "OAuth 2.0 JWT Bearer Flow for
/// Server-to-Server Integration").
///
/// # Errors
/// `Credentials` if `key` is no RSA key in PEM; what it holds is not shown.
pub fn assertion(
    key: &Secret,
    client_id: &str,
    user: &str,
    audience: &str,
    now: DateTime<Utc>,
) -> Result<Secret, Fault> {
    // Errors of the key are not kept: they may quote it.
    let refused = || {
        Fault::new(FaultKind::Credentials, "the private key can't sign").remedy(
            "`private_key` names a PEM file with the PRIVATE KEY block of the app's RSA key",
        )
    };
    let claims = Claims {
        iss: client_id,
        sub: user,
        aud: audience,
        exp: now.timestamp() + i64::try_from(LIFE.as_secs()).unwrap_or(120),
    };
    let key = EncodingKey::from_rsa_pem(key.expose().as_bytes()).map_err(|_| refused())?;
    let signed = encode(&Header::new(Algorithm::RS256), &claims, &key).map_err(|_| refused())?;
    Ok(Secret::new(signed))
}

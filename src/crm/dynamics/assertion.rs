//! A client assertion: proves possession of a certificate's private key in place of a secret.

use std::time::Duration;

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde::Serialize;

use crate::fault::{Fault, FaultKind};
use crate::secret::Secret;

/// How long an assertion may be used.
const LIFE: Duration = Duration::from_mins(5);

#[derive(Serialize)]
struct Claims<'a> {
    aud: &'a str,
    iss: &'a str,
    sub: &'a str,
    jti: String,
    nbf: i64,
    iat: i64,
    exp: i64,
}

/// A JWT for the token endpoint `audience`, signed with the private key that lies beside its certificate in `pem`
/// (Microsoft identity platform, "Application authentication certificate credentials").
///
/// # Errors
/// `Credentials` if `pem` does not hold a certificate and its RSA key; what it holds is not shown.
pub fn assertion(
    pem: &Secret,
    client_id: &str,
    audience: &str,
    now: DateTime<Utc>,
) -> Result<Secret, Fault> {
    let refused = |what: &str| {
        Fault::new(FaultKind::Credentials, format!("the certificate {what}")).remedy(
            "`certificate` names a PEM file with a CERTIFICATE block and the PRIVATE KEY block of its RSA key",
        )
    };
    let text = pem.expose();
    let certificate = block(text, |label| label == "CERTIFICATE")
        .and_then(body)
        .ok_or_else(|| refused("file has no certificate"))?;
    let key = block(text, |label| label.ends_with("PRIVATE KEY"))
        .ok_or_else(|| refused("file has no private key"))?;
    let mut header = Header::new(Algorithm::RS256);
    let thumbprint = digest::digest(&digest::SHA256, &certificate);
    header.x5t_s256 = Some(URL_SAFE_NO_PAD.encode(thumbprint));
    let from = now.timestamp();
    let claims = Claims {
        aud: audience,
        iss: client_id,
        sub: client_id,
        jti: uuid::Uuid::now_v7().to_string(),
        // Clocks differ.
        nbf: from - 60,
        iat: from,
        exp: from + i64::try_from(LIFE.as_secs()).unwrap_or(300),
    };
    // Errors of the key are not kept: they may quote it.
    let key = EncodingKey::from_rsa_pem(key.as_bytes())
        .map_err(|_| refused("file's private key is no RSA key in PEM"))?;
    let signed =
        encode(&header, &claims, &key).map_err(|_| refused("file's private key signs nothing"))?;
    Ok(Secret::new(signed))
}

/// The first PEM block whose label is wanted, its lines of BEGIN and END included.
fn block(text: &str, wanted: impl Fn(&str) -> bool) -> Option<&str> {
    let mut at = 0;
    while let Some(begin) = text.get(at..)?.find("-----BEGIN ") {
        let begin = at + begin;
        let label_at = begin + "-----BEGIN ".len();
        let label = text.get(label_at..)?.split("-----").next()?;
        let end_line = format!("-----END {label}-----");
        let end = begin + text.get(begin..)?.find(&end_line)? + end_line.len();
        if wanted(label) {
            return text.get(begin..end);
        }
        at = end;
    }
    None
}

/// What a PEM block encodes.
fn body(block: &str) -> Option<Vec<u8>> {
    let inner: String = block
        .lines()
        .filter(|line| !line.starts_with("-----"))
        .collect();
    let inner: String = inner.split_whitespace().collect();
    STANDARD
        .decode(inner)
        .ok()
        .filter(|bytes| !bytes.is_empty())
}

//! How the application proves itself: by secret, in the body or by Basic, or by a signed assertion.

use std::collections::HashMap;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;

use super::super::odata::percent;
use super::super::org::Org;
use super::refusal::Refusal;

const BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// The application as the directory knows it.
pub(crate) struct Registration {
    pub client_id: String,
    pub secret: String,
    pub public: bool,
    pub redirect_uris: Vec<String>,
    pub certificate: Option<Certificate>,
}

impl std::fmt::Debug for Registration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registration")
            .field("client_id", &self.client_id)
            .finish_non_exhaustive()
    }
}

/// A registered key; a certificate has thumbprints, a bare key has none.
pub(crate) struct Certificate {
    key: DecodingKey,
    thumbprints: Vec<String>,
}

impl Certificate {
    /// Reads a PEM certificate or RSA public key.
    pub fn read(pem: &[u8]) -> Result<Self, jsonwebtoken::errors::Error> {
        use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
        let key = DecodingKey::from_rsa_pem(pem)?;
        let text = String::from_utf8_lossy(pem);
        let mut thumbprints = Vec::new();
        if text.contains("BEGIN CERTIFICATE") {
            let body: String = text
                .lines()
                .filter(|line| !line.starts_with("-----"))
                .collect();
            if let Ok(der) = STANDARD.decode(body.trim()) {
                for algorithm in [&SHA1_FOR_LEGACY_USE_ONLY, &SHA256] {
                    thumbprints.push(URL_SAFE_NO_PAD.encode(digest(algorithm, &der)));
                }
            }
        }
        Ok(Self { key, thumbprints })
    }
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    exp: i64,
    nbf: Option<i64>,
    jti: Option<String>,
}

/// Checks who asks; `confidential` grants need a proof.
pub(crate) fn check(
    org: &Org,
    tenant: &str,
    headers: &HeaderMap,
    form: &HashMap<String, String>,
    confidential: bool,
) -> Result<(), Refusal> {
    let known = &org.entra.application;
    let basic = basic(headers);
    let id = basic
        .as_ref()
        .map(|(id, _)| id.as_str())
        .or(form.get("client_id").map(String::as_str));
    let id = id.ok_or_else(|| {
        Refusal::new(
            900_144,
            "The request body must contain the following parameter: 'client_id'.",
        )
    })?;
    if id != known.client_id {
        return Err(Refusal::new(
            700_016,
            format!(
                "Application with identifier '{id}' was not found in the directory '{tenant}'."
            ),
        ));
    }
    let secret = basic
        .as_ref()
        .map(|(_, secret)| secret.as_str())
        .or(form.get("client_secret").map(String::as_str));
    let assertion = form.get("client_assertion");
    if known.public {
        let proof = secret.is_some() || assertion.is_some() || confidential;
        return if proof {
            Err(Refusal::usual(700_025))
        } else {
            Ok(())
        };
    }
    match (secret, assertion) {
        (Some(secret), None) if secret == known.secret => Ok(()),
        (Some(_), None) => Err(Refusal::new(
            7_000_215,
            format!(
                "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not the client secret ID, for a secret added to app '{id}'."
            ),
        )),
        (None, Some(assertion)) => {
            if form.get("client_assertion_type").map(String::as_str) != Some(BEARER) {
                return Err(Refusal::new(
                    900_144,
                    "The request body must contain the following parameter: 'client_assertion_type'.",
                ));
            }
            asserted(org, tenant, assertion)
        }
        (Some(_), Some(_)) => Err(Refusal::new(
            700_027,
            "A secret and an assertion were sent; one is enough.",
        )),
        (None, None) => Err(Refusal::new(
            7_000_218,
            "The request body must contain the following parameter: 'client_assertion' or 'client_secret'.",
        )),
    }
}

fn asserted(org: &Org, tenant: &str, assertion: &str) -> Result<(), Refusal> {
    let bad = |problem: &str| {
        Refusal::new(
            700_027,
            format!("Client assertion failed validation: {problem}."),
        )
    };
    let known = &org.entra.application;
    let certificate = known
        .certificate
        .as_ref()
        .ok_or_else(|| bad("no certificate is registered"))?;
    let header = jsonwebtoken::decode_header(assertion).map_err(|_| bad("it is no JWT"))?;
    if !matches!(header.alg, Algorithm::RS256 | Algorithm::PS256) {
        return Err(bad("it is not signed by RS256 or PS256"));
    }
    let thumbprint = header.x5t_s256.or(header.x5t).or(header.kid);
    let listed = |print: &String| {
        certificate.thumbprints.is_empty() || certificate.thumbprints.contains(print)
    };
    if !certificate.thumbprints.is_empty() && !thumbprint.as_ref().is_some_and(listed) {
        return Err(bad("its key's thumbprint (x5t) is not registered"));
    }
    let mut validation = Validation::new(header.alg);
    // The organization's clock decides, not the machine's.
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.set_required_spec_claims(&["exp", "aud", "iss", "sub"]);
    validation.set_audience(&[
        format!("{}/{tenant}/oauth2/v2.0/token", org.url()),
        format!("{}/{tenant}/v2.0", org.url()),
    ]);
    let claims = jsonwebtoken::decode::<Claims>(assertion, &certificate.key, &validation)
        .map_err(|error| bad(&error.to_string()))?
        .claims;
    if claims.iss != known.client_id || claims.sub != known.client_id {
        return Err(bad("iss and sub are not the application's id"));
    }
    let now = org.clock.now().timestamp();
    // Five minutes of skew are forgiven.
    if claims.exp + 300 <= now || claims.nbf.is_some_and(|nbf| nbf - 300 > now) {
        return Err(bad("it is not within its valid time range"));
    }
    if claims.jti.is_none_or(|jti| jti.is_empty()) {
        return Err(bad("it has no jti"));
    }
    Ok(())
}

fn basic(headers: &HeaderMap) -> Option<(String, String)> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let encoded = value.strip_prefix("Basic ")?;
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (id, secret) = decoded.split_once(':')?;
    Some((percent::decode(id), percent::decode(secret)))
}

//! Shared access signatures: who may do what, until when.
//!
//! Source: <https://learn.microsoft.com/azure/service-bus-messaging/service-bus-sas>

use std::collections::BTreeMap;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::super::odata::percent;

/// What a policy allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Right {
    Send,
    Listen,
    Manage,
}

/// A policy of the namespace: a key and what it allows.
#[derive(Debug, Clone)]
pub(super) struct Policy {
    pub key: String,
    pub rights: Vec<Right>,
}

/// What a token or a key allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Grant {
    /// The path it holds for, in lower case; empty for the whole namespace.
    pub path: String,
    pub rights: Vec<Right>,
    /// None for a key itself.
    pub expires: Option<DateTime<Utc>>,
}

impl Grant {
    /// Whether it allows something on an entity.
    pub fn allows(&self, right: Right, entity: &str, now: DateTime<Utc>) -> bool {
        let entity = entity.to_ascii_lowercase();
        let rest = entity.strip_prefix(&self.path);
        let covers = self.path.is_empty()
            || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        // Who manages may send and listen.
        let may = self.rights.contains(&right) || self.rights.contains(&Right::Manage);
        covers && may && self.expires.is_none_or(|end| now < end)
    }
}

/// Why a token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error("MalformedToken: The SharedAccessSignature is not in the expected form.")]
    Form,
    #[error("InvalidSignature: The token has an invalid signature.")]
    Signature,
    #[error("ExpiredToken: The token is expired.")]
    Expired,
    #[error(
        "InvalidAudience: The authorization header contains a token that is not for this audience."
    )]
    Audience,
}

/// The token's grant, if it is signed by a policy's key and meant for `audience`.
pub(super) fn verify(
    token: &str,
    audience: &str,
    policies: &BTreeMap<String, Policy>,
    now: DateTime<Utc>,
) -> Result<Grant, Refused> {
    let fields = token
        .strip_prefix("SharedAccessSignature ")
        .ok_or(Refused::Form)?;
    let fields: BTreeMap<&str, &str> = fields
        .split('&')
        .map(|pair| pair.split_once('=').ok_or(Refused::Form))
        .collect::<Result<_, _>>()?;
    let of = |name: &str| fields.get(name).copied().ok_or(Refused::Form);
    let (resource, signature, expiry, name) = (of("sr")?, of("sig")?, of("se")?, of("skn")?);
    if fields.len() != 4 {
        return Err(Refused::Form);
    }
    let name = percent::decode(name);
    let policy = policies.get(&name).ok_or(Refused::Signature)?;
    let signature = percent::decode(signature);
    let signature = STANDARD.decode(signature).map_err(|_| Refused::Form)?;
    let key = hmac::Key::new(hmac::HMAC_SHA256, policy.key.as_bytes());
    let signed = format!("{resource}\n{expiry}");
    hmac::verify(&key, signed.as_bytes(), &signature).map_err(|_| Refused::Signature)?;
    let seconds = expiry.parse::<i64>().map_err(|_| Refused::Form)?;
    let expires = DateTime::from_timestamp(seconds, 0).ok_or(Refused::Form)?;
    if expires <= now {
        return Err(Refused::Expired);
    }
    let resource = percent::decode(resource);
    let path = path(&resource).ok_or(Refused::Audience)?;
    let wanted = self::path(audience).ok_or(Refused::Audience)?;
    let rest = wanted.strip_prefix(&path);
    let covers =
        path.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if !covers {
        return Err(Refused::Audience);
    }
    Ok(Grant {
        path: wanted,
        rights: policy.rights.clone(),
        expires: Some(expires),
    })
}

/// The path of a resource, in lower case and without slashes around it: `sb://host/queue` and kin.
fn path(resource: &str) -> Option<String> {
    let (scheme, rest) = resource.split_once("://")?;
    if !matches!(
        scheme,
        "sb" | "amqp" | "amqps" | "http" | "https" | "wss" | "ws"
    ) {
        return None;
    }
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    if host.is_empty() {
        return None;
    }
    Some(path.trim_matches('/').to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "c2ltdWxhdGVk";

    fn token(resource: &str, key: &str, expiry: i64, name: &str) -> String {
        let resource = percent::encode(resource);
        let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes());
        let signature = hmac::sign(&key, format!("{resource}\n{expiry}").as_bytes());
        let signature = percent::encode(&STANDARD.encode(signature));
        format!("SharedAccessSignature sr={resource}&sig={signature}&se={expiry}&skn={name}")
    }

    fn policies() -> BTreeMap<String, Policy> {
        let policy = Policy {
            key: KEY.to_owned(),
            rights: vec![Right::Listen],
        };
        BTreeMap::from([("listen".to_owned(), policy)])
    }

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).unwrap()
    }

    #[test]
    fn a_token_holds_for_its_resource_until_it_expires() {
        let token = token("sb://bus.example/Changes", KEY, 1000, "listen");
        let grant = verify(&token, "amqps://bus.example/changes", &policies(), at(1)).unwrap();
        assert!(grant.allows(Right::Listen, "Changes", at(999)));
        assert!(grant.allows(Right::Listen, "changes/$management", at(999)));
        assert!(!grant.allows(Right::Listen, "changes", at(1000)));
        assert!(!grant.allows(Right::Listen, "changes2", at(1)));
        assert!(!grant.allows(Right::Send, "changes", at(1)));
    }

    #[test]
    fn what_is_not_signed_for_it_is_refused() {
        let good = token("sb://bus.example/changes", KEY, 1000, "listen");
        let refused = |token: &str, audience: &str, now| {
            verify(token, audience, &policies(), at(now)).unwrap_err()
        };
        assert_eq!(
            refused(&good, "sb://bus.example/changes", 1000),
            Refused::Expired
        );
        assert_eq!(
            refused(&good, "sb://bus.example/other", 1),
            Refused::Audience
        );
        assert_eq!(refused(&good, "changes", 1), Refused::Audience);
        assert_eq!(
            refused(&good.replace("se=1000", "se=2000"), "sb://b/changes", 1),
            Refused::Signature
        );
        assert_eq!(
            refused(&good.replace("listen", "other"), "sb://b/changes", 1),
            Refused::Signature
        );
        let other = token("sb://bus.example/changes", "b3RoZXI=", 1000, "listen");
        assert_eq!(refused(&other, "sb://b/changes", 1), Refused::Signature);
        assert_eq!(refused("Bearer x", "sb://b/changes", 1), Refused::Form);
    }
}

//! Shared access signatures: what proves that we hold a policy's key.
//!
//! Source: <https://learn.microsoft.com/azure/service-bus-messaging/service-bus-sas>

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, TimeDelta, Utc};

use crate::http::encode::percent;
use crate::secret::Secret;

/// A token for `audience` until `expires`. The key is taken as the text that it is, never decoded.
pub(super) fn token(
    audience: &str,
    key_name: &str,
    key: &Secret,
    expires: DateTime<Utc>,
) -> Secret {
    // As the vendor's own clients write it.
    let resource = percent(audience).replace(':', "%3A");
    // Whole seconds, and never fewer than was asked for.
    let expiry = (expires + TimeDelta::milliseconds(999)).timestamp();
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.expose().as_bytes());
    let signature = hmac::sign(&key, format!("{resource}\n{expiry}").as_bytes());
    let signature = percent(&STANDARD.encode(signature));
    let name = percent(key_name);
    Secret::new(format!(
        "SharedAccessSignature sr={resource}&sig={signature}&se={expiry}&skn={name}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The signature was made with another implementation of HMAC-SHA256.
    #[test]
    fn a_token_is_signed_over_its_encoded_resource_and_expiry() {
        let expires = DateTime::from_timestamp(1_767_607_872, 0).unwrap();
        let key = Secret::new("c2VjcmV0LWtleQ==");
        let token = token(
            "sb://contoso.servicebus.windows.net/changes",
            "listen",
            &key,
            expires,
        );
        let expected = "SharedAccessSignature sr=sb%3A%2F%2Fcontoso.servicebus.windows.net%2Fchanges\
             &sig=DA0W8Z0AvxnzxusBQyvYYjWOGlxTFooRP6v3HfC94wA%3D&se=1767607872&skn=listen";
        assert_eq!(token.expose(), expected);
        assert!(!format!("{token:?}").contains("Shared"));
    }
}

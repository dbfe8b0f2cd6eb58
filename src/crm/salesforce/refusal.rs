//! What the token host's refusals mean: who has to act, or that it passes.

use serde::Deserialize;

use crate::crm::port::vault::Refusal;
use crate::fault::{Fault, FaultKind};
use crate::http::answer::{Answer, status_kind};

use super::settings::MY_DOMAIN;

#[derive(Deserialize, Default)]
struct Said {
    #[serde(default)]
    error: String,
    #[serde(default)]
    error_description: String,
}

/// What a refused token call means (Salesforce Help, "OAuth 2.0 Error Codes").
pub(super) fn refusal(answer: &Answer) -> Refusal {
    let passing = matches!(
        status_kind(answer.status()),
        FaultKind::Unavailable | FaultKind::Throttled
    );
    let said = serde_json::from_slice::<Said>(answer.body()).ok();
    let Some(said) = said.filter(|said| !said.error.is_empty() && !passing) else {
        let fault = answer.fault();
        if passing || matches!(fault.kind(), FaultKind::Config) {
            return Refusal::passing(fault);
        }
        // No answer of a token host: a page of a gateway, or a wrong host.
        return Refusal::passing(fault.remedy(format!("check `login_url`: {MY_DOMAIN}")));
    };
    let text = format!("{} ({})", said.error, said.error_description);
    let (kind, remedy) = meaning(&said.error, &said.error_description);
    let fault = Fault::new(kind, text);
    let fault = match remedy {
        Some(remedy) => fault.remedy(remedy),
        None => fault,
    };
    Refusal {
        is_final: is_final(&said.error, &said.error_description),
        fault: match answer.retry_after() {
            Some(wait) => fault.retry_after(wait),
            None => fault,
        },
    }
}

/// A refresh token that expired, was rotated away, or was revoked with the user's consent or password.
fn is_final(error: &str, description: &str) -> bool {
    let description = description.to_ascii_lowercase();
    error == "invalid_grant"
        && ["expired access/refresh token", "hasn't approved"]
            .iter()
            .any(|words| description.contains(words))
}

fn meaning(error: &str, description: &str) -> (FaultKind, Option<&'static str>) {
    let says = |words: &str| description.to_ascii_lowercase().contains(words);
    let wrong_secret = "a new app or a new secret takes minutes to work: wait ten minutes before you doubt it; \
         then compare `client_id` and `client_secret` with the app's consumer key and secret";
    let (kind, remedy) = match error {
        "invalid_client" | "invalid_client_id" => (FaultKind::Credentials, wrong_secret),
        "invalid_grant" if says("request not supported on this domain") => {
            (FaultKind::Config, MY_DOMAIN)
        }
        "invalid_grant" if says("expired access/refresh token") => (
            FaultKind::Credentials,
            "the consent was revoked, or the token expired, was rotated away, or ended with the user's password: \
             authorise again with `tributary auth CONNECTION`",
        ),
        "invalid_grant" if says("expired authorization code") => (
            FaultKind::Credentials,
            "the code or the assertion is over: ask for a new link, and check this machine's clock",
        ),
        "invalid_grant" if says("audience is invalid") => (
            FaultKind::Config,
            "set `audience` to https://login.salesforce.com, or to https://test.salesforce.com for a sandbox",
        ),
        "invalid_grant" if says("invalid assertion") => (
            FaultKind::Credentials,
            "upload the certificate of `private_key` to the app, and check this machine's clock",
        ),
        "redirect_uri_mismatch" => (
            FaultKind::Config,
            "add the callback URL that `tributary auth` prints to the app's callback URLs",
        ),
        "invalid_grant" if says("no client credentials user enabled") => (
            FaultKind::Credentials,
            "choose a Run-As user in the app's policies (client credentials flow)",
        ),
        "invalid_grant" if says("ip restricted") => (
            FaultKind::Credentials,
            "allow this machine's address in the app's IP policy or the Run-As user's profile",
        ),
        "invalid_grant" if says("hasn't approved") => (
            FaultKind::Credentials,
            "let an admin pre-authorise the app for the user, or authorise it again with `tributary auth CONNECTION`",
        ),
        "invalid_grant" => (
            FaultKind::Credentials,
            "check that the user is active and may use the API; a new app takes minutes to work: wait",
        ),
        "unsupported_grant_type" | "invalid_request" => {
            (FaultKind::Config, "turn on the flow in the app's settings")
        }
        "invalid_app_access" => (
            FaultKind::Credentials,
            "let the app's policies admit the user (permitted users, permission set)",
        ),
        "inactive_user" => (
            FaultKind::Credentials,
            "activate the user, or choose another",
        ),
        "inactive_org" => (
            FaultKind::Credentials,
            "the org is locked or closed: ask its admin",
        ),
        "rate_limit_exceeded" => return (FaultKind::Throttled, None),
        "server_error" | "temporarily_unavailable" => return (FaultKind::Unavailable, None),
        _ => (
            FaultKind::Credentials,
            "look the error up in the app's login history (Setup)",
        ),
    };
    (kind, Some(remedy))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_a_kind_and_a_remedy() {
        for (error, description, kind, word) in [
            (
                "invalid_client",
                "invalid client credentials",
                FaultKind::Credentials,
                "wait",
            ),
            (
                "invalid_client_id",
                "client identifier invalid",
                FaultKind::Credentials,
                "wait",
            ),
            (
                "invalid_grant",
                "request not supported on this domain",
                FaultKind::Config,
                "my.salesforce.com",
            ),
            (
                "invalid_grant",
                "no client credentials user enabled",
                FaultKind::Credentials,
                "Run-As",
            ),
            (
                "invalid_grant",
                "ip restricted",
                FaultKind::Credentials,
                "IP",
            ),
            (
                "invalid_grant",
                "authentication failure",
                FaultKind::Credentials,
                "active",
            ),
            (
                "invalid_grant",
                "expired access/refresh token",
                FaultKind::Credentials,
                "tributary auth",
            ),
            (
                "invalid_grant",
                "expired authorization code",
                FaultKind::Credentials,
                "clock",
            ),
            (
                "invalid_grant",
                "audience is invalid",
                FaultKind::Config,
                "audience",
            ),
            (
                "redirect_uri_mismatch",
                "redirect_uri must match configuration",
                FaultKind::Config,
                "callback",
            ),
            ("unsupported_grant_type", "", FaultKind::Config, "flow"),
            ("inactive_user", "", FaultKind::Credentials, "activate"),
            ("new_error", "", FaultKind::Credentials, "login history"),
        ] {
            let (found, remedy) = meaning(error, description);
            assert_eq!(found, kind, "{error} {description}");
            assert!(remedy.unwrap().contains(word), "{error} {description}");
        }
        assert_eq!(meaning("rate_limit_exceeded", "").0, FaultKind::Throttled);
    }

    #[test]
    fn only_what_stays_dead_is_final() {
        assert!(is_final("invalid_grant", "expired access/refresh token"));
        assert!(is_final(
            "invalid_grant",
            "user hasn't approved this consumer"
        ));
        for (error, description) in [
            ("invalid_grant", "ip restricted"),
            ("invalid_client", "invalid client credentials"),
            ("inactive_user", "user is inactive"),
            ("server_error", "expired access/refresh token"),
        ] {
            assert!(!is_final(error, description), "{error} {description}");
        }
    }
}

//! What the token endpoint's refusals mean: who has to act, or that it passes.

use serde::Deserialize;

use crate::crm::port::vault::Refusal;
use crate::fault::{Fault, FaultKind};
use crate::http::answer::{Answer, status_kind};

#[derive(Deserialize, Default)]
struct Said {
    #[serde(default)]
    error: String,
    #[serde(default)]
    error_description: String,
    #[serde(default)]
    error_codes: Vec<u64>,
    #[serde(default)]
    trace_id: String,
    #[serde(default)]
    correlation_id: String,
}

/// What a refused token call means (Microsoft identity platform, "Authentication and authorization error codes"):
/// by `error`, as the texts and most codes may change.
pub(super) fn refusal(answer: &Answer) -> Refusal {
    let said = serde_json::from_slice::<Said>(answer.body()).ok();
    let Some(said) = said.filter(|said| !said.error.is_empty()) else {
        let fault = answer.fault();
        let fault = match status_kind(answer.status()) {
            FaultKind::Unavailable | FaultKind::Throttled | FaultKind::Config => fault,
            // No answer of a token endpoint: a page of a gateway, or a wrong host.
            _ => fault.remedy("check `authority_url`, or remove it"),
        };
        return Refusal::passing(fault);
    };
    let first_line = said.error_description.lines().next().unwrap_or_default();
    let mut text = format!("{}: {first_line}", said.error);
    if !said.trace_id.is_empty() {
        text.push_str(&format!(
            " (trace {}, correlation {})",
            said.trace_id, said.correlation_id
        ));
    }
    let (kind, remedy) = meaning(&said.error, &said.error_codes, answer.status());
    let fault = Fault::new(kind, text);
    let fault = match remedy {
        Some(remedy) => fault.remedy(remedy),
        None => fault,
    };
    // What a person has to answer stays refused until one does.
    let asks_a_person = matches!(
        said.error.as_str(),
        "invalid_grant" | "interaction_required"
    );
    Refusal {
        is_final: asks_a_person && kind == FaultKind::Credentials,
        fault: match answer.retry_after() {
            Some(wait) => fault.retry_after(wait),
            None => fault,
        },
    }
}

fn meaning(error: &str, codes: &[u64], status: u16) -> (FaultKind, Option<&'static str>) {
    let has = |code: u64| codes.contains(&code);
    match error {
        "temporarily_unavailable" | "server_error" => return (FaultKind::Unavailable, None),
        _ if status == 429 => return (FaultKind::Throttled, None),
        _ if status >= 500 => return (FaultKind::Unavailable, None),
        // 90006, 50033 and 90012 pass by themselves whatever `error` says.
        _ if has(90006) || has(50033) || has(90012) => return (FaultKind::Unavailable, None),
        _ => {}
    }
    let (kind, remedy) = match error {
        "invalid_client" if has(7_000_222) => (
            FaultKind::Credentials,
            "the client secret has expired: make a new one in the app registration",
        ),
        "invalid_client" if has(700_025) => (
            FaultKind::Credentials,
            "the application is a public client: remove `client_secret` or `certificate`",
        ),
        "invalid_client" if has(700_027) => (
            FaultKind::Credentials,
            "upload the certificate to the app registration, and check this machine's clock",
        ),
        "invalid_client" => (
            FaultKind::Credentials,
            "compare `client_id` and `client_secret` with the app registration; use the secret's value, not its id; a \
             new one takes minutes to work: wait",
        ),
        "unauthorized_client" => (
            FaultKind::Credentials,
            "the app is not in this tenant or is disabled: check `client_id` and the tenant",
        ),
        "invalid_scope" | "invalid_resource" => (
            FaultKind::Config,
            "the tenant knows no such environment: check `org` and `authority_url`",
        ),
        "invalid_grant" | "interaction_required" => (
            FaultKind::Credentials,
            "a person has to sign in again or consent: `tributary auth CONNECTION`; the app's sign-in log in Microsoft \
             Entra says more",
        ),
        "invalid_request" if has(50011) => (
            FaultKind::Config,
            "add the callback URL that `tributary auth` prints to the app registration's redirect URIs (platform Web)",
        ),
        _ if has(90002) => (
            FaultKind::Config,
            "there is no such tenant: check `authority_url`",
        ),
        _ => (
            FaultKind::Credentials,
            "look the error up in the app's sign-in log in Microsoft Entra",
        ),
    };
    (kind, Some(remedy))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_its_kind() {
        for (error, codes, status, kind) in [
            (
                "invalid_grant",
                &[50173_u64][..],
                400,
                FaultKind::Credentials,
            ),
            (
                "interaction_required",
                &[50076],
                400,
                FaultKind::Credentials,
            ),
            ("invalid_client", &[7_000_215], 401, FaultKind::Credentials),
            ("invalid_client", &[7_000_222], 401, FaultKind::Credentials),
            (
                "unauthorized_client",
                &[700_016],
                400,
                FaultKind::Credentials,
            ),
            ("invalid_scope", &[70011], 400, FaultKind::Config),
            ("invalid_resource", &[500_011], 400, FaultKind::Config),
            ("invalid_request", &[90002], 400, FaultKind::Config),
            (
                "temporarily_unavailable",
                &[90006],
                400,
                FaultKind::Unavailable,
            ),
            ("server_error", &[], 500, FaultKind::Unavailable),
            ("invalid_request", &[90012], 400, FaultKind::Unavailable),
            ("invalid_client", &[], 503, FaultKind::Unavailable),
            ("throttled", &[], 429, FaultKind::Throttled),
            ("new_error", &[], 400, FaultKind::Credentials),
        ] {
            let (found, remedy) = meaning(error, codes, status);
            assert_eq!(found, kind, "{error} {codes:?} {status}");
            let passes = matches!(kind, FaultKind::Unavailable | FaultKind::Throttled);
            assert_eq!(remedy.is_none(), passes, "{error}");
        }
    }
}

//! Sign-in of an application (OAuth 2.0 client credentials, Microsoft identity platform v2.0): one token, one sign-in
//! at a time.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::fault::{Fault, FaultKind};
use crate::http::Http;
use crate::http::answer::{Answer, status_kind};
use crate::http::one_token::OneToken;
use crate::http::request::Request;
use crate::runtime::clock::Clock;
use crate::secret::Secret;

use super::assertion::assertion;
use super::authority::authority;
use super::settings::{DynamicsSettings, Proof};

/// How long before its end a token is no longer used.
const SPARE: Duration = Duration::from_mins(5);

/// A session of the connection's application user.
#[derive(Debug)]
pub struct Token {
    /// The bearer token.
    pub access: Secret,
    /// Until when it is used.
    until: Instant,
}

/// Signs in and keeps the token.
pub struct SignIn {
    http: Http,
    settings: DynamicsSettings,
    clock: Arc<dyn Clock>,
    /// Where to sign in, once the environment has said it.
    authority: Mutex<Option<String>>,
    held: OneToken<Token>,
}

#[derive(Deserialize)]
struct TokenAnswer {
    access_token: String,
    #[serde(default)]
    expires_in: Option<u64>,
}

#[derive(Deserialize, Default)]
struct Refusal {
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

impl SignIn {
    /// Signs in with `settings` through `http`; nothing is sent yet.
    pub fn new(http: Http, settings: DynamicsSettings, clock: Arc<dyn Clock>) -> Self {
        Self {
            http,
            settings,
            clock,
            authority: Mutex::default(),
            held: OneToken::default(),
        }
    }

    /// The token; signs in if there is none that lasts.
    ///
    /// # Errors
    /// `Credentials` where an operator has to act, `Config` for a wrong address, else a passing fault.
    pub async fn token(&self) -> Result<Arc<Token>, Fault> {
        self.held
            .get(|token| token.until > Instant::now(), self.sign_in())
            .await
    }

    /// Another token than `dead`, which the CRM refused; whoever comes second gets the first one's.
    ///
    /// # Errors
    /// As [`SignIn::token`].
    pub async fn renewed(&self, dead: &Arc<Token>) -> Result<Arc<Token>, Fault> {
        self.held
            .get(|token| !Arc::ptr_eq(dead, token), self.sign_in())
            .await
    }

    async fn sign_in(&self) -> Result<Token, Fault> {
        let connection = &self.settings.connection;
        let signing_in =
            |fault: Fault| fault.context(format_args!("signing in to connection {connection}"));
        let authority = self.authority().await.map_err(signing_in)?;
        let url = format!("{authority}/oauth2/v2.0/token");
        let form = self.form(&url).map_err(signing_in)?;
        let request = Request::post(url)
            .header("Accept", "application/json")
            .form(form);
        let answer = self.http.send(request).await.map_err(signing_in)?;
        if !answer.is_success() {
            return Err(signing_in(refusal(&answer)));
        }
        // The parser's own error may quote the token.
        let token: TokenAnswer = serde_json::from_slice(answer.body()).map_err(|_| {
            signing_in(Fault::new(
                FaultKind::Protocol,
                "the token answer can't be read",
            ))
        })?;
        tracing::info!(%connection, authority, "signed in");
        let life = Duration::from_secs(token.expires_in.unwrap_or(3600));
        Ok(Token {
            access: Secret::new(token.access_token),
            until: Instant::now() + life.saturating_sub(SPARE).max(life / 2),
        })
    }

    fn form(&self, url: &str) -> Result<Vec<(&'static str, String)>, Fault> {
        let mut form = vec![
            ("grant_type", "client_credentials".to_owned()),
            ("client_id", self.settings.client_id.clone()),
            ("scope", format!("{}/.default", self.settings.org_url)),
        ];
        match &self.settings.proof {
            Proof::Secret(secret) => {
                let secret =
                    secret().map_err(|fault| fault.context("reading the client secret"))?;
                form.push(("client_secret", secret.expose().to_owned()));
            }
            Proof::Certificate(pem) => {
                let pem = pem().map_err(|fault| fault.context("reading the certificate"))?;
                let signed = assertion(&pem, &self.settings.client_id, url, self.clock.now())?;
                let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
                form.push(("client_assertion_type", kind.to_owned()));
                form.push(("client_assertion", signed.expose().to_owned()));
            }
        }
        Ok(form)
    }

    /// Where to sign in: the operator's word, else that of the environment, which a call without a token asks.
    async fn authority(&self) -> Result<String, Fault> {
        let own = self.settings.authority_url.as_deref();
        if let Some(known) = self.known().clone() {
            return Ok(known);
        }
        let found = match own.map(|own| authority(None, Some(own))) {
            Some(Ok(found)) => found,
            _ => {
                let url = format!(
                    "{}/api/data/v{}/WhoAmI",
                    self.settings.base(),
                    self.settings.api_version
                );
                let answer = self.http.send(Request::get(url)).await?;
                if answer.status() != 401 {
                    let fault = if answer.is_success() {
                        let what = format!("{} answered without a token", answer.what());
                        Fault::new(FaultKind::Protocol, what)
                    } else {
                        answer.fault()
                    };
                    return Err(fault.remedy("check `org`: it is no Dataverse environment"));
                }
                authority(answer.header("WWW-Authenticate"), own)?
            }
        };
        *self.known() = Some(found.clone());
        Ok(found)
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.authority
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a refused token call means (Microsoft identity platform, "Authentication and authorization error codes"):
/// by `error`, as the texts and most codes may change.
fn refusal(answer: &Answer) -> Fault {
    let said = serde_json::from_slice::<Refusal>(answer.body()).ok();
    let Some(said) = said.filter(|said| !said.error.is_empty()) else {
        let fault = answer.fault();
        return match status_kind(answer.status()) {
            FaultKind::Unavailable | FaultKind::Throttled | FaultKind::Config => fault,
            // No answer of a token endpoint: a page of a gateway, or a wrong host.
            _ => fault.remedy("check `authority_url`, or remove it"),
        };
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
    match answer.retry_after() {
        Some(wait) => fault.retry_after(wait),
        None => fault,
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
            "a person has to sign in again or consent: see the app's sign-in log in Microsoft Entra",
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

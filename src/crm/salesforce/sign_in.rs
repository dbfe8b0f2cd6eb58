//! Sign-in by client credentials (OAuth 2.0, RFC 6749 section 4.4): one token, one sign-in at a time.

use std::sync::Arc;

use serde::Deserialize;

use crate::fault::{Fault, FaultKind};
use crate::http::Http;
use crate::http::answer::{Answer, status_kind};
use crate::http::one_token::OneToken;
use crate::http::request::Request;
use crate::model::record_id::RecordId;
use crate::secret::Secret;

use super::settings::{MY_DOMAIN, SalesforceSettings, address};

/// A session of the connection's user.
#[derive(Debug)]
pub struct Token {
    /// The bearer token.
    pub access: Secret,
    /// Where data calls go, without a slash at its end.
    pub instance_url: String,
    /// The org, 18 characters.
    pub org_id: String,
    /// The user, 18 characters.
    pub user_id: String,
}

/// Signs in and keeps the token.
pub struct SignIn {
    http: Http,
    settings: SalesforceSettings,
    held: OneToken<Token>,
}

#[derive(Deserialize)]
struct TokenAnswer {
    access_token: String,
    instance_url: String,
    id: String,
}

#[derive(Deserialize, Default)]
struct Refusal {
    #[serde(default)]
    error: String,
    #[serde(default)]
    error_description: String,
}

impl SignIn {
    /// Signs in with `settings` through `http`; nothing is sent yet.
    pub fn new(http: Http, settings: SalesforceSettings) -> Self {
        Self {
            http,
            settings,
            held: OneToken::default(),
        }
    }

    /// The token; signs in if there is none.
    ///
    /// # Errors
    /// `Credentials` where an operator has to act, `Config` for a wrong address, else a passing fault.
    pub async fn token(&self) -> Result<Arc<Token>, Fault> {
        self.other_than(None).await
    }

    /// Another token than `dead`, which the CRM refused; whoever comes second gets the first one's.
    ///
    /// # Errors
    /// As [`SignIn::token`].
    pub async fn renewed(&self, dead: &Arc<Token>) -> Result<Arc<Token>, Fault> {
        self.other_than(Some(dead)).await
    }

    async fn other_than(&self, dead: Option<&Arc<Token>>) -> Result<Arc<Token>, Fault> {
        let is_usable = |token: &Arc<Token>| dead.is_none_or(|dead| !Arc::ptr_eq(dead, token));
        self.held.get(is_usable, self.sign_in()).await
    }

    async fn sign_in(&self) -> Result<Token, Fault> {
        let secret = (self.settings.client_secret)()
            .map_err(|fault| fault.context("reading the client secret"))?;
        let request = Request::post(format!("{}/services/oauth2/token", self.settings.login_url))
            .header("Accept", "application/json")
            .form(vec![
                ("grant_type", "client_credentials".to_owned()),
                ("client_id", self.settings.client_id.clone()),
                ("client_secret", secret.expose().to_owned()),
            ]);
        let signing_in = |fault: Fault| {
            fault.context(format_args!(
                "signing in to connection {}",
                self.settings.connection
            ))
        };
        let answer = self.http.send(request).await.map_err(signing_in)?;
        if !answer.is_success() {
            return Err(signing_in(refusal(&answer)));
        }
        let token = self.read(answer.body()).map_err(signing_in)?;
        tracing::info!(
            connection = %self.settings.connection, org = token.org_id, user = token.user_id,
            instance = token.instance_url, "signed in"
        );
        Ok(token)
    }

    fn read(&self, body: &[u8]) -> Result<Token, Fault> {
        // The parser's own error may quote the token.
        let answer: TokenAnswer = serde_json::from_slice(body)
            .map_err(|_| Fault::new(FaultKind::Protocol, "the token answer can't be read"))?;
        let (org_id, user_id) = identity(&answer.id).ok_or_else(|| {
            let what = format!(
                "the token answer's `id` `{}` names no org and user",
                answer.id
            );
            Fault::new(FaultKind::Protocol, what)
        })?;
        let instance_url = match &self.settings.instance_url {
            Some(overridden) => overridden.clone(),
            None => address(
                "the token answer's instance_url",
                &answer.instance_url,
                self.settings.plain_text,
            )?,
        };
        Ok(Token {
            access: Secret::new(answer.access_token),
            instance_url,
            org_id,
            user_id,
        })
    }
}

/// Org and user of an identity URL, `{login host}/id/{org}/{user}` (Salesforce Help, "Identity URLs").
fn identity(url: &str) -> Option<(String, String)> {
    let mut parts = url.trim_end_matches('/').rsplit('/');
    let user = RecordId::salesforce(parts.next()?).ok()?;
    let org = RecordId::salesforce(parts.next()?).ok()?;
    (parts.next()? == "id").then(|| (org.to_string(), user.to_string()))
}

/// What a refused token call means (Salesforce Help, "OAuth 2.0 Error Codes").
fn refusal(answer: &Answer) -> Fault {
    let passing = matches!(
        status_kind(answer.status()),
        FaultKind::Unavailable | FaultKind::Throttled
    );
    let said = serde_json::from_slice::<Refusal>(answer.body()).ok();
    let Some(said) = said.filter(|said| !said.error.is_empty() && !passing) else {
        let fault = answer.fault();
        if passing || matches!(fault.kind(), FaultKind::Config) {
            return fault;
        }
        // No answer of a token host: a page of a gateway, or a wrong host.
        return fault.remedy(format!("check `login_url`: {MY_DOMAIN}"));
    };
    let text = format!("{} ({})", said.error, said.error_description);
    let (kind, remedy) = meaning(&said.error, &said.error_description);
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

fn meaning(error: &str, description: &str) -> (FaultKind, Option<&'static str>) {
    let says = |words: &str| description.to_ascii_lowercase().contains(words);
    let wrong_secret = "a new app or a new secret takes minutes to work: wait ten minutes before you doubt it; \
         then compare `client_id` and `client_secret` with the app's consumer key and secret";
    let (kind, remedy) = match error {
        "invalid_client" | "invalid_client_id" => (FaultKind::Credentials, wrong_secret),
        "invalid_grant" if says("request not supported on this domain") => {
            (FaultKind::Config, MY_DOMAIN)
        }
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
            "let an admin pre-authorise the app for the Run-As user",
        ),
        "invalid_grant" => (
            FaultKind::Credentials,
            "check that the Run-As user is active and may use the API; a new app takes minutes to work: wait",
        ),
        "unsupported_grant_type" | "invalid_request" => (
            FaultKind::Config,
            "turn on the client credentials flow in the app's settings",
        ),
        "invalid_app_access" => (
            FaultKind::Credentials,
            "let the app's policies admit the Run-As user (permitted users, permission set)",
        ),
        "inactive_user" => (
            FaultKind::Credentials,
            "activate the Run-As user, or choose another",
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
    fn the_identity_url_names_org_and_user() {
        let (org, user) =
            identity("https://login.salesforce.com/id/001A0000006Vm9u/001A0000006Vm9uIAC").unwrap();
        assert_eq!(org, "001A0000006Vm9uIAC");
        assert_eq!(user, "001A0000006Vm9uIAC");
        for url in [
            "",
            "https://x/id/1/2",
            "https://x/no/001A0000006Vm9u/001A0000006Vm9u",
        ] {
            assert!(identity(url).is_none(), "{url}");
        }
    }

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
                "Run-As",
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
}

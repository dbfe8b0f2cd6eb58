//! Sign-in: one token, one sign-in at a time, by the app's secret, its key, or a person's consent.

use std::sync::Arc;

use serde::Deserialize;

use crate::crm::port::vault::Refusal;
use crate::fault::{Fault, FaultKind};
use crate::http::Http;
use crate::http::one_token::OneToken;
use crate::http::request::Request;
use crate::model::record_id::RecordId;
use crate::runtime::clock::Clock;
use crate::secret::Secret;
use crate::state::credentials::PinnedOrg;

use super::assertion::assertion;
use super::refusal::refusal;
use super::settings::{Auth, SalesforceSettings, address};

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
    pub(super) desk: Arc<TokenDesk>,
    pub(super) held: OneToken<Token>,
}

/// Asks for tokens.
pub(super) struct TokenDesk {
    pub http: Http,
    pub settings: SalesforceSettings,
    clock: Arc<dyn Clock>,
}

#[derive(Deserialize)]
struct TokenAnswer {
    access_token: String,
    #[serde(default)]
    refresh_token: Option<String>,
    instance_url: String,
    id: String,
}

type Form = Vec<(&'static str, String)>;

impl SignIn {
    /// Signs in with `settings` through `http`; nothing is sent yet.
    pub fn new(http: Http, settings: SalesforceSettings, clock: Arc<dyn Clock>) -> Self {
        Self {
            desk: Arc::new(TokenDesk {
                http,
                settings,
                clock,
            }),
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
        let connection = &self.desk.settings.connection;
        let token = self.desk.sign_in().await.map_err(|fault| {
            fault.context(format_args!("signing in to connection {connection}"))
        })?;
        tracing::info!(
            %connection, org = token.org_id, user = token.user_id,
            instance = token.instance_url, "signed in"
        );
        Ok(token)
    }
}

impl TokenDesk {
    async fn sign_in(self: &Arc<Self>) -> Result<Token, Fault> {
        let token = match &self.settings.auth {
            Auth::ClientCredentials(secret) => {
                let secret =
                    secret().map_err(|fault| fault.context("reading the client secret"))?;
                let form = vec![
                    ("grant_type", "client_credentials".to_owned()),
                    ("client_id", self.settings.client_id.clone()),
                    ("client_secret", secret.expose().to_owned()),
                ];
                self.ask(form).await.map_err(|refused| refused.fault)?.0
            }
            Auth::JwtBearer {
                user,
                key,
                audience,
            } => {
                let key = key().map_err(|fault| fault.context("reading the private key"))?;
                let client = &self.settings.client_id;
                let signed = assertion(&key, client, user, audience, self.clock.now())?;
                let kind = "urn:ietf:params:oauth:grant-type:jwt-bearer";
                let form = vec![
                    ("grant_type", kind.to_owned()),
                    ("assertion", signed.expose().to_owned()),
                ];
                self.ask(form).await.map_err(|refused| refused.fault)?.0
            }
            Auth::AuthorizationCode(_) => {
                let desk = Arc::clone(self);
                let vault = &self.settings.vault;
                vault
                    .spend(|token| async move { desk.refresh(&token).await })
                    .await?
            }
        };
        self.pin(&token).await?;
        Ok(token)
    }

    async fn refresh(&self, token: &Secret) -> Result<(Token, Option<Secret>), Refusal> {
        let mut form = vec![
            ("grant_type", "refresh_token".to_owned()),
            ("refresh_token", token.expose().to_owned()),
        ];
        self.add_client(&mut form).map_err(Refusal::passing)?;
        self.ask(form).await
    }

    /// Who we are: the app's id, and its secret where it has one for us.
    pub fn add_client(&self, form: &mut Form) -> Result<(), Fault> {
        form.push(("client_id", self.settings.client_id.clone()));
        if let Auth::AuthorizationCode(Some(secret)) = &self.settings.auth {
            let secret = secret().map_err(|fault| fault.context("reading the client secret"))?;
            form.push(("client_secret", secret.expose().to_owned()));
        }
        Ok(())
    }

    /// Ties the connection to the token's org, or refuses another one's.
    pub async fn pin(&self, token: &Token) -> Result<(), Fault> {
        let org = PinnedOrg {
            id: token.org_id.clone(),
            url: token.instance_url.clone(),
        };
        self.settings.vault.pin(&org).await
    }

    /// Asks the token host; the token, and the refresh token that came with it.
    pub async fn ask(&self, form: Form) -> Result<(Token, Option<Secret>), Refusal> {
        let request = Request::post(format!("{}/services/oauth2/token", self.settings.login_url))
            .header("Accept", "application/json")
            .form(form);
        let answer = self.http.send(request).await.map_err(Refusal::passing)?;
        if !answer.is_success() {
            return Err(refusal(&answer));
        }
        self.read(answer.body()).map_err(Refusal::passing)
    }

    fn read(&self, body: &[u8]) -> Result<(Token, Option<Secret>), Fault> {
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
        let token = Token {
            access: Secret::new(answer.access_token),
            instance_url,
            org_id,
            user_id,
        };
        Ok((token, answer.refresh_token.map(Secret::new)))
    }
}

/// Org and user of an identity URL, `{login host}/id/{org}/{user}` (Salesforce Help, "Identity URLs").
fn identity(url: &str) -> Option<(String, String)> {
    let mut parts = url.trim_end_matches('/').rsplit('/');
    let user = RecordId::salesforce(parts.next()?).ok()?;
    let org = RecordId::salesforce(parts.next()?).ok()?;
    (parts.next()? == "id").then(|| (org.to_string(), user.to_string()))
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
}

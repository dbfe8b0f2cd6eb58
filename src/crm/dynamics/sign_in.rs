//! Sign-in (OAuth 2.0, Microsoft identity platform v2.0) of the application or of a person who agreed: one token, one
//! sign-in at a time.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::crm::port::vault::Refusal;
use crate::fault::{Fault, FaultKind};
use crate::http::Http;
use crate::http::one_token::OneToken;
use crate::http::request::Request;
use crate::runtime::clock::Clock;
use crate::secret::Secret;

use super::assertion::assertion;
use super::authority::authority;
use super::refusal::refusal;
use super::settings::{DynamicsSettings, Flow, Proof};

/// How long before its end a token is no longer used.
const SPARE: Duration = Duration::from_mins(5);

/// A session of the connection's user.
#[derive(Debug)]
pub struct Token {
    /// The bearer token.
    pub access: Secret,
    /// Until when it is used.
    until: Instant,
}

/// Signs in and keeps the token.
pub struct SignIn {
    pub(super) desk: Arc<TokenDesk>,
    pub(super) held: OneToken<Token>,
}

/// Asks for tokens.
pub(super) struct TokenDesk {
    pub http: Http,
    pub settings: DynamicsSettings,
    clock: Arc<dyn Clock>,
    /// Where to sign in, once the environment has said it.
    authority: Mutex<Option<String>>,
}

#[derive(Deserialize)]
struct TokenAnswer {
    access_token: String,
    #[serde(default)]
    refresh_token: Option<String>,
    #[serde(default)]
    expires_in: Option<u64>,
}

type Form = Vec<(&'static str, String)>;

impl SignIn {
    /// Signs in with `settings` through `http`; nothing is sent yet.
    pub fn new(http: Http, settings: DynamicsSettings, clock: Arc<dyn Clock>) -> Self {
        Self {
            desk: Arc::new(TokenDesk {
                http,
                settings,
                clock,
                authority: Mutex::default(),
            }),
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
        let connection = &self.desk.settings.connection;
        let token = self.desk.sign_in().await.map_err(|fault| {
            fault.context(format_args!("signing in to connection {connection}"))
        })?;
        tracing::info!(%connection, "signed in");
        Ok(token)
    }
}

impl TokenDesk {
    async fn sign_in(self: &Arc<Self>) -> Result<Token, Fault> {
        self.check_org().await?;
        match self.settings.flow {
            Flow::ClientCredentials => {
                let form = vec![
                    ("grant_type", "client_credentials".to_owned()),
                    ("scope", format!("{}/.default", self.settings.org_url)),
                ];
                let asked = self.ask(form).await;
                Ok(asked.map_err(|refused| refused.fault)?.0)
            }
            Flow::AuthorizationCode => {
                let desk = Arc::clone(self);
                let vault = &self.settings.vault;
                vault
                    .spend(|token| async move { desk.refresh(&token).await })
                    .await
            }
        }
    }

    /// Refuses a URL that is not the one which the connection was established with.
    pub async fn check_org(&self) -> Result<(), Fault> {
        let url = &self.settings.org_url;
        let Some(pinned) = self.settings.vault.org().await? else {
            return Ok(());
        };
        if pinned.url == *url {
            return Ok(());
        }
        let what = format!(
            "`org = \"{url}\"`: connection {} was established with {}, and an environment's URL does not change",
            self.settings.connection, pinned.url
        );
        Err(Fault::new(FaultKind::Config, what).remedy(
            "write the first URL back; another environment needs a connection with another id",
        ))
    }

    async fn refresh(&self, token: &Secret) -> Result<(Token, Option<Secret>), Refusal> {
        let form = vec![
            ("grant_type", "refresh_token".to_owned()),
            ("refresh_token", token.expose().to_owned()),
            ("scope", self.user_scope()),
        ];
        self.ask(form).await
    }

    /// What a person is asked for: to act as them, and a token that lasts.
    pub fn user_scope(&self) -> String {
        format!(
            "{}/user_impersonation offline_access",
            self.settings.org_url
        )
    }

    /// Asks the token endpoint; the token, and the refresh token that came with it.
    pub async fn ask(&self, mut form: Form) -> Result<(Token, Option<Secret>), Refusal> {
        let authority = self.authority().await.map_err(Refusal::passing)?;
        let url = format!("{authority}/oauth2/v2.0/token");
        self.add_client(&mut form, &url).map_err(Refusal::passing)?;
        let request = Request::post(url)
            .header("Accept", "application/json")
            .form(form);
        let answer = self.http.send(request).await.map_err(Refusal::passing)?;
        if !answer.is_success() {
            return Err(refusal(&answer));
        }
        // The parser's own error may quote the token.
        let answer: TokenAnswer = serde_json::from_slice(answer.body()).map_err(|_| {
            let what = "the token answer can't be read";
            Refusal::passing(Fault::new(FaultKind::Protocol, what))
        })?;
        let life = Duration::from_secs(answer.expires_in.unwrap_or(3600));
        let token = Token {
            access: Secret::new(answer.access_token),
            until: Instant::now() + life.saturating_sub(SPARE).max(life / 2),
        };
        Ok((token, answer.refresh_token.map(Secret::new)))
    }

    /// Who we are, and its proof.
    fn add_client(&self, form: &mut Form, url: &str) -> Result<(), Fault> {
        form.push(("client_id", self.settings.client_id.clone()));
        match &self.settings.proof {
            Proof::Public => {}
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
        Ok(())
    }

    /// Where to sign in: the operator's word, else that of the environment, which a call without a token asks.
    pub async fn authority(&self) -> Result<String, Fault> {
        let own = self.settings.authority_url.as_deref();
        if let Some(known) = self.known().clone() {
            return Ok(known);
        }
        let found = match own.map(|own| authority(None, Some(own))) {
            Some(Ok(found)) => found,
            _ => {
                let url = self.settings.who_am_i();
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

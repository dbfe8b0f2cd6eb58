//! Authorisation by a person: the link, the code, and the end of it (Salesforce Help, "OAuth 2.0 Web Server Flow").

use async_trait::async_trait;

use crate::crm::port::OrgIdentity;
use crate::crm::port::consent::{Asked, Consent, Disconnected};
use crate::fault::{Fault, FaultKind};
use crate::http::encode::percent;
use crate::http::request::Request;
use crate::secret::Secret;

use super::sign_in::{SignIn, TokenDesk};

/// REST, Bulk and both streams, and a token that lasts.
const SCOPE: &str = "api refresh_token";

#[async_trait]
impl Consent for SignIn {
    async fn link(&self, asked: &Asked) -> Result<String, Fault> {
        let settings = &self.desk.settings;
        settings.vault.keys()?;
        Ok(format!(
            "{}/services/oauth2/authorize?response_type=code&client_id={}&redirect_uri={}&scope={}&state={}\
             &code_challenge={}&code_challenge_method=S256",
            settings.login_url,
            percent(&settings.client_id),
            percent(&asked.redirect),
            percent(SCOPE),
            percent(asked.state.expose()),
            percent(&asked.challenge()),
        ))
    }

    async fn redeem(&self, code: &Secret, asked: &Asked) -> Result<OrgIdentity, Fault> {
        let desk = &self.desk;
        let connection = &desk.settings.connection;
        let redeeming =
            |fault: Fault| fault.context(format_args!("authorising connection {connection}"));
        let mut form = asked.redeeming(code);
        desk.add_client(&mut form).map_err(redeeming)?;
        let (token, refresh) = desk
            .ask(form)
            .await
            .map_err(|refused| redeeming(refused.fault))?;
        let Some(refresh) = refresh else {
            let what = "the CRM gave no refresh token";
            let fault = Fault::new(FaultKind::Credentials, what)
                .remedy("add the scope `refresh_token` (perform requests at any time) to the app");
            return Err(redeeming(fault));
        };
        if let Err(fault) = desk.pin(&token).await {
            desk.revoke(&refresh).await;
            return Err(redeeming(fault));
        }
        desk.settings
            .vault
            .authorise(&refresh)
            .await
            .map_err(redeeming)?;
        self.held.forget().await;
        tracing::info!(%connection, org = token.org_id, user = token.user_id, "authorised");
        Ok(OrgIdentity {
            org_id: token.org_id,
            user_id: token.user_id,
            instance_url: token.instance_url,
        })
    }

    async fn disconnect(&self) -> Result<Disconnected, Fault> {
        let settings = &self.desk.settings;
        let before = settings.vault.org().await?;
        let token = settings.vault.forget().await?;
        self.held.forget().await;
        let revoked = match &token {
            Some(token) => self.desk.revoke(token).await,
            None => false,
        };
        let org = before.map_or_else(|| settings.login_url.clone(), |org| org.url);
        Ok(Disconnected {
            had_token: token.is_some(),
            revoked,
            remains: format!(
                "if the app is still listed at {org} under Setup, Connected Apps OAuth Usage, revoke it there"
            ),
        })
    }
}

impl TokenDesk {
    /// Ends a refresh token and what came of it; whether the CRM did.
    async fn revoke(&self, token: &Secret) -> bool {
        let url = format!("{}/services/oauth2/revoke", self.settings.login_url);
        let form = vec![("token", token.expose().to_owned())];
        match self.http.send(Request::post(url).form(form)).await {
            Ok(answer) if answer.is_success() => true,
            Ok(answer) => {
                tracing::warn!(
                    connection = %self.settings.connection, status = answer.status(),
                    "the CRM did not revoke the token"
                );
                false
            }
            Err(fault) => {
                tracing::warn!(
                    connection = %self.settings.connection, error = %fault,
                    "the CRM could not be told to revoke the token"
                );
                false
            }
        }
    }
}

//! Authorisation by a person: the link, the code, and the end of it (Microsoft identity platform, "OAuth 2.0
//! authorization code flow").

use async_trait::async_trait;

use crate::crm::port::OrgIdentity;
use crate::crm::port::consent::{Asked, Consent, Disconnected};
use crate::fault::{Fault, FaultKind};
use crate::http::encode::percent;
use crate::http::request::Request;
use crate::secret::Secret;
use crate::state::credentials::PinnedOrg;

use super::sign_in::{SignIn, Token, TokenDesk};
use super::who::WhoAmI;

#[async_trait]
impl Consent for SignIn {
    async fn link(&self, asked: &Asked) -> Result<String, Fault> {
        let desk = &self.desk;
        desk.settings.vault.keys()?;
        desk.check_org().await?;
        let authority = desk.authority().await?;
        Ok(format!(
            "{authority}/oauth2/v2.0/authorize?client_id={}&response_type=code&response_mode=query&redirect_uri={}\
             &scope={}&state={}&code_challenge={}&code_challenge_method=S256&prompt=select_account",
            percent(&desk.settings.client_id),
            percent(&asked.redirect),
            percent(&desk.user_scope()),
            percent(asked.state.expose()),
            percent(&asked.challenge()),
        ))
    }

    async fn redeem(&self, code: &Secret, asked: &Asked) -> Result<OrgIdentity, Fault> {
        let desk = &self.desk;
        let connection = &desk.settings.connection;
        let redeeming =
            |fault: Fault| fault.context(format_args!("authorising connection {connection}"));
        desk.check_org().await.map_err(redeeming)?;
        let mut form = asked.redeeming(code);
        form.push(("scope", desk.user_scope()));
        let (token, refresh) = desk
            .ask(form)
            .await
            .map_err(|refused| redeeming(refused.fault))?;
        let Some(refresh) = refresh else {
            let what = "the CRM gave no refresh token";
            let fault = Fault::new(FaultKind::Credentials, what)
                .remedy("let the app registration have `offline_access`");
            return Err(redeeming(fault));
        };
        let who = desk.who(&token).await.map_err(redeeming)?;
        let org = PinnedOrg {
            id: who.organization_id.clone(),
            url: desk.settings.org_url.clone(),
        };
        desk.settings.vault.pin(&org).await.map_err(redeeming)?;
        desk.settings
            .vault
            .authorise(&refresh)
            .await
            .map_err(redeeming)?;
        self.held.forget().await;
        tracing::info!(%connection, org = who.organization_id, user = who.user_id, "authorised");
        Ok(OrgIdentity {
            org_id: who.organization_id,
            user_id: who.user_id,
            instance_url: desk.settings.base().to_owned(),
        })
    }

    async fn disconnect(&self) -> Result<Disconnected, Fault> {
        let token = self.desk.settings.vault.forget().await?;
        self.held.forget().await;
        Ok(Disconnected {
            had_token: token.is_some(),
            // There is no endpoint that revokes one token.
            revoked: false,
            remains: format!(
                "remove the consent of application {} in Microsoft Entra: Enterprise applications, Permissions, or \
                 https://myapps.microsoft.com for the person who agreed",
                self.desk.settings.client_id
            ),
        })
    }
}

impl TokenDesk {
    /// Which environment a fresh token is for.
    async fn who(&self, token: &Token) -> Result<WhoAmI, Fault> {
        let request = Request::get(self.settings.who_am_i())
            .header("Accept", "application/json")
            .bearer(&token.access);
        let answer = self.http.send(request).await?;
        if !answer.is_success() {
            return Err(answer.fault().remedy(
                "check that this person may use the environment, and that `org` is its URL",
            ));
        }
        WhoAmI::read(answer.body())
    }
}

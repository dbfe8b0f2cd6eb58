//! The carriers of the config: its mail server, and the webhooks of its names.

use std::collections::BTreeMap;

use async_trait::async_trait;

use super::mail::Mailer;
use super::notice::Notice;
use super::port::{Address, Carrier, PATIENCE};
use super::webhook::Hook;
use crate::config::mail::MailConfig;
use crate::config::notify::RecipientConfig;
use crate::fault::{Fault, FaultKind};

/// Mail and webhooks.
pub struct Carriers {
    mail: Option<Mailer>,
    hooks: BTreeMap<String, Hook>,
}

impl Carriers {
    /// The carriers of `[mail]` and `[notify]`; nobody is reached yet, secrets are read when they are used.
    ///
    /// # Errors
    /// `Config` for what can't be used.
    pub fn new(
        mail: Option<&MailConfig>,
        recipients: &BTreeMap<String, RecipientConfig>,
    ) -> Result<Self, Fault> {
        let mail = mail.cloned().map(Mailer::new).transpose()?;
        let mut hooks = BTreeMap::new();
        for (name, recipient) in recipients {
            if let Some(hook) = Hook::new(name, recipient)? {
                hooks.insert(name.clone(), hook);
            }
        }
        Ok(Self { mail, hooks })
    }

    async fn deliver(&self, to: &Address, id: &str, notice: &Notice) -> Result<String, Fault> {
        let gone = |what: String| Err(Fault::new(FaultKind::Missing, what));
        match to {
            Address::Mail(address) => match &self.mail {
                Some(mail) => mail.send(address, id, notice).await,
                None => gone("the config has no `[mail]`".to_owned()),
            },
            Address::Webhook(name) => match self.hooks.get(name) {
                Some(hook) => hook.call(id, notice).await,
                None => gone(format!("the config has no webhook `[notify.{name}]`")),
            },
        }
    }
}

#[async_trait]
impl Carrier for Carriers {
    async fn carry(&self, to: &Address, id: &str, notice: &Notice) -> Result<String, Fault> {
        let delivered = tokio::time::timeout(PATIENCE, self.deliver(to, id, notice)).await;
        delivered.unwrap_or_else(|_| {
            let what = format!("{} takes too long", to.shown());
            Err(Fault::new(FaultKind::Unavailable, what))
        })
    }
}

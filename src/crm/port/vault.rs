//! What signing in keeps for one connection: the org it belongs to, and a sealed refresh token.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::fault::{Fate, Fault, FaultKind};
use crate::model::name::ConnectionId;
use crate::secret::Secret;
use crate::state::credentials::{Credential, Credentials, PinnedOrg};
use crate::state::memory::MemoryState;
use crate::state::seal::Keyring;

/// Waits between tries to keep a token that has no other copy.
const WAITS: [Duration; 4] = [
    Duration::from_millis(200),
    Duration::from_secs(1),
    Duration::from_secs(3),
    Duration::from_secs(10),
];

/// A connection's part of the credentials.
pub struct Vault {
    connection: ConnectionId,
    store: Arc<dyn Credentials>,
    keys: Option<Arc<Keyring>>,
    /// The revision that the CRM refused for good, and what it said.
    refused: Mutex<Option<(u64, Refused)>>,
    /// Held while the refresh token is spent: it may be good for one use only.
    spending: tokio::sync::Mutex<()>,
    /// Woken by each new authorisation.
    authorised: Notify,
}

/// A refused token call.
pub struct Refusal {
    /// What it means.
    pub fault: Fault,
    /// What was sent is dead and will be refused for ever.
    pub is_final: bool,
}

impl Refusal {
    /// One that does not judge what was sent.
    #[must_use]
    pub const fn passing(fault: Fault) -> Self {
        Self {
            fault,
            is_final: false,
        }
    }
}

/// A refresh token, and the revision that it was read at.
#[derive(Debug, Clone)]
pub struct Grant {
    /// The token.
    pub refresh_token: Secret,
    /// What [`Vault::renew`] replaces.
    pub revision: u64,
}

#[derive(Clone)]
struct Refused {
    kind: FaultKind,
    what: String,
}

impl Vault {
    /// The vault of `connection` in `store`; without keys it keeps no token.
    pub fn new(
        connection: ConnectionId,
        store: Arc<dyn Credentials>,
        keys: Option<Arc<Keyring>>,
    ) -> Self {
        Self {
            connection,
            store,
            keys,
            refused: Mutex::default(),
            spending: tokio::sync::Mutex::default(),
            authorised: Notify::new(),
        }
    }

    /// A vault that lasts as long as the process: for commands that sign in by a secret and keep nothing.
    #[must_use]
    pub fn in_memory(connection: ConnectionId) -> Arc<Self> {
        let store = Arc::new(MemoryState::default());
        Arc::new(Self::new(connection, store, None))
    }

    /// The org that the connection belongs to.
    ///
    /// # Errors
    /// As the store says.
    pub async fn org(&self) -> Result<Option<PinnedOrg>, Fault> {
        self.store.org(&self.connection).await
    }

    /// Ties the connection to the org of its first sign-in, for ever.
    ///
    /// # Errors
    /// `Credentials` if it is tied to another one.
    pub async fn pin(&self, org: &PinnedOrg) -> Result<(), Fault> {
        let stored = self.store.pin_org(&self.connection, org).await?;
        if stored.id == org.id {
            return Ok(());
        }
        let what = format!(
            "connection {} belongs to org {} ({}), and this is org {} ({})",
            self.connection, stored.id, stored.url, org.id, org.url
        );
        Err(Fault::new(FaultKind::Credentials, what)
            .remedy("sign in to the first one; another org needs a connection with another id"))
    }

    /// The refresh token.
    ///
    /// # Errors
    /// `Credentials` if there is none, if the CRM refused this one before, or if its key is not here.
    pub async fn grant(&self) -> Result<Grant, Fault> {
        let stored = self.store.credential(&self.connection).await?;
        let revision = stored.revision;
        let known = self.refused().clone();
        if let Some((refused, said)) = known
            && refused == revision
        {
            return Err(self.again(Fault::new(said.kind, said.what)));
        }
        let Some(sealed) = stored.sealed else {
            let what = format!("connection {} is not authorised", self.connection);
            return Err(self.again(Fault::new(FaultKind::Credentials, what)));
        };
        let keys = self.keys()?;
        let refresh_token = keys.open(&self.connection, &sealed)?;
        if !keys.is_newest(&sealed) {
            let again = keys.seal(&self.connection, &refresh_token)?;
            if self
                .store
                .replace(&self.connection, revision, Some(again))
                .await?
            {
                tracing::info!(connection = %self.connection, "stored authorisation sealed with the new key");
                return Ok(Grant {
                    refresh_token,
                    revision: revision + 1,
                });
            }
        }
        Ok(Grant {
            refresh_token,
            revision,
        })
    }

    /// Has `ask` spend the refresh token, one at a time. Its successor, if the CRM gave one, is kept before anybody uses
    /// what came with it, even if who waits for this leaves.
    ///
    /// # Errors
    /// As [`Vault::grant`], the refusal's fault, or as the store says.
    pub async fn spend<T, A>(
        self: &Arc<Self>,
        ask: impl FnOnce(Secret) -> A + Send + 'static,
    ) -> Result<T, Fault>
    where
        T: Send + 'static,
        A: Future<Output = Result<(T, Option<Secret>), Refusal>> + Send,
    {
        let vault = Arc::clone(self);
        let spent = tokio::spawn(async move {
            let _alone = vault.spending.lock().await;
            let grant = vault.grant().await?;
            let asked = ask(grant.refresh_token.clone()).await;
            let (gained, successor) = asked.map_err(|refused| {
                if refused.is_final {
                    vault.refuse(&grant, &refused.fault);
                }
                refused.fault
            })?;
            if let Some(successor) = successor
                && successor != grant.refresh_token
                && !vault.renew(&grant, &successor).await?
            {
                tracing::info!(connection = %vault.connection, "authorised anew during a refresh");
            }
            Ok(gained)
        });
        spent.await.map_err(|error| {
            Fault::new(FaultKind::Stopping, "the refresh was cut off").source(error)
        })?
    }

    /// Keeps the successor of a refresh token, before it is used. Whether it was still the newest one.
    ///
    /// # Errors
    /// As the store says, after some patience with what passes: the old token may be dead.
    pub async fn renew(&self, old: &Grant, refresh_token: &Secret) -> Result<bool, Fault> {
        let sealed = self.keys()?.seal(&self.connection, refresh_token)?;
        let mut waits = WAITS.into_iter();
        loop {
            let sealed = Some(sealed.clone());
            let stored = self
                .store
                .replace(&self.connection, old.revision, sealed)
                .await;
            match (stored, waits.next()) {
                (Err(fault), Some(wait)) if fault.fate() == Fate::Retry => {
                    tracing::warn!(connection = %self.connection, error = %fault, "refresh token could not be kept yet");
                    tokio::time::sleep(wait).await;
                }
                (stored, _) => return stored,
            }
        }
    }

    /// Keeps the refresh token of a new authorisation, whatever was there.
    ///
    /// # Errors
    /// As the store says.
    pub async fn authorise(&self, refresh_token: &Secret) -> Result<(), Fault> {
        let sealed = self.keys()?.seal(&self.connection, refresh_token)?;
        loop {
            let Credential { revision, .. } = self.store.credential(&self.connection).await?;
            let sealed = Some(sealed.clone());
            if self
                .store
                .replace(&self.connection, revision, sealed)
                .await?
            {
                break;
            }
        }
        self.authorised.notify_one();
        Ok(())
    }

    /// Deletes the refresh token; what it was, if it could be read.
    ///
    /// # Errors
    /// As the store says.
    pub async fn forget(&self) -> Result<Option<Secret>, Fault> {
        loop {
            let stored = self.store.credential(&self.connection).await?;
            let Some(sealed) = stored.sealed else {
                return Ok(None);
            };
            if self
                .store
                .replace(&self.connection, stored.revision, None)
                .await?
            {
                let keys = self.keys.as_ref();
                return Ok(keys.and_then(|keys| keys.open(&self.connection, &sealed).ok()));
            }
        }
    }

    /// Notes that the CRM refused the token for good: nobody asks with it again.
    pub fn refuse(&self, grant: &Grant, fault: &Fault) {
        let said = Refused {
            kind: fault.kind(),
            what: fault.to_string(),
        };
        *self.refused() = Some((grant.revision, said));
    }

    /// Resolves when a new authorisation came.
    pub async fn authorised(&self) {
        self.authorised.notified().await;
    }

    /// Whether tokens can be kept.
    ///
    /// # Errors
    /// `Config` without a key.
    pub fn keys(&self) -> Result<&Keyring, Fault> {
        self.keys.as_deref().ok_or_else(|| {
            let what = format!(
                "the authorisation of connection {} can't be kept: `[state]` has no `key`",
                self.connection
            );
            Fault::new(FaultKind::Config, what).remedy(
                "set `[state] key = { env = \"…\" }` to the output of `openssl rand -base64 32`",
            )
        })
    }

    fn again(&self, fault: Fault) -> Fault {
        fault.remedy(format!(
            "authorise it: `tributary auth {}`",
            self.connection
        ))
    }

    fn refused(&self) -> MutexGuard<'_, Option<(u64, Refused)>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;

    fn keys(newest: u8, old: &[u8]) -> Arc<Keyring> {
        let key = |byte: &u8| Secret::new(STANDARD.encode([*byte; 32]));
        let old: Vec<Secret> = old.iter().map(key).collect();
        Arc::new(Keyring::new(&key(&newest), &old).unwrap())
    }

    fn vault(store: &Arc<MemoryState>, keys: Arc<Keyring>) -> Vault {
        Vault::new("acme".into(), Arc::clone(store) as _, Some(keys))
    }

    #[tokio::test]
    async fn another_org_is_refused_and_the_first_one_stays() {
        let vault = Vault::in_memory("acme".into());
        let org = |id: &str| PinnedOrg {
            id: id.to_owned(),
            url: "https://x".to_owned(),
        };
        vault.pin(&org("00D1")).await.unwrap();
        let fault = vault.pin(&org("00D2")).await.unwrap_err();
        assert_eq!(fault.kind(), FaultKind::Credentials);
        assert!(fault.report().contains("00D1") && fault.report().contains("00D2"));
        vault.pin(&org("00D1")).await.unwrap();
    }

    #[tokio::test]
    async fn a_refused_token_is_not_asked_with_again_until_another_comes() {
        let vault = vault(&Arc::default(), keys(1, &[]));
        assert_eq!(
            vault.grant().await.unwrap_err().kind(),
            FaultKind::Credentials
        );
        vault.authorise(&Secret::new("first")).await.unwrap();
        let grant = vault.grant().await.unwrap();
        vault.refuse(&grant, &Fault::new(FaultKind::Credentials, "expired"));
        let fault = vault.grant().await.unwrap_err();
        assert!(
            fault.report().contains("expired") && fault.report().contains("tributary auth acme")
        );
        vault.authorise(&Secret::new("second")).await.unwrap();
        assert_eq!(
            vault.grant().await.unwrap().refresh_token.expose(),
            "second"
        );
    }

    #[tokio::test]
    async fn a_late_refresh_does_not_undo_an_authorisation() {
        let vault = vault(&Arc::default(), keys(1, &[]));
        vault.authorise(&Secret::new("first")).await.unwrap();
        let old = vault.grant().await.unwrap();
        vault.authorise(&Secret::new("by a person")).await.unwrap();
        assert!(!vault.renew(&old, &Secret::new("late")).await.unwrap());
        assert_eq!(
            vault.grant().await.unwrap().refresh_token.expose(),
            "by a person"
        );
        assert_eq!(
            vault.forget().await.unwrap().unwrap().expose(),
            "by a person"
        );
        assert!(vault.grant().await.is_err() && vault.forget().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_rotated_key_seals_anew_at_the_next_reading() {
        let store = Arc::new(MemoryState::default());
        vault(&store, keys(1, &[]))
            .authorise(&Secret::new("token"))
            .await
            .unwrap();
        let rotated = vault(&store, keys(2, &[1]));
        assert_eq!(
            rotated.grant().await.unwrap().refresh_token.expose(),
            "token"
        );
        // The old key may go now.
        let grant = vault(&store, keys(2, &[])).grant().await.unwrap();
        assert_eq!(grant.refresh_token.expose(), "token");
        assert!(vault(&store, keys(1, &[])).grant().await.is_err());
    }
}

//! Authorisation by a person: what a CRM does with the link and the code (OAuth 2.0, RFC 6749 section 4.1, with the
//! proof key of RFC 7636), and which links wait for their answer.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::fault::{Fault, FaultKind};
use crate::model::name::ConnectionId;
use crate::secret::Secret;

use super::OrgIdentity;

/// A CRM that a person can authorise.
#[async_trait]
pub trait Consent: Send + Sync {
    /// The page on which the person signs in and agrees.
    ///
    /// # Errors
    /// `Config` where tokens can't be kept; else as finding the page says.
    async fn link(&self, asked: &Asked) -> Result<String, Fault>;

    /// Takes the code for a refresh token, proves which org it is for, and keeps it. What was kept before stays if
    /// anything goes wrong.
    ///
    /// # Errors
    /// `Credentials` for a refused code, a token without refresh, or another org's.
    async fn redeem(&self, code: &Secret, asked: &Asked) -> Result<OrgIdentity, Fault>;

    /// Deletes the refresh token here, and ends it at the CRM where that is possible.
    ///
    /// # Errors
    /// As the store says; that the CRM could not be told is no error.
    async fn disconnect(&self) -> Result<Disconnected, Fault>;
}

/// What became of an authorisation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disconnected {
    /// Whether there was a token.
    pub had_token: bool,
    /// Whether the CRM ended it.
    pub revoked: bool,
    /// What a person has to do.
    pub remains: String,
}

/// One question to a person.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Comes back with the answer and says which question it belongs to.
    pub state: Secret,
    /// Proves that who redeems the code is who asked.
    verifier: Secret,
    /// Where the CRM sends the person afterwards.
    pub redirect: String,
}

impl Asked {
    /// The call that redeems the code, with its proof, before what a CRM adds to it (RFC 6749 4.1.3, RFC 7636 4.5).
    #[must_use]
    pub fn redeeming(&self, code: &Secret) -> Vec<(&'static str, String)> {
        vec![
            ("grant_type", "authorization_code".to_owned()),
            ("code", code.expose().to_owned()),
            ("redirect_uri", self.redirect.clone()),
            ("code_verifier", self.verifier.expose().to_owned()),
        ]
    }

    /// What the link shows of the proof: `base64url(SHA-256(verifier))`.
    #[must_use]
    pub fn challenge(&self) -> String {
        let digest = digest::digest(&digest::SHA256, self.verifier.expose().as_bytes());
        URL_SAFE_NO_PAD.encode(digest)
    }
}

/// How long a link waits for its answer.
const PATIENCE: Duration = Duration::from_mins(10);
/// So many links wait at most; the oldest goes first.
const MOST: usize = 32;

/// Links that wait for their answer, in this process only.
#[derive(Default)]
pub struct Waiting(Mutex<Vec<Entry>>);

struct Entry {
    connection: ConnectionId,
    asked: Asked,
    until: Instant,
}

impl Waiting {
    /// A question about `connection` that waits for ten minutes.
    ///
    /// # Errors
    /// `Corrupt` if the machine's randomness fails.
    pub fn ask(&self, connection: &ConnectionId, redirect: &str) -> Result<Asked, Fault> {
        let asked = Asked {
            state: random()?,
            verifier: random()?,
            redirect: redirect.to_owned(),
        };
        let now = Instant::now();
        let mut entries = self.lock();
        entries.retain(|entry| entry.until > now);
        if entries.len() >= MOST {
            entries.remove(0);
        }
        entries.push(Entry {
            connection: connection.clone(),
            asked: asked.clone(),
            until: now + PATIENCE,
        });
        Ok(asked)
    }

    /// The question that `state` answers; each is answered once.
    ///
    /// # Errors
    /// `Credentials` for a state that was never given, was used, or is over.
    pub fn answered(&self, state: &str) -> Result<(ConnectionId, Asked), Fault> {
        let now = Instant::now();
        let mut entries = self.lock();
        entries.retain(|entry| entry.until > now);
        // Every entry is compared, each in constant time.
        let mut found = None;
        for (at, entry) in entries.iter().enumerate() {
            if entry.asked.state.matches(state) {
                found = Some(at);
            }
        }
        let Some(at) = found else {
            let what = "this answer belongs to no link that waits: it was used, is older than ten minutes, or is not ours";
            return Err(Fault::new(FaultKind::Credentials, what)
                .remedy("ask for a new link: `tributary auth CONNECTION`"));
        };
        let entry = entries.remove(at);
        Ok((entry.connection, entry.asked))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// 256 random bits, in letters that a URL takes.
fn random() -> Result<Secret, Fault> {
    let mut bytes = [0_u8; 32];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| Fault::new(FaultKind::Corrupt, "this machine gives no random numbers"))?;
    Ok(Secret::new(URL_SAFE_NO_PAD.encode(bytes)))
}

/// Everything that asks people: the links that wait, and the connections that can be authorised.
#[derive(Default)]
pub struct Desk {
    waiting: Waiting,
    crms: BTreeMap<ConnectionId, Arc<dyn Consent>>,
    /// How each connection's newest link ended.
    ended: Mutex<BTreeMap<ConnectionId, Ended>>,
}

/// How a link ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Ended {
    /// Nobody answered yet.
    Waiting,
    /// The connection is authorised.
    Authorised {
        /// The org.
        org: String,
        /// The user that it acts for.
        user: String,
    },
    /// It is not.
    Refused {
        /// Why, and what to do.
        error: String,
    },
}

/// An answer as it comes back in the address.
#[derive(Debug, Clone, Default)]
pub struct Callback {
    /// `state`.
    pub state: String,
    /// `code`.
    pub code: Option<Secret>,
    /// `error` and `error_description`.
    pub error: Option<String>,
}

impl Desk {
    /// A desk for these connections.
    #[must_use]
    pub fn new(crms: BTreeMap<ConnectionId, Arc<dyn Consent>>) -> Self {
        Self {
            crms,
            ..Self::default()
        }
    }

    /// A link for a person; the address it comes back to is `redirect`.
    ///
    /// # Errors
    /// `Missing` for a connection that needs no person; else as [`Consent::link`].
    pub async fn link(&self, connection: &ConnectionId, redirect: &str) -> Result<String, Fault> {
        let crm = self.crm(connection)?;
        let asked = self.waiting.ask(connection, redirect)?;
        let link = crm.link(&asked).await?;
        self.end(connection, Ended::Waiting);
        Ok(link)
    }

    /// Takes what came back.
    ///
    /// # Errors
    /// `Credentials` for a state that waits for nothing, a person who said no, or as [`Consent::redeem`].
    pub async fn callback(&self, back: Callback) -> Result<(ConnectionId, OrgIdentity), Fault> {
        let (connection, asked) = self.waiting.answered(&back.state)?;
        let outcome = self.redeem(&connection, &asked, back).await;
        self.end(
            &connection,
            match &outcome {
                Ok(org) => Ended::Authorised {
                    org: org.org_id.clone(),
                    user: org.user_id.clone(),
                },
                Err(fault) => Ended::Refused {
                    error: fault.report(),
                },
            },
        );
        outcome.map(|org| (connection, org))
    }

    async fn redeem(
        &self,
        connection: &ConnectionId,
        asked: &Asked,
        back: Callback,
    ) -> Result<OrgIdentity, Fault> {
        let Some(code) = back.code.filter(|_| back.error.is_none()) else {
            let said = back
                .error
                .unwrap_or_else(|| "there is no code in the answer".to_owned());
            let what = format!("connection {connection} was not authorised: {said}");
            return Err(Fault::new(FaultKind::Credentials, what)
                .remedy("ask again, and agree on the CRM's page"));
        };
        self.crm(connection)?.redeem(&code, asked).await
    }

    /// How the newest link ended.
    #[must_use]
    pub fn ended(&self, connection: &ConnectionId) -> Option<Ended> {
        self.endings().get(connection).cloned()
    }

    /// Ends an authorisation.
    ///
    /// # Errors
    /// `Missing` for a connection that needs no person; else as [`Consent::disconnect`].
    pub async fn disconnect(&self, connection: &ConnectionId) -> Result<Disconnected, Fault> {
        self.crm(connection)?.disconnect().await
    }

    fn crm(&self, connection: &ConnectionId) -> Result<&Arc<dyn Consent>, Fault> {
        self.crms.get(connection).ok_or_else(|| {
            let what = format!("no connection {connection} that a person authorises");
            Fault::new(FaultKind::Missing, what)
                .remedy("its `auth` needs flow = \"authorization_code\"")
        })
    }

    fn end(&self, connection: &ConnectionId, ended: Ended) {
        self.endings().insert(connection.clone(), ended);
    }

    fn endings(&self) -> MutexGuard<'_, BTreeMap<ConnectionId, Ended>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_challenge_is_that_of_the_standard() {
        // RFC 7636, appendix B.
        let asked = Asked {
            state: Secret::new("s"),
            verifier: Secret::new("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"),
            redirect: String::new(),
        };
        assert_eq!(
            asked.challenge(),
            "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_state_is_taken_once_by_its_own_question_and_not_for_ever() {
        let waiting = Waiting::default();
        let (acme, beta) = (ConnectionId::new("acme"), ConnectionId::new("beta"));
        let one = waiting.ask(&acme, "http://a").unwrap();
        let other = waiting.ask(&beta, "http://b").unwrap();
        assert_ne!(one.state, other.state);
        assert!(waiting.answered("").is_err() && waiting.answered("x").is_err());
        let (found, asked) = waiting.answered(other.state.expose()).unwrap();
        assert_eq!((found, asked.redirect.as_str()), (beta, "http://b"));
        assert_eq!(asked.verifier, other.verifier);
        assert!(
            waiting.answered(other.state.expose()).is_err(),
            "used twice"
        );
        tokio::time::advance(PATIENCE).await;
        assert!(waiting.answered(one.state.expose()).is_err(), "used late");
    }

    #[test]
    fn links_are_bounded() {
        let waiting = Waiting::default();
        let first = waiting.ask(&"acme".into(), "x").unwrap();
        let mut last = first.clone();
        for _ in 0..MOST {
            last = waiting.ask(&"acme".into(), "x").unwrap();
        }
        assert!(waiting.answered(first.state.expose()).is_err());
        assert!(waiting.answered(last.state.expose()).is_ok());
    }
}

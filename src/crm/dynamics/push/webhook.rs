//! The webhook's receiving end: who calls is proven first, then the hint is made durable, then the call is answered.

use std::fmt;

use crate::crm::dynamics::settings::SecretSource;
use crate::fault::{Fault, FaultKind};

use super::hint::{Refusal, parse};
use super::inbox::Inbox;

/// The largest body that is read. The environment leaves members out of a payload of more than 256 KB
/// (<https://learn.microsoft.com/power-apps/developer/data-platform/use-webhooks>).
pub const MAX_BODY: usize = 272 * 1024;
/// The query of a `WebhookKey`.
const CODE: &str = "code";

/// Where a call carries the secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// `WebhookKey`: the query `code`.
    Key,
    /// `HttpHeader`: a header, its name in lower case.
    Header(String),
    /// `HttpQueryString`: a query.
    Query(String),
}

/// Receives the calls of one connection's webhook. There is no signature: whoever knows the secret may call, and does
/// no more harm than a read too much.
pub struct Receiver {
    inbox: Inbox,
    proof: Proof,
    secret: SecretSource,
}

/// A call, its body aside.
#[derive(Debug, Default)]
pub struct Call<'a> {
    /// Its query, decoded.
    pub query: &'a [(String, String)],
    /// The header that [`Receiver::header`] names.
    pub header: Option<&'a str>,
    /// `Content-Length`, if it says one.
    pub length: Option<u64>,
}

/// Why a call is refused.
#[derive(Debug)]
pub enum Refused {
    /// It does not carry the secret.
    Unproven,
    /// Its body is larger than [`MAX_BODY`].
    TooLarge,
    /// Its body is no hint.
    NoHint(Fault),
    /// It could not be made durable, or the secret could not be read; it may come again.
    NotNow(Fault),
}

impl Receiver {
    /// Receives for `inbox`; the secret is read anew for each call.
    #[must_use]
    pub const fn new(inbox: Inbox, proof: Proof, secret: SecretSource) -> Self {
        Self {
            inbox,
            proof,
            secret,
        }
    }

    /// The header that carries the secret, if one does.
    #[must_use]
    pub fn header(&self) -> Option<&str> {
        match &self.proof {
            Proof::Header(name) => Some(name),
            Proof::Key | Proof::Query(_) => None,
        }
    }

    /// Whether the body of a call is worth reading.
    ///
    /// # Errors
    /// [`Refused`], counted.
    pub fn admit(&self, call: &Call<'_>) -> Result<(), Refused> {
        let secret = (self.secret)().map_err(|fault| self.not_now(fault))?;
        let query = |name: &str| {
            let pair = call.query.iter().find(|(key, _)| key == name);
            pair.map(|(_, value)| value.as_str())
        };
        let given = match &self.proof {
            Proof::Key => query(CODE),
            Proof::Query(name) => query(name),
            Proof::Header(_) => call.header,
        };
        if !given.is_some_and(|given| secret.matches(given)) {
            self.inbox.count("unproven", 1);
            return Err(Refused::Unproven);
        }
        if call.length.is_some_and(|length| length > MAX_BODY as u64) {
            return Err(self.too_large());
        }
        Ok(())
    }

    /// A body turned out larger than it may be.
    #[must_use]
    pub fn too_large(&self) -> Refused {
        self.inbox.count("too_large", 1);
        Refused::TooLarge
    }

    /// Takes an admitted call's body. `Ok`: the hint is durable, answer 2xx.
    ///
    /// # Errors
    /// [`Refused`], counted.
    pub async fn take(
        &self,
        content_type: Option<&str>,
        body: &[u8],
        is_cut: bool,
    ) -> Result<(), Refused> {
        let hint = parse(content_type, body, is_cut).map_err(|refusal| self.no_hint(refusal))?;
        tracing::debug!(
            connection = %self.inbox.connection(), object = %hint.table, record = %hint.record,
            told = hint.message, correlation = hint.correlation, cut = hint.is_cut, "a change was pushed"
        );
        let noted = self.inbox.enqueue(&[hint]).await;
        noted.map_err(|fault| self.not_now(fault))
    }

    fn no_hint(&self, refusal: Refusal) -> Refused {
        self.inbox.refused(&refusal);
        let fault = Fault::from(refusal);
        tracing::warn!(connection = %self.inbox.connection(), error = %fault, "a webhook call was refused");
        Refused::NoHint(fault)
    }

    fn not_now(&self, fault: Fault) -> Refused {
        self.inbox.count("not_now", 1);
        tracing::error!(
            connection = %self.inbox.connection(), error = fault.report(), "a webhook call could not be taken"
        );
        Refused::NotNow(fault)
    }
}

impl Refused {
    /// The answer's status, and what the caller is told: nothing of what is inside.
    #[must_use]
    pub fn answer(&self) -> (u16, String) {
        match self {
            Self::Unproven => (
                401,
                "this call does not carry the webhook's secret".to_owned(),
            ),
            Self::TooLarge => (413, format!("a body may have {MAX_BODY} bytes")),
            Self::NoHint(fault) => (400, fault.report()),
            Self::NotNow(fault) if fault.kind() == FaultKind::Stopping => {
                (503, "the daemon is stopping".to_owned())
            }
            Self::NotNow(_) => (503, "the hint could not be stored; see the log".to_owned()),
        }
    }
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver")
            .field("connection", self.inbox.connection())
            .field("proof", &self.proof)
            .finish_non_exhaustive()
    }
}

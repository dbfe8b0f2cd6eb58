//! The port of carriers: whoever takes one notice to one address.
//!
//! Contract for every engine:
//! * A call delivers once or tells a fault; whoever calls again after a fault may deliver twice, by the same id.
//! * A call ends within [`PATIENCE`]. It may be dropped at any await: the notice may be delivered then, or not.
//! * Neither answers nor faults hold a secret: no password, no webhook's URL.

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::notice::Notice;
use crate::fault::Fault;

/// The longest that a call may take.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// Where a notice goes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Address {
    /// An e-mail address.
    Mail(String),
    /// The webhook of a name of `[notify]`; its URL is looked up when it is called.
    Webhook(String),
}

/// Takes notices to addresses.
#[async_trait]
pub trait Carrier: Send + Sync {
    /// Delivers a notice; what the receiver answered. `id` names it for receivers that drop what comes twice.
    ///
    /// # Errors
    /// `Missing` for an address that the config no longer has, `Config` for one that can't be used, else as the receiver says.
    async fn carry(&self, to: &Address, id: &str, notice: &Notice) -> Result<String, Fault>;
}

impl Address {
    /// Its label in metrics.
    #[must_use]
    pub const fn channel(&self) -> &'static str {
        match self {
            Self::Mail(_) => "mail",
            Self::Webhook(_) => "webhook",
        }
    }

    /// As logs and letters name it.
    #[must_use]
    pub fn shown(&self) -> String {
        match self {
            Self::Mail(address) => address.clone(),
            Self::Webhook(name) => format!("webhook of {name}"),
        }
    }
}

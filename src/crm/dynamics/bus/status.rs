//! What the bus says of itself.

use std::sync::Arc;

use crate::fault::{Fate, Fault};

/// Hears each change of state, and each message that was refused.
pub type Told = Arc<dyn Fn(&BusState) + Send + Sync>;

/// How it stands with the queue.
#[derive(Debug)]
pub enum BusState {
    /// On the way to the queue.
    Connecting,
    /// Messages are taken.
    Connected,
    /// Messages are taken, and one of them was no hint: it is among the dead letters.
    Unreadable(Fault),
    /// A passing fault; tried again with backoff.
    Retrying(Fault),
    /// A fault that does not pass by itself: the key, the queue, a right.
    Refused(Fault),
    /// Ended by the stop.
    Stopped,
}

impl BusState {
    /// The state that a fault leads to.
    #[must_use]
    pub fn of(fault: Fault) -> Self {
        match fault.fate() {
            Fate::Retry => Self::Retrying(fault),
            Fate::Stop | Fate::Ask | Fate::DeadLetter => Self::Refused(fault),
        }
    }

    /// Its name in health.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Connected | Self::Unreadable(_) => "connected",
            Self::Retrying(_) => "retrying",
            Self::Refused(_) => "refused",
            Self::Stopped => "stopped",
        }
    }

    /// What is wrong.
    #[must_use]
    pub const fn fault(&self) -> Option<&Fault> {
        match self {
            Self::Unreadable(fault) | Self::Retrying(fault) | Self::Refused(fault) => Some(fault),
            Self::Connecting | Self::Connected | Self::Stopped => None,
        }
    }
}

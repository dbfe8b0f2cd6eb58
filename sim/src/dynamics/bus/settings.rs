//! Ways in which namespaces differ, and what a script has them do.

use serde::{Deserialize, Serialize};

/// What may be set while the bus runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Settings {
    /// How long a delivered message is locked, on the organization's clock.
    pub lock_ms: u32,
    /// Deliveries after which a message is a dead letter.
    pub most_deliveries: u32,
    /// How long a connection may be silent, on the wall's clock.
    pub idle_ms: u32,
    /// How long a connection may be without a valid token, on the organization's clock.
    pub token_ms: u32,
    /// So many new connections are closed at once.
    pub refuse_connections: u32,
    /// So many settlements are passed over: the receiver believes they were heard, and the message comes again.
    pub lose_settlements: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            lock_ms: 60_000,
            most_deliveries: 10,
            idle_ms: 240_000,
            token_ms: 20_000,
            refuse_connections: 0,
            lose_settlements: 0,
        }
    }
}

/// What a script has every connection do.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Order {
    /// The sockets end without a word.
    Drop {},
    /// The connections are closed with an error.
    Close {
        condition: String,
        #[serde(default)]
        description: String,
    },
    /// Links to queues are detached with an error.
    Detach {
        condition: String,
        #[serde(default)]
        description: String,
    },
    /// Nothing is read or written any more, and the sockets stay open.
    Freeze {},
}

//! What listening to a service bus needs to know.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::crm::dynamics::settings::SecretSource;
use crate::model::name::ConnectionId;
use crate::runtime::backoff::Backoff;

/// Settings of a connection's queue.
#[derive(Clone)]
pub struct BusSettings {
    /// The connection that the messages are about.
    pub connection: ConnectionId,
    /// The namespace's host, `contoso.servicebus.windows.net`.
    pub host: String,
    /// The port; by default that of the transport.
    pub port: Option<u16>,
    /// Whether TLS is spoken. Only tests go without.
    pub encrypted: bool,
    /// How AMQP is carried.
    pub transport: Transport,
    /// The queue, or `topic/Subscriptions/name`.
    pub queue: String,
    /// The shared access policy's name.
    pub key_name: String,
    /// The policy's key; read anew for each token.
    pub key: SecretSource,
    /// Authorities to trust beside the system's (PEM).
    pub ca_file: Option<PathBuf>,
    /// The most messages that may be under way or not settled.
    pub credit: u32,
    /// How long a token holds; a new one is brought at three quarters of it.
    pub token_life: Duration,
    /// The longest that the peer may be silent.
    pub idle: Duration,
    /// The longest wait for a connection, and for each answer.
    pub call_timeout: Duration,
    /// The waits between attempts to connect.
    pub backoff: Backoff,
    /// Spreads the waits of several daemons.
    pub seed: u64,
    /// The wait after a refusal that does not pass by itself.
    pub refused_wait: Duration,
}

/// How AMQP is carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Over WebSocket, port 443: passes where only HTTPS does.
    WebSocket,
    /// Over TCP, port 5671.
    Tcp,
}

impl BusSettings {
    /// Settings with the defaults of a namespace in production.
    pub fn new(
        connection: ConnectionId,
        host: impl Into<String>,
        queue: impl Into<String>,
        key_name: impl Into<String>,
        key: SecretSource,
    ) -> Self {
        Self {
            connection,
            host: host.into(),
            port: None,
            encrypted: true,
            transport: Transport::WebSocket,
            queue: queue.into(),
            key_name: key_name.into(),
            key,
            ca_file: None,
            credit: 100,
            token_life: Duration::from_hours(1),
            idle: Duration::from_mins(1),
            call_timeout: Duration::from_secs(20),
            backoff: Backoff::default(),
            seed: 0,
            refused_wait: Duration::from_mins(5),
        }
    }

    /// The port that is connected to.
    #[must_use]
    pub fn port(&self) -> u16 {
        let default = match (self.transport, self.encrypted) {
            (Transport::WebSocket, true) => 443,
            (Transport::WebSocket, false) => 80,
            (Transport::Tcp, true) => 5671,
            (Transport::Tcp, false) => 5672,
        };
        self.port.unwrap_or(default)
    }

    /// What tokens are for.
    #[must_use]
    pub fn audience(&self) -> String {
        format!("sb://{}/{}", self.host, self.queue)
    }
}

impl fmt::Debug for BusSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BusSettings")
            .field("connection", &self.connection)
            .field("host", &self.host)
            .field("port", &self.port())
            .field("transport", &self.transport)
            .field("queue", &self.queue)
            .field("key_name", &self.key_name)
            .finish_non_exhaustive()
    }
}

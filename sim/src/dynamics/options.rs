//! What a simulated organization is started with.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

/// A simulated Dynamics 365 organization: address, credentials, data.
#[derive(Debug, Clone, Args)]
pub struct SimOptions {
    /// Where to listen; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDR")]
    pub listen: SocketAddr,
    /// Load every `<table>.csv` of this directory; a `<table>.json` beside it names types.
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// The directory (tenant) id.
    #[arg(
        long,
        default_value = "7e0a0000-0000-4000-8000-000000000001",
        env = "TRIBUTARY_SIM_TENANT_ID"
    )]
    pub tenant_id: String,
    /// The application (client) id.
    #[arg(
        long,
        default_value = "c11e0000-0000-4000-8000-000000000001",
        env = "TRIBUTARY_SIM_CLIENT_ID"
    )]
    pub client_id: String,
    /// The client secret.
    #[arg(
        long,
        default_value = "simulated-secret",
        env = "TRIBUTARY_SIM_CLIENT_SECRET",
        hide_env_values = true
    )]
    pub client_secret: String,
    /// A PEM certificate or RSA public key that client assertions are verified by.
    #[arg(long, value_name = "FILE")]
    pub client_certificate: Option<PathBuf>,
    /// The application is a public client: it sends no secret.
    #[arg(long)]
    pub public_client: bool,
    /// A redirect URI of the application; any is taken if none is given.
    #[arg(long, value_name = "URL")]
    pub redirect_uri: Vec<String>,
    /// A refresh token that is there from the start, of the user who signs in.
    #[arg(
        long,
        value_name = "TOKEN",
        env = "TRIBUTARY_SIM_REFRESH_TOKEN",
        hide_env_values = true
    )]
    pub refresh_token: Option<String>,
    /// Start without the application user that client credentials need.
    #[arg(long)]
    pub no_application_user: bool,
    /// The same seed gives the same ids.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// The base URL told to clients, if it is not the address listened on.
    #[arg(long, value_name = "URL")]
    pub public_url: Option<String>,
    /// A PEM certificate chain: serve TLS.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// The PEM private key of the certificate.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Where a service bus is to listen for AMQP and AMQP over WebSocket, with TLS if there is a certificate.
    #[arg(long, value_name = "ADDR")]
    pub amqp_listen: Option<SocketAddr>,
    /// A queue of the service bus (`topic/Subscriptions/name`: a topic's subscription).
    #[arg(long, value_name = "NAME", default_value = "changes")]
    pub bus_queue: Vec<String>,
    /// The key of the service bus's policies RootManageSharedAccessKey, listen and send.
    #[arg(
        long,
        default_value = "c2ltdWxhdGVkLWtleQ==",
        env = "TRIBUTARY_SIM_BUS_KEY",
        hide_env_values = true
    )]
    pub bus_key: String,
    /// Keep every transaction in this file and start from it: the organization survives a restart with its row versions.
    #[arg(long, value_name = "FILE")]
    pub journal: Option<PathBuf>,
    /// Requests that a user may make in 300 seconds.
    #[arg(long, default_value_t = 6000, value_name = "REQUESTS")]
    pub request_limit: u64,
}

impl Default for SimOptions {
    /// What no flag at all gives.
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            data: None,
            tenant_id: "7e0a0000-0000-4000-8000-000000000001".to_owned(),
            client_id: "c11e0000-0000-4000-8000-000000000001".to_owned(),
            client_secret: "simulated-secret".to_owned(),
            client_certificate: None,
            public_client: false,
            redirect_uri: Vec::new(),
            refresh_token: None,
            no_application_user: false,
            seed: 1,
            public_url: None,
            tls_cert: None,
            tls_key: None,
            amqp_listen: None,
            bus_queue: vec!["changes".to_owned()],
            bus_key: "c2ltdWxhdGVkLWtleQ==".to_owned(),
            journal: None,
            request_limit: 6000,
        }
    }
}

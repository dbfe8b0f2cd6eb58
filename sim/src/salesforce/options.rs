//! What a simulated org is started with.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

/// A simulated Salesforce org: address, credentials, data.
#[derive(Debug, Clone, Args)]
pub struct SimOptions {
    /// Where to listen; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDR")]
    pub listen: SocketAddr,
    /// Where to serve the Pub/Sub API (gRPC); port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDR")]
    pub grpc_listen: SocketAddr,
    /// A PEM certificate chain for the gRPC address; without it, `--tls-cert`, and without both plain text.
    #[arg(long, value_name = "FILE", requires = "grpc_tls_key")]
    pub grpc_tls_cert: Option<PathBuf>,
    /// The PEM private key of the gRPC certificate.
    #[arg(long, value_name = "FILE", requires = "grpc_tls_cert")]
    pub grpc_tls_key: Option<PathBuf>,
    /// A gRPC stream without events has an empty answer within so long; 270 if not given.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub keepalive_seconds: Option<u64>,
    /// A poll of CometD without events is answered after so long; 110 if not given.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    pub poll_seconds: Option<u32>,
    /// The replay ids of the Pub/Sub API hide their numbers: arithmetic on them fails.
    #[arg(long)]
    pub opaque_replay_ids: bool,
    /// Load every `<Object>.csv` of this directory; a `<Object>.json` beside it names types.
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// The consumer key of the connected app.
    #[arg(
        long,
        default_value = "simulated-client",
        env = "TRIBUTARY_SIM_CLIENT_ID"
    )]
    pub client_id: String,
    /// The consumer secret of the connected app.
    #[arg(
        long,
        default_value = "simulated-secret",
        env = "TRIBUTARY_SIM_CLIENT_SECRET",
        hide_env_values = true
    )]
    pub client_secret: String,
    /// Who signs in; by default the first active user of the data.
    #[arg(long, value_name = "NAME")]
    pub user_name: Option<String>,
    /// The user's password (with its security token): allows the username-password flow.
    #[arg(long, env = "TRIBUTARY_SIM_PASSWORD", hide_env_values = true)]
    pub password: Option<String>,
    /// The PEM public key of the app's certificate: allows the JWT bearer flow.
    #[arg(long, value_name = "FILE")]
    pub jwt_public_key: Option<PathBuf>,
    /// A refresh token that is good from the start.
    #[arg(long, env = "TRIBUTARY_SIM_REFRESH_TOKEN", hide_env_values = true)]
    pub refresh_token: Option<String>,
    /// Every refresh gives a new refresh token, and the old one is dead at once.
    #[arg(long)]
    pub rotate_refresh_tokens: bool,
    /// Whether users approve the app when they are asked to, or deny it.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL")]
    pub auto_approve: bool,
    /// The app's callback URL; by default any is taken.
    #[arg(long, value_name = "URL")]
    pub redirect_uri: Option<String>,
    /// The app lets web server and refresh flows go without its secret.
    #[arg(long)]
    pub secret_optional: bool,
    /// The same seed gives the same ids, replay strides and keys.
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
    /// The newest API version served.
    #[arg(long, default_value = "66.0", value_name = "VERSION")]
    pub api_version: String,
    /// The largest page of a query; a client may ask for less.
    #[arg(long, default_value_t = 2000)]
    pub page_size: usize,
    /// The largest page of a Bulk API job's results; a client may ask for less.
    #[arg(long, default_value_t = 50_000, value_name = "RECORDS")]
    pub bulk_page_size: usize,
    /// Objects selected for change data capture; by default every loaded one.
    #[arg(long, value_name = "OBJECT,…", value_delimiter = ',')]
    pub capture: Option<Vec<String>>,
    /// Entities that may be selected for change data capture by the Tooling API; 5 in an org without the add-on.
    #[arg(long, value_name = "ENTITIES")]
    pub capture_limit: Option<usize>,
    /// Keep every transaction in this file and start from it: the org survives a restart with its replay ids.
    #[arg(long, value_name = "FILE")]
    pub journal: Option<PathBuf>,
    /// Reads by REST see the org as it was so long ago.
    #[arg(long, default_value_t = 0, value_name = "MS")]
    pub read_lag_ms: u64,
    /// API calls allowed in 24 hours.
    #[arg(long, default_value_t = 100_000, value_name = "CALLS")]
    pub api_limit: u64,
    /// Change events delivered in 24 hours, to all clients together.
    #[arg(long, default_value_t = 25_000, value_name = "EVENTS")]
    pub event_limit: usize,
}

impl Default for SimOptions {
    /// What no flag at all gives.
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            grpc_listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            grpc_tls_cert: None,
            grpc_tls_key: None,
            keepalive_seconds: None,
            poll_seconds: None,
            opaque_replay_ids: false,
            data: None,
            client_id: "simulated-client".to_owned(),
            client_secret: "simulated-secret".to_owned(),
            user_name: None,
            password: None,
            jwt_public_key: None,
            refresh_token: None,
            rotate_refresh_tokens: false,
            auto_approve: true,
            redirect_uri: None,
            secret_optional: false,
            seed: 1,
            public_url: None,
            tls_cert: None,
            tls_key: None,
            api_version: "66.0".to_owned(),
            page_size: 2000,
            bulk_page_size: 50_000,
            capture: None,
            capture_limit: None,
            journal: None,
            read_lag_ms: 0,
            api_limit: 100_000,
            event_limit: 25_000,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::{Args, Command, FromArgMatches};

    use super::*;

    #[test]
    fn no_flag_at_all_gives_the_defaults() {
        let command = SimOptions::augment_args(Command::new("salesforce"));
        command.clone().debug_assert();
        let matches = command.get_matches_from(["salesforce"]);
        let given = SimOptions::from_arg_matches(&matches).unwrap();
        let default = SimOptions::default();
        assert_eq!(format!("{given:?}"), format!("{default:?}"));
    }

    #[test]
    fn every_flag_is_listed() {
        let mut command = SimOptions::augment_args(Command::new("salesforce"));
        let help = command.render_long_help().to_string();
        for flag in [
            "--grpc-listen",
            "--grpc-tls-cert",
            "--grpc-tls-key",
            "--keepalive-seconds",
            "--poll-seconds",
            "--opaque-replay-ids",
            "--user-name",
            "--password",
            "--jwt-public-key",
            "--refresh-token",
            "--rotate-refresh-tokens",
            "--auto-approve",
            "--redirect-uri",
            "--secret-optional",
            "--public-url",
            "--bulk-page-size",
            "--capture-limit",
        ] {
            assert!(help.contains(flag), "{flag}");
        }
    }
}

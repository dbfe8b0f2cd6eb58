//! The org on the wire: binds, serves every surface, and stops.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum_server::Handle;
use axum_server::tls_rustls::RustlsConfig;
use rustls::ServerConfig;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::task::JoinHandle;

use super::options::SimOptions;
use super::org::{OpenError, Org};
use super::pubsub::{Served, serve};
use super::{cometd, control, data_control, faults, rest};

/// Why an org could not be served.
#[derive(Debug, thiserror::Error)]
pub enum SimError {
    #[error("listening on {address}")]
    Listen {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("reading the PEM file {path}")]
    Pem {
        path: PathBuf,
        #[source]
        source: pem::Error,
    },
    #[error("setting up TLS")]
    Tls(#[source] rustls::Error),
    #[error("serving")]
    Serve(#[source] io::Error),
    #[error("printing the ready line")]
    Ready(#[source] io::Error),
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// A served org.
#[derive(Debug)]
pub struct Running {
    /// The base URL for clients, without a slash at its end.
    pub url: String,
    pub address: SocketAddr,
    /// Where the Pub/Sub API is, with its scheme.
    pub pubsub_url: String,
    pub org: Arc<Org>,
    pubsub: Served,
    handle: Handle<SocketAddr>,
    task: JoinHandle<io::Result<()>>,
}

impl Running {
    /// Stops serving: open requests have a moment, held polls are cut.
    pub async fn stop(self) -> Result<(), SimError> {
        self.handle
            .graceful_shutdown(Some(Duration::from_millis(200)));
        let streams = self.pubsub.stop().await.map_err(SimError::Serve);
        joined(self.task.await).and(streams)
    }
}

/// Serves an org until SIGINT or SIGTERM; prints one JSON line when ready.
pub async fn run(options: SimOptions) -> Result<(), SimError> {
    let running = start(options).await?;
    let ready = serde_json::json!({
        "ready": true,
        "url": running.url,
        "address": running.address.to_string(),
        "pubsub_url": running.pubsub_url,
        "org_id": running.org.profile.org_id,
        "user_id": running.org.profile.run_as.id,
        "api_version": running.org.profile.api_version,
        "objects": running.org.captured(),
    });
    print_line(&ready.to_string()).map_err(SimError::Ready)?;
    stopped().await.map_err(SimError::Serve)?;
    running.stop().await
}

/// Serves an org from this process.
pub async fn start(options: SimOptions) -> Result<Running, SimError> {
    let org = Org::open(&options)?;
    let listener =
        std::net::TcpListener::bind(options.listen).map_err(|source| SimError::Listen {
            address: options.listen,
            source,
        })?;
    listener.set_nonblocking(true).map_err(SimError::Serve)?;
    let address = listener.local_addr().map_err(SimError::Serve)?;
    let tls = match (&options.tls_cert, &options.tls_key) {
        (Some(cert), Some(key)) => Some(https(cert, key)?),
        _ => None,
    };
    let pubsub = pubsub(&org, &options).await?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    let url = options.public_url.map_or_else(
        || format!("{scheme}://{address}"),
        |url| url.trim_end_matches('/').to_owned(),
    );
    org.listens_at(url.clone());

    let service = router(&org).into_make_service();
    let handle = Handle::new();
    let task = match tls {
        Some(tls) => {
            let server = axum_server::from_tcp_rustls(listener, tls).map_err(SimError::Serve)?;
            tokio::spawn(server.handle(handle.clone()).serve(service))
        }
        None => {
            let server = axum_server::from_tcp(listener).map_err(SimError::Serve)?;
            tokio::spawn(server.handle(handle.clone()).serve(service))
        }
    };
    Ok(Running {
        url,
        address,
        pubsub_url: pubsub.1,
        pubsub: pubsub.0,
        org,
        handle,
        task,
    })
}

/// Every surface of the org behind its faults, and the control API; all behind its date and its limits.
fn router(org: &Arc<Org>) -> Router {
    rest::router(org)
        .merge(cometd::router(org))
        .fallback(rest::not_found)
        .layer(from_fn_with_state(Arc::clone(org), faults::apply))
        .merge(data_control::router(org))
        .merge(control::router(org))
        .layer(from_fn_with_state(Arc::clone(org), rest::envelope))
}

/// The gRPC side, and its URL.
async fn pubsub(org: &Arc<Org>, options: &SimOptions) -> Result<(Served, String), SimError> {
    let own = options
        .grpc_tls_cert
        .as_ref()
        .zip(options.grpc_tls_key.as_ref());
    let same = options.tls_cert.as_ref().zip(options.tls_key.as_ref());
    let tls = match own.or(same) {
        Some((cert, key)) => Some(Arc::new(tls(cert, key, b"h2")?)),
        None => None,
    };
    let scheme = if tls.is_some() { "https" } else { "http" };
    let address = options.grpc_listen;
    let served = serve(org, address, tls)
        .await
        .map_err(|source| SimError::Listen { address, source })?;
    let url = format!("{scheme}://{}", served.address);
    Ok((served, url))
}

fn https(cert: &Path, key: &Path) -> Result<RustlsConfig, SimError> {
    tls(cert, key, b"http/1.1").map(|config| RustlsConfig::from_config(Arc::new(config)))
}

fn tls(cert: &Path, key: &Path, protocol: &[u8]) -> Result<ServerConfig, SimError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| SimError::Pem { path, source }
    };
    let chain = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(failed(cert))?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(failed(key))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(SimError::Tls)?;
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(config)
}

fn print_line(line: &str) -> io::Result<()> {
    use std::io::Write;
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

async fn stopped() -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

fn joined(ended: Result<io::Result<()>, tokio::task::JoinError>) -> Result<(), SimError> {
    match ended {
        Ok(served) => served.map_err(SimError::Serve),
        Err(crashed) => Err(SimError::Serve(io::Error::other(crashed))),
    }
}

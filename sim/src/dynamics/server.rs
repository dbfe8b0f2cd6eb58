//! The organization on the wire: binds, serves every surface, and stops.

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
use super::{bus, control, entra, faults, web};

/// Why an organization could not be served.
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

/// A served organization.
#[derive(Debug)]
pub struct Running {
    /// The base URL for clients, without a slash at its end.
    pub url: String,
    pub address: SocketAddr,
    pub org: Arc<Org>,
    /// Where the service bus listens.
    pub amqp: Option<SocketAddr>,
    bus: Option<bus::Served>,
    handle: Handle<SocketAddr>,
    task: JoinHandle<io::Result<()>>,
}

impl Running {
    /// Stops serving: open requests have a moment; webhooks that wait are not sent.
    pub async fn stop(self) -> Result<(), SimError> {
        self.org.webhooks.stop().await;
        self.handle
            .graceful_shutdown(Some(Duration::from_millis(200)));
        if let Some(bus) = self.bus {
            bus.stop().await;
        }
        joined(self.task.await)
    }
}

/// Serves an organization until SIGINT or SIGTERM; prints one JSON line when ready.
pub async fn run(options: SimOptions) -> Result<(), SimError> {
    let running = start(options).await?;
    let org = &running.org;
    let tables: Vec<_> = org
        .store()
        .tables()
        .map(|rows| rows.table.name.clone())
        .collect();
    let ready = serde_json::json!({
        "ready": true,
        "url": running.url,
        "address": running.address.to_string(),
        "tenant_id": org.entra.tenant,
        "organization_id": org.profile.organization,
        "user_id": org.profile.user,
        "token_url": format!("{}/{}/oauth2/v2.0/token", running.url, org.entra.tenant),
        "tables": tables,
        "amqp_address": running.amqp.map(|address| address.to_string()),
    });
    print_line(&ready.to_string()).map_err(SimError::Ready)?;
    stopped().await.map_err(SimError::Serve)?;
    running.stop().await
}

/// Serves an organization from this process.
#[allow(
    clippy::unused_async,
    reason = "what is served here runs on the caller's runtime"
)]
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
        (Some(cert), Some(key)) => Some(tls(cert, key)?),
        _ => None,
    };
    let scheme = if tls.is_some() { "https" } else { "http" };
    let url = options.public_url.map_or_else(
        || format!("{scheme}://{address}"),
        |url| url.trim_end_matches('/').to_owned(),
    );
    org.listens_at(url.clone());
    if let Some(token) = options.refresh_token {
        org.entra.adopt(token, &url, org.profile.user, &org);
    }

    let bus = match (&org.bus, options.amqp_listen) {
        (Some(bus), Some(address)) => {
            let tls = tls.as_ref().map(RustlsConfig::get_inner);
            let served = bus::serve(&org, bus, address, tls);
            Some(served.map_err(|source| SimError::Listen { address, source })?)
        }
        _ => None,
    };
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
        org,
        amqp: bus.as_ref().map(|bus| bus.address),
        bus,
        handle,
        task,
    })
}

/// Every surface behind its faults, and the control API beside them.
fn router(org: &Arc<Org>) -> Router {
    entra::router(org)
        .merge(web::router(org))
        .layer(from_fn_with_state(Arc::clone(org), faults::apply))
        .merge(control::router(org))
        .merge(match &org.bus {
            Some(bus) => bus::router(org, bus),
            None => control::outbox(org),
        })
}

fn tls(cert: &Path, key: &Path) -> Result<RustlsConfig, SimError> {
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
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(RustlsConfig::from_config(Arc::new(config)))
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

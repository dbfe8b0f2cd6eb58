//! Listens: one address for AMQP and for AMQP over WebSocket, with TLS if there is a certificate.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Bus, connection, socket};
use crate::dynamics::org::Org;

/// How long a client may take to say what it speaks.
const FIRST_WORD: Duration = Duration::from_secs(20);

/// A served bus.
#[derive(Debug)]
pub(crate) struct Served {
    pub address: SocketAddr,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Served {
    /// Ends every connection, and waits until they have ended.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Serves the organization's bus at an address.
pub(crate) fn serve(
    org: &Arc<Org>,
    bus: &Arc<Bus>,
    address: SocketAddr,
    tls: Option<Arc<ServerConfig>>,
) -> io::Result<Served> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let listener = TcpListener::from_std(listener)?;
    let served = Served {
        address,
        stop: CancellationToken::new(),
        tasks: TaskTracker::new(),
    };
    let (stop, tasks) = (served.stop.clone(), served.tasks.clone());
    let (org, bus) = (Arc::clone(org), Arc::clone(bus));
    let tls = tls.map(TlsAcceptor::from);
    served.tasks.spawn(async move {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stop.cancelled() => return,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "accepting a connection"
                    );
                    continue;
                }
            };
            if bus.refuses_connection() {
                continue;
            }
            let (org, bus, tls, stop) = (
                Arc::clone(&org),
                Arc::clone(&bus),
                tls.clone(),
                stop.clone(),
            );
            tasks.spawn(async move {
                tokio::select! {
                    ended = accepted_by(org, bus, stream, tls) => if let Err(error) = ended {
                        tracing::debug!(error, "a connection to the bus ended");
                    },
                    () = stop.cancelled() => {}
                }
            });
        }
    });
    Ok(served)
}

async fn accepted_by(
    org: Arc<Org>,
    bus: Arc<Bus>,
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
) -> Result<(), String> {
    // Frames are small and waited for.
    stream
        .set_nodelay(true)
        .map_err(|error| error.to_string())?;
    match tls {
        None => spoken(org, bus, stream).await,
        Some(tls) => {
            let stream = tls
                .accept(stream)
                .await
                .map_err(|error| error.to_string())?;
            spoken(org, bus, stream).await
        }
    }
}

/// Tells AMQP from HTTP by the first byte: an AMQP header begins with an A, a handshake is a GET.
async fn spoken<S>(org: Arc<Org>, bus: Arc<Bus>, stream: S) -> Result<(), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut stream = BufReader::new(stream);
    let first = tokio::time::timeout(FIRST_WORD, stream.fill_buf()).await;
    let first = first
        .map_err(|_| "nothing was said".to_owned())?
        .map_err(|error| error.to_string())?
        .first()
        .copied();
    let served = match first {
        Some(b'G') => {
            let stream = socket::accept(stream)
                .await
                .map_err(|error| error.to_string())?;
            connection::serve(org, bus, stream).await
        }
        Some(_) => connection::serve(org, bus, stream).await,
        None => return Ok(()),
    };
    served.map_err(|error| error.to_string())
}

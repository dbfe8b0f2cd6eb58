//! The gRPC address: accepts connections, over TLS or plain, and serves the org on them.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream;
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tonic::transport::Server;

use super::super::org::Org;
use super::eventbus::pub_sub_server::PubSubServer;
use super::service::Service;
use super::wire::Wire;

/// Streams of one connection at a time.
const MOST_STREAMS: u32 = 1000;
/// What open connections have to end by themselves.
const GRACE: Duration = Duration::from_millis(200);
/// Connections that have shaken hands and wait to be served.
const BACKLOG: usize = 16;

/// A served event bus.
#[derive(Debug)]
pub(crate) struct Served {
    pub address: SocketAddr,
    org: Arc<Org>,
    stop: oneshot::Sender<()>,
    accepting: JoinHandle<()>,
    serving: JoinHandle<Result<(), tonic::transport::Error>>,
}

/// Serves the org's event bus at an address.
pub(crate) async fn serve(
    org: &Arc<Org>,
    listen: SocketAddr,
    tls: Option<Arc<ServerConfig>>,
) -> io::Result<Served> {
    let listener = TcpListener::bind(listen).await?;
    let address = listener.local_addr()?;
    let (sender, receiver) = mpsc::channel(BACKLOG);
    let accepting = tokio::spawn(accept(
        listener,
        Arc::clone(org),
        tls.map(TlsAcceptor::from),
        sender,
    ));
    let (stop, stopped) = oneshot::channel();
    let service = PubSubServer::new(Service {
        org: Arc::clone(org),
    });
    let incoming = stream::unfold(receiver, |mut receiver| async {
        let wire: Wire = receiver.recv().await?;
        Some((Ok::<_, io::Error>(wire), receiver))
    });
    let serving = Server::builder()
        .max_concurrent_streams(MOST_STREAMS)
        .add_service(service)
        .serve_with_incoming_shutdown(incoming, async {
            // Also when the sender is dropped there is nothing left to serve for.
            drop(stopped.await);
        });
    Ok(Served {
        address,
        org: Arc::clone(org),
        stop,
        accepting,
        serving: tokio::spawn(serving),
    })
}

/// Takes connections; each shakes hands on its own, so that a slow one holds up nobody.
async fn accept(
    listener: TcpListener,
    org: Arc<Org>,
    tls: Option<TlsAcceptor>,
    sender: mpsc::Sender<Wire>,
) {
    loop {
        let socket = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => socket,
                Err(error) => {
                    tracing::warn!(%error, "accepting a gRPC connection failed");
                    tokio::task::yield_now().await;
                    continue;
                }
            },
            () = sender.closed() => return,
        };
        let (tls, sender, end) = (tls.clone(), sender.clone(), org.bus.connection());
        tokio::spawn(async move {
            // Answers are small and awaited: they leave at once.
            if socket.set_nodelay(true).is_err() {
                return;
            }
            let wire = match tls {
                None => Wire::new(socket, end),
                Some(tls) => match tls.accept(socket).await {
                    Ok(socket) => Wire::new(socket, end),
                    Err(error) => {
                        tracing::debug!(%error, "a TLS handshake failed");
                        return;
                    }
                },
            };
            // A server that has stopped takes no more connections.
            drop(sender.send(wire).await);
        });
    }
}

impl Served {
    /// Ends all streams and connections.
    pub async fn stop(mut self) -> io::Result<()> {
        self.accepting.abort();
        self.org.bus.dismiss();
        self.org.streaming.wake();
        if self.stop.send(()).is_err() {
            tracing::debug!("the gRPC server has ended by itself");
        }
        let in_time = tokio::time::timeout(GRACE, &mut self.serving).await;
        let ended = match in_time {
            Ok(ended) => ended,
            Err(_) => {
                self.org.bus.cut_connections();
                self.serving.await
            }
        };
        match ended {
            Ok(served) => served.map_err(io::Error::other),
            Err(crashed) => Err(io::Error::other(crashed)),
        }
    }
}

//! The socket under AMQP: TCP, TLS on it, WebSocket on that.

use std::fmt::Debug;
use std::io;

use fe2o3_amqp_ws::WebSocketStream;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::fault::{Fault, FaultKind};
use crate::tls::ClientTls;

use super::settings::{BusSettings, Transport};

/// Bytes to and from the bus.
pub(super) trait Socket: AsyncRead + AsyncWrite + Debug + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Debug + Send + Unpin> Socket for S {}

/// Connects.
///
/// # Errors
/// `Unavailable` if the host is not reached or the handshakes fail; `Config` for a certificate file that is none.
pub(super) async fn open(settings: &BusSettings) -> Result<Box<dyn Socket>, Fault> {
    let (host, port) = (settings.host.as_str(), settings.port());
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let tcp = TcpStream::connect((bare, port)).await;
    let tcp = tcp.map_err(|error| unreached(settings, "can't be reached").source(error))?;
    // Frames are small and waited for.
    tcp.set_nodelay(true)
        .map_err(|error| unreached(settings, "can't be reached").source(error))?;
    if !settings.encrypted {
        return carried(settings, "ws", tcp).await;
    }
    let tls = ClientTls::new(settings.ca_file.as_deref())?;
    let stream = tls.connect(bare, tcp).await.map_err(|error| {
        let fault = unreached(settings, "does not finish a TLS handshake");
        match is_certificate(&error) {
            true => fault.remedy("set `ca_file` to the authority that signed its certificate"),
            false => fault,
        }
        .source(error)
    })?;
    carried(settings, "wss", stream).await
}

async fn carried<S: Socket + 'static>(
    settings: &BusSettings,
    scheme: &str,
    stream: S,
) -> Result<Box<dyn Socket>, Fault> {
    if settings.transport == Transport::Tcp {
        return Ok(Box::new(stream));
    }
    let url = format!(
        "{scheme}://{}:{}/$servicebus/websocket",
        settings.host,
        settings.port()
    );
    let socket = WebSocketStream::connect_with_stream(url, stream).await;
    let socket = socket.map_err(|error| {
        unreached(
            settings,
            "does not open a WebSocket at `/$servicebus/websocket`",
        )
        .source(error)
    })?;
    Ok(Box::new(socket))
}

fn unreached(settings: &BusSettings, how: &str) -> Fault {
    let what = format!("service bus {}:{} {how}", settings.host, settings.port());
    Fault::new(FaultKind::Unavailable, what)
}

fn is_certificate(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidData
}

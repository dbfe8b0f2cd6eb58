//! AMQP over WebSocket: the handshake of the real endpoint, and its messages as one run of bytes.
//!
//! Source: <https://docs.oasis-open.org/amqp-bindmap/amqp-wsb/v1.0/amqp-wsb-v1.0.html>

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio_tungstenite::accept_hdr_async;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::{HeaderValue, StatusCode};
use tokio_tungstenite::tungstenite::{Error, Message};

const PATH: &str = "/$servicebus/websocket";
/// The subprotocol, and the name that it had before the standard; clients of the vendor's still use it.
const PROTOCOLS: [&str; 2] = ["amqp", "AMQPWSB10"];
const BUFFER: usize = 128 * 1024;

/// Accepts a WebSocket; what is read from and written to the returned end goes through it.
pub(super) async fn accept<S>(stream: S) -> Result<DuplexStream, Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    #[allow(clippy::result_large_err, reason = "the library's own signature")]
    let check = |request: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
        let path = request.uri().path().trim_end_matches('/');
        if !path.eq_ignore_ascii_case(PATH) {
            return Err(refusal(StatusCode::NOT_FOUND));
        }
        let offered = request.headers().get_all("sec-websocket-protocol");
        let mut offered = offered
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','));
        let known = |name: &str| {
            let mut all = PROTOCOLS.into_iter();
            all.find(|known| known.eq_ignore_ascii_case(name.trim()))
        };
        let chosen = offered
            .find_map(known)
            .ok_or_else(|| refusal(StatusCode::BAD_REQUEST))?;
        let chosen = HeaderValue::from_static(chosen);
        response
            .headers_mut()
            .insert("sec-websocket-protocol", chosen);
        Ok(response)
    };
    let mut socket = accept_hdr_async(stream, check).await?;
    let (ours, theirs) = tokio::io::duplex(BUFFER);
    let (mut reader, mut writer) = tokio::io::split(ours);
    tokio::spawn(async move {
        let mut buffer = vec![0; BUFFER];
        loop {
            tokio::select! {
                message = socket.next() => match message {
                    Some(Ok(Message::Binary(bytes))) => if writer.write_all(&bytes).await.is_err() { break },
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                    // Text is not AMQP; a close, an error and the end are the end.
                    _ => break,
                },
                read = reader.read(&mut buffer) => match read {
                    Ok(0) | Err(_) => break,
                    Ok(count) => {
                        let bytes = buffer[..count].to_vec();
                        if socket.send(Message::binary(bytes)).await.is_err() { break }
                    }
                },
            }
        }
        // The peer may be gone already.
        drop(socket.close(None).await);
    });
    Ok(theirs)
}

fn refusal(status: StatusCode) -> ErrorResponse {
    let mut response = ErrorResponse::new(None);
    *response.status_mut() = status;
    response
}

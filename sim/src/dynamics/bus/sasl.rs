//! The beginning of a connection: protocol headers and SASL.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::Bus;
use super::amqp::frame::{AMQP, Frame, FrameError, SASL};
use super::amqp::value::{Value, field};
use super::sas::Grant;

const MECHANISMS: u64 = 0x40;
const INIT: u64 = 0x41;
const OUTCOME: u64 = 0x44;
/// SASL frames are no larger.
const MOST: usize = 512 * 8;

/// How a client signed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SignedIn {
    /// As nobody: it is to bring tokens.
    Anonymous,
    /// With a policy's name and key.
    Key(Grant),
    Refused,
}

/// Takes both headers and the SASL exchange between them.
pub(super) async fn negotiate<S>(bus: &Bus, stream: &mut S) -> Result<SignedIn, FrameError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    // AMQP without SASL, or another protocol: what is spoken here is told, and the socket ends.
    if header(stream).await? != SASL {
        stream.write_all(&SASL).await?;
        return Ok(SignedIn::Refused);
    }
    stream.write_all(&SASL).await?;
    let mechanisms = ["MSSBCBS", "PLAIN", "ANONYMOUS", "EXTERNAL"].map(Value::symbol);
    let offer = Frame::sasl(MECHANISMS, vec![Value::Array(mechanisms.to_vec())]);
    offer.write(stream).await?;
    let frame = Frame::read(stream, MOST).await?;
    let signed_in = match &frame.performative {
        Some((INIT, fields)) if frame.kind == 1 => chosen(bus, fields),
        _ => SignedIn::Refused,
    };
    let code = u8::from(signed_in == SignedIn::Refused);
    let outcome = Frame::sasl(OUTCOME, vec![Value::Ubyte(code)]);
    outcome.write(stream).await?;
    if signed_in == SignedIn::Refused {
        return Ok(signed_in);
    }
    let again = header(stream).await?;
    stream.write_all(&AMQP).await?;
    stream.flush().await?;
    Ok(match again == AMQP {
        true => signed_in,
        false => SignedIn::Refused,
    })
}

async fn header(stream: &mut (impl AsyncRead + Unpin)) -> Result<[u8; 8], FrameError> {
    let mut header = [0; 8];
    stream.read_exact(&mut header).await?;
    Ok(header)
}

fn chosen(bus: &Bus, fields: &[Value]) -> SignedIn {
    match field(fields, 0).word() {
        Some("ANONYMOUS" | "MSSBCBS") => SignedIn::Anonymous,
        Some("PLAIN") => {
            let Value::Binary(response) = field(fields, 1) else {
                return SignedIn::Refused;
            };
            let text = String::from_utf8_lossy(response);
            let mut parts = text.split('\0');
            let (_, name, key) = (parts.next(), parts.next(), parts.next());
            name.zip(key)
                .and_then(|(name, key)| bus.sign_in(name, key))
                .map_or(SignedIn::Refused, SignedIn::Key)
        }
        _ => SignedIn::Refused,
    }
}

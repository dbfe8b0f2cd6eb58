//! Frames (OASIS AMQP 1.0, part 2.3) and the headers that a connection begins with.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::decode::{Malformed, decode};
use super::encode::encode;
use super::value::Value;

pub(in super::super) const AMQP: [u8; 8] = *b"AMQP\x00\x01\x00\x00";
pub(in super::super) const SASL: [u8; 8] = *b"AMQP\x03\x01\x00\x00";

pub(in super::super) const OPEN: u64 = 0x10;
pub(in super::super) const BEGIN: u64 = 0x11;
pub(in super::super) const ATTACH: u64 = 0x12;
pub(in super::super) const FLOW: u64 = 0x13;
pub(in super::super) const TRANSFER: u64 = 0x14;
pub(in super::super) const DISPOSITION: u64 = 0x15;
pub(in super::super) const DETACH: u64 = 0x16;
pub(in super::super) const END: u64 = 0x17;
pub(in super::super) const CLOSE: u64 = 0x18;
pub(in super::super) const ERROR: u64 = 0x1D;
pub(in super::super) const ACCEPTED: u64 = 0x24;
pub(in super::super) const REJECTED: u64 = 0x25;
pub(in super::super) const RELEASED: u64 = 0x26;
pub(in super::super) const MODIFIED: u64 = 0x27;
pub(in super::super) const SOURCE: u64 = 0x28;
pub(in super::super) const TARGET: u64 = 0x29;

/// A frame without its performative keeps a connection alive.
#[derive(Debug, Clone)]
pub(in super::super) struct Frame {
    pub channel: u16,
    /// 0 of AMQP, 1 of SASL.
    pub kind: u8,
    pub performative: Option<(u64, Vec<Value>)>,
    pub payload: Vec<u8>,
}

/// Why no frame could be read.
#[derive(Debug, thiserror::Error)]
pub(in super::super) enum FrameError {
    #[error("reading a frame")]
    Read(#[from] io::Error),
    #[error("a frame of {size} bytes, where {most} are allowed")]
    TooLarge { size: usize, most: usize },
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

impl Frame {
    pub fn of(channel: u16, code: u64, fields: Vec<Value>) -> Self {
        Self {
            channel,
            kind: 0,
            performative: Some((code, fields)),
            payload: Vec::new(),
        }
    }

    pub fn sasl(code: u64, fields: Vec<Value>) -> Self {
        Self {
            kind: 1,
            ..Self::of(0, code, fields)
        }
    }

    pub fn empty() -> Self {
        Self {
            channel: 0,
            kind: 0,
            performative: None,
            payload: Vec::new(),
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut out = vec![0, 0, 0, 0, 2, self.kind];
        out.extend(self.channel.to_be_bytes());
        if let Some((code, fields)) = &self.performative {
            encode(&Value::composite(*code, trimmed(fields)), &mut out);
        }
        out.extend_from_slice(&self.payload);
        let size = u32::try_from(out.len()).unwrap_or(u32::MAX);
        out[..4].copy_from_slice(&size.to_be_bytes());
        out
    }

    /// Writes it.
    pub async fn write(&self, to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        to.write_all(&self.bytes()).await?;
        to.flush().await
    }

    /// Reads the next one, of at most `most` bytes.
    pub async fn read(
        from: &mut (impl AsyncRead + Unpin),
        most: usize,
    ) -> Result<Self, FrameError> {
        let mut head = [0; 8];
        from.read_exact(&mut head).await?;
        let size = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        if size > most {
            return Err(FrameError::TooLarge { size, most });
        }
        let begin = usize::from(head[4]) * 4;
        if begin < 8 || size < begin {
            return Err(Malformed("a frame that is shorter than its header").into());
        }
        let mut body = vec![0; size - 8];
        from.read_exact(&mut body).await?;
        let mut rest = &body[begin - 8..];
        let channel = u16::from_be_bytes([head[6], head[7]]);
        if rest.is_empty() {
            return Ok(Self {
                channel,
                kind: head[5],
                ..Self::empty()
            });
        }
        let value = decode(&mut rest)?;
        let Some((code, Value::List(fields))) = value.parts() else {
            return Err(Malformed("a frame without a performative").into());
        };
        Ok(Self {
            channel,
            kind: head[5],
            performative: Some((code, fields.clone())),
            payload: rest.to_vec(),
        })
    }
}

/// Trailing nulls are left out.
fn trimmed(fields: &[Value]) -> Vec<Value> {
    let end = fields.iter().rposition(|field| !field.is_null());
    fields[..end.map_or(0, |end| end + 1)].to_vec()
}

/// An error as it stands in a detach, an end, a close or a rejection.
pub(in super::super) fn error(condition: &str, description: &str) -> Value {
    let fields = vec![Value::symbol(condition), Value::text(description)];
    Value::composite(ERROR, fields)
}

//! A bare Avro datum, decoded by its writer's schema into cells that borrow its text (Apache Avro Specification,
//! "Binary Encoding").
//!
//! `apache_avro`'s tree of values copies every name and every text: to build it alone takes half as long as all of our
//! way to an event (`benches/pubsub_decode.rs`).

use std::borrow::Cow;

use super::super::decode::cell::{Cell, Cells};
use super::schema::{EventSchema, Node};

/// How deep records nest: an event, a compound field, and some to spare.
const DEEPEST: usize = 16;
const DAY: i64 = 86_400_000;

/// Bytes that the schema does not describe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// They end too soon.
    #[error("it ends within a value")]
    Short,
    /// A number has more than 64 bits.
    #[error("a number has more than 64 bits")]
    Number,
    /// A union has no such branch, an enumeration no such symbol.
    #[error("it names a branch or symbol that its schema does not have")]
    Branch,
    /// Text is no UTF-8.
    #[error("a text is no UTF-8")]
    Text,
    /// A boolean is neither.
    #[error("a boolean is neither true nor false")]
    Boolean,
    /// More items or levels than bytes could hold.
    #[error("it has more items or levels than its bytes hold")]
    Size,
    /// The schema has a type that no change event uses.
    #[error("a value has a type that no change event uses")]
    Type,
    /// Something follows.
    #[error("{0} bytes follow its last field")]
    Trailing(usize),
}

/// What is left of a datum.
pub struct Datum<'a> {
    schema: &'a EventSchema,
    bytes: &'a [u8],
}

impl<'a> Datum<'a> {
    /// A datum written by `schema`.
    #[must_use]
    pub const fn new(schema: &'a EventSchema, bytes: &'a [u8]) -> Self {
        Self { schema, bytes }
    }

    /// The next value, written as `node` says.
    ///
    /// # Errors
    /// [`Malformed`]; what follows can't be read then either.
    pub fn cell(&mut self, node: usize) -> Result<Cell<'a>, Malformed> {
        self.nested(node, DEEPEST)
    }

    /// Says that this was all.
    ///
    /// # Errors
    /// [`Malformed::Trailing`].
    pub const fn end(&self) -> Result<(), Malformed> {
        match self.bytes.len() {
            0 => Ok(()),
            left => Err(Malformed::Trailing(left)),
        }
    }

    fn nested(&mut self, node: usize, depth: usize) -> Result<Cell<'a>, Malformed> {
        let depth = depth.checked_sub(1).ok_or(Malformed::Size)?;
        let schema = self.schema;
        match schema.node(node) {
            Node::Null => Ok(Cell::Null),
            Node::Boolean => match self.take(1)? {
                [0] => Ok(Cell::Bool(false)),
                [1] => Ok(Cell::Bool(true)),
                _ => Err(Malformed::Boolean),
            },
            Node::Whole => self.number().map(Cell::Whole),
            Node::Days => {
                let days = self.number()?;
                let millis = days.checked_mul(DAY).ok_or(Malformed::Number)?;
                Ok(Cell::Whole(millis))
            }
            Node::Float => {
                let bytes = self.array()?;
                Ok(Cell::Double(f32::from_le_bytes(bytes).into()))
            }
            Node::Double => {
                let bytes = self.array()?;
                Ok(Cell::Double(f64::from_le_bytes(bytes)))
            }
            Node::Text => {
                let length = self.length()?;
                let text = std::str::from_utf8(self.take(length)?);
                text.map(Cell::Text).map_err(|_| Malformed::Text)
            }
            Node::Symbol(symbols) => {
                let at = self.length()?;
                let symbol = symbols.get(at).ok_or(Malformed::Branch)?;
                Ok(Cell::Text(symbol))
            }
            Node::Union(branches) => {
                let at = self.length()?;
                let branch = branches.get(at).ok_or(Malformed::Branch)?;
                self.nested(*branch, depth)
            }
            Node::Record(fields) => {
                let mut parts = Vec::with_capacity(fields.len());
                for (name, node) in fields {
                    parts.push((Cow::Borrowed(name.as_str()), self.nested(*node, depth)?));
                }
                Ok(Cell::Parts(Cells(parts)))
            }
            Node::List(item) => self.list(*item, depth),
            Node::Other => Err(Malformed::Type),
        }
    }

    /// Blocks of items, an empty one at the end; a negative count is followed by the block's bytes.
    fn list(&mut self, item: usize, depth: usize) -> Result<Cell<'a>, Malformed> {
        let mut items = Vec::new();
        loop {
            let count = self.number()?;
            if count < 0 {
                self.number()?;
            }
            let count = usize::try_from(count.unsigned_abs()).map_err(|_| Malformed::Size)?;
            if count == 0 {
                return Ok(Cell::List(items));
            }
            // An item of no bytes could be there without end.
            if count > self.bytes.len() {
                return Err(Malformed::Size);
            }
            for _ in 0..count {
                let before = self.bytes.len();
                items.push(self.nested(item, depth)?);
                if self.bytes.len() == before {
                    return Err(Malformed::Size);
                }
            }
        }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, left) = self
            .bytes
            .split_at_checked(length)
            .ok_or(Malformed::Short)?;
        self.bytes = left;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, left) = self
            .bytes
            .split_first_chunk::<N>()
            .ok_or(Malformed::Short)?;
        self.bytes = left;
        Ok(*taken)
    }

    fn length(&mut self) -> Result<usize, Malformed> {
        usize::try_from(self.number()?).map_err(|_| Malformed::Size)
    }

    /// A zigzag number: seven bits a byte, lowest first.
    fn number(&mut self) -> Result<i64, Malformed> {
        let mut value = 0_u64;
        let mut shift = 0;
        loop {
            let [byte] = self.array()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(Malformed::Number);
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                break;
            }
            shift += 7;
            if shift > 63 {
                return Err(Malformed::Number);
            }
        }
        Ok((value >> 1).cast_signed() ^ -((value & 1).cast_signed()))
    }
}

//! The values of AMQP's type system (OASIS AMQP 1.0, part 1).

/// A value. Decimals are not spoken.
#[derive(Debug, Clone, PartialEq)]
pub(in super::super) enum Value {
    Null,
    Bool(bool),
    Ubyte(u8),
    Ushort(u16),
    Uint(u32),
    Ulong(u64),
    Byte(i8),
    Short(i16),
    Int(i32),
    Long(i64),
    Float(f32),
    Double(f64),
    Char(u32),
    /// Milliseconds since 1970.
    Timestamp(i64),
    Uuid(u128),
    Binary(Vec<u8>),
    Text(String),
    Symbol(String),
    List(Vec<Value>),
    Map(Vec<(Value, Value)>),
    Array(Vec<Value>),
    Described(Box<Value>, Box<Value>),
}

impl Value {
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    pub fn symbol(text: impl Into<String>) -> Self {
        Self::Symbol(text.into())
    }

    /// A composite: a list described by a number.
    pub fn composite(code: u64, fields: Vec<Value>) -> Self {
        Self::Described(Box::new(Self::Ulong(code)), Box::new(Self::List(fields)))
    }

    /// Any whole number that is not negative.
    pub fn number(&self) -> Option<u64> {
        match self {
            Self::Ubyte(number) => Some(u64::from(*number)),
            Self::Ushort(number) => Some(u64::from(*number)),
            Self::Uint(number) => Some(u64::from(*number)),
            Self::Ulong(number) => Some(*number),
            Self::Byte(number) => u64::try_from(*number).ok(),
            Self::Short(number) => u64::try_from(*number).ok(),
            Self::Int(number) => u64::try_from(*number).ok(),
            Self::Long(number) => u64::try_from(*number).ok(),
            _ => None,
        }
    }

    pub fn small(&self) -> Option<u32> {
        self.number().and_then(|number| u32::try_from(number).ok())
    }

    /// A string or a symbol.
    pub fn word(&self) -> Option<&str> {
        match self {
            Self::Text(text) | Self::Symbol(text) => Some(text),
            _ => None,
        }
    }

    pub fn is_true(&self) -> bool {
        *self == Self::Bool(true)
    }

    pub fn is_null(&self) -> bool {
        *self == Self::Null
    }

    pub fn list(&self) -> &[Value] {
        match self {
            Self::List(items) | Self::Array(items) => items,
            _ => &[],
        }
    }

    /// The entry of a map under a string or a symbol.
    pub fn entry(&self, name: &str) -> Option<&Value> {
        match self {
            Self::Map(entries) => {
                let mut all = entries.iter();
                all.find(|(key, _)| key.word() == Some(name))
                    .map(|(_, value)| value)
            }
            _ => None,
        }
    }

    /// What a composite is, and its fields.
    pub fn parts(&self) -> Option<(u64, &Value)> {
        match self {
            Self::Described(descriptor, inner) => {
                let code = match &**descriptor {
                    Self::Ulong(code) => Some(*code),
                    Self::Symbol(name) => code_of(name),
                    _ => None,
                };
                Some((code?, inner))
            }
            _ => None,
        }
    }
}

/// The field of a composite; absent ones are null.
pub(in super::super) fn field(fields: &[Value], place: usize) -> &Value {
    fields.get(place).unwrap_or(&Value::Null)
}

/// The number of a descriptor that was written as a name.
fn code_of(name: &str) -> Option<u64> {
    let short = name.strip_prefix("amqp:")?;
    let code = match short.rsplit_once(':')?.0 {
        "open" => 0x10,
        "begin" => 0x11,
        "attach" => 0x12,
        "flow" => 0x13,
        "transfer" => 0x14,
        "disposition" => 0x15,
        "detach" => 0x16,
        "end" => 0x17,
        "close" => 0x18,
        "error" => 0x1D,
        "received" => 0x23,
        "accepted" => 0x24,
        "rejected" => 0x25,
        "released" => 0x26,
        "modified" => 0x27,
        "source" => 0x28,
        "target" => 0x29,
        "sasl-init" => 0x41,
        "header" => 0x70,
        "delivery-annotations" => 0x71,
        "message-annotations" => 0x72,
        "properties" => 0x73,
        "application-properties" => 0x74,
        "data" => 0x75,
        "amqp-sequence" => 0x76,
        "amqp-value" => 0x77,
        "footer" => 0x78,
        _ => return None,
    };
    Some(code)
}

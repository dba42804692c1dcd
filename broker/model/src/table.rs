//! Field tables: AMQP's typed key-value lists, as clients send arguments and headers.
//!
//! The types are RabbitMQ's, which differ from the specification's in some letters: <https://www.rabbitmq.com/docs/amqp-0-9-1-errata>.
use std::fmt;

/// Names and values in the order they were sent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FieldTable(pub Vec<(String, FieldValue)>);

/// One value with its type.
#[derive(Clone, Debug, PartialEq)]
pub enum FieldValue {
    /// `t`
    Boolean(bool),
    /// `b`
    Int8(i8),
    /// `B`
    UInt8(u8),
    /// `s`
    Int16(i16),
    /// `u`
    UInt16(u16),
    /// `I`
    Int32(i32),
    /// `i`
    UInt32(u32),
    /// `l`
    Int64(i64),
    /// `f`
    Float(f32),
    /// `d`
    Double(f64),
    /// `D`: decimal places, unscaled value.
    Decimal(u8, u32),
    /// `S`: bytes, mostly UTF-8.
    LongString(Vec<u8>),
    /// `A`
    Array(Vec<FieldValue>),
    /// `T`: seconds since 1970.
    Timestamp(u64),
    /// `F`
    Table(FieldTable),
    /// `x`
    ByteArray(Vec<u8>),
    /// `V`
    Void,
}

impl FieldTable {
    /// The first value of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&FieldValue> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, value)| value)
    }

    /// Whether there are no entries.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Names and values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &FieldValue)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }
}

impl<N: Into<String>> FromIterator<(N, FieldValue)> for FieldTable {
    fn from_iter<I: IntoIterator<Item = (N, FieldValue)>>(entries: I) -> Self {
        Self(entries.into_iter().map(|(name, value)| (name.into(), value)).collect())
    }
}

impl FieldValue {
    /// The text of a string value that is UTF-8.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::LongString(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    /// The value of any integer type.
    #[must_use]
    pub fn as_integer(&self) -> Option<i64> {
        Some(match self {
            Self::Int8(value) => i64::from(*value),
            Self::UInt8(value) => i64::from(*value),
            Self::Int16(value) => i64::from(*value),
            Self::UInt16(value) => i64::from(*value),
            Self::Int32(value) => i64::from(*value),
            Self::UInt32(value) => i64::from(*value),
            Self::Int64(value) => *value,
            _ => return None,
        })
    }

    /// The value of a boolean.
    #[must_use]
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Boolean(value) => Some(*value),
            _ => None,
        }
    }
}

impl From<&str> for FieldValue {
    fn from(text: &str) -> Self {
        Self::LongString(text.as_bytes().to_vec())
    }
}

impl fmt::Display for FieldValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean(value) => write!(f, "{value}"),
            Self::Int8(value) => write!(f, "{value}"),
            Self::UInt8(value) => write!(f, "{value}"),
            Self::Int16(value) => write!(f, "{value}"),
            Self::UInt16(value) => write!(f, "{value}"),
            Self::Int32(value) => write!(f, "{value}"),
            Self::UInt32(value) => write!(f, "{value}"),
            Self::Int64(value) => write!(f, "{value}"),
            Self::Float(value) => write!(f, "{value}"),
            Self::Double(value) => write!(f, "{value}"),
            Self::Decimal(places, value) => write!(f, "{value}e-{places}"),
            Self::LongString(bytes) => write!(f, "'{}'", String::from_utf8_lossy(bytes)),
            Self::ByteArray(bytes) => write!(f, "{} bytes", bytes.len()),
            Self::Timestamp(seconds) => write!(f, "{seconds} s since 1970"),
            Self::Array(values) => write!(f, "an array of {}", values.len()),
            Self::Table(table) => write!(f, "a table of {}", table.0.len()),
            Self::Void => write!(f, "void"),
        }
    }
}

//! Field tables: AMQP's typed key-value lists, as clients send arguments and headers.
//!
//! The types are RabbitMQ's, which differ from the specification's in some letters:
//! <https://www.rabbitmq.com/docs/amqp-0-9-1-errata>.
use std::fmt;

/// Names and values in the order in which they were sent.
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
    /// Returns the first value of that name, or `None` if there is none.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&FieldValue> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, value)| value)
    }

    /// Returns whether there are no entries.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns bytes that are equal for tables with the same entries in any order, at every depth, and differ otherwise.
    /// Two values are the same if they have the same type and the same bytes. Entries with the same name keep their
    /// order, because the first of them counts.
    #[must_use]
    pub fn identity(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_identity(&mut out, self);
        out
    }

    /// Returns about how many bytes of memory the table takes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.0.iter().map(|(name, value)| ENTRY_BYTES + name.len() + value.memory_bytes()).sum()
    }

    /// Returns names and values, in order.
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
    /// Returns the text of a string value, or `None` if the value is not a string or not UTF-8.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::LongString(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    /// Returns the value of any integer type, or `None` for other types.
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

    /// Returns the value of a boolean, or `None` for other types.
    #[must_use]
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Boolean(value) => Some(*value),
            _ => None,
        }
    }
}

impl FieldValue {
    fn memory_bytes(&self) -> usize {
        match self {
            Self::LongString(bytes) | Self::ByteArray(bytes) => bytes.len(),
            Self::Array(values) => values.iter().map(|value| VALUE_BYTES + value.memory_bytes()).sum(),
            Self::Table(table) => table.memory_bytes(),
            _ => 0,
        }
    }
}

fn put_identity(out: &mut Vec<u8>, table: &FieldTable) {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(name, _)| *name);
    put_length(out, entries.len());
    for (name, value) in entries {
        put_length(out, name.len());
        out.extend_from_slice(name.as_bytes());
        put_value_identity(out, value);
    }
}

fn put_value_identity(out: &mut Vec<u8>, value: &FieldValue) {
    let mut fixed = |letter: u8, bytes: &[u8]| {
        out.push(letter);
        out.extend_from_slice(bytes);
    };
    match value {
        FieldValue::Boolean(value) => fixed(b't', &[u8::from(*value)]),
        FieldValue::Int8(value) => fixed(b'b', &value.to_be_bytes()),
        FieldValue::UInt8(value) => fixed(b'B', &value.to_be_bytes()),
        FieldValue::Int16(value) => fixed(b's', &value.to_be_bytes()),
        FieldValue::UInt16(value) => fixed(b'u', &value.to_be_bytes()),
        FieldValue::Int32(value) => fixed(b'I', &value.to_be_bytes()),
        FieldValue::UInt32(value) => fixed(b'i', &value.to_be_bytes()),
        FieldValue::Int64(value) => fixed(b'l', &value.to_be_bytes()),
        FieldValue::Float(value) => fixed(b'f', &value.to_be_bytes()),
        FieldValue::Double(value) => fixed(b'd', &value.to_be_bytes()),
        FieldValue::Decimal(places, value) => {
            fixed(b'D', &[*places]);
            out.extend_from_slice(&value.to_be_bytes());
        }
        FieldValue::Timestamp(value) => fixed(b'T', &value.to_be_bytes()),
        FieldValue::Void => out.push(b'V'),
        FieldValue::LongString(bytes) | FieldValue::ByteArray(bytes) => {
            out.push(if matches!(value, FieldValue::LongString(_)) { b'S' } else { b'x' });
            put_length(out, bytes.len());
            out.extend_from_slice(bytes);
        }
        FieldValue::Array(values) => {
            out.push(b'A');
            put_length(out, values.len());
            values.iter().for_each(|value| put_value_identity(out, value));
        }
        FieldValue::Table(table) => {
            out.push(b'F');
            put_identity(out, table);
        }
    }
}

fn put_length(out: &mut Vec<u8>, length: usize) {
    out.extend_from_slice(&(length as u64).to_be_bytes());
}

impl From<&str> for FieldValue {
    fn from(text: &str) -> Self {
        Self::LongString(text.as_bytes().to_vec())
    }
}

impl From<i32> for FieldValue {
    fn from(number: i32) -> Self {
        Self::Int32(number)
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

/// The memory of a value, and of an entry, without the memory that they point to, in bytes.
const VALUE_BYTES: usize = size_of::<FieldValue>();
const ENTRY_BYTES: usize = size_of::<(String, FieldValue)>();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_the_same_whatever_the_order_of_their_entries() {
        let table = |entries: &[(&str, FieldValue)]| entries.iter().cloned().collect::<FieldTable>();
        let inner = |first: &str, second: &str| FieldValue::Table(table(&[(first, 1.into()), (second, 1.into())]));
        let one = table(&[("a", "x".into()), ("b", inner("c", "d"))]);
        assert_eq!(one.identity(), table(&[("b", inner("d", "c")), ("a", "x".into())]).identity());
        for other in [
            table(&[("a", "x".into())]),
            table(&[("a", "x".into()), ("b", inner("c", "e"))]),
            table(&[("a", FieldValue::ByteArray(b"x".to_vec())), ("b", inner("c", "d"))]),
            table(&[("a", FieldValue::Array(vec!["x".into()])), ("b", inner("c", "d"))]),
        ] {
            assert_ne!(one.identity(), other.identity(), "{other:?}");
        }
        // The first entry of a name counts, so the order of entries with the same name matters.
        let (twice, turned) = (table(&[("a", 1.into()), ("a", 2.into())]), table(&[("a", 2.into()), ("a", 1.into())]));
        assert_ne!(twice.identity(), turned.identity());
        assert_ne!(table(&[("a", 1.into())]).identity(), table(&[("a", FieldValue::Int64(1))]).identity());
    }
}

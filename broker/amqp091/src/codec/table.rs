//! Field tables on the wire: `[bytes u32]` then `[name short string][type octet][value]`, over and over.
use super::read::{Reader, SyntaxError};
use leveret_model::table::{FieldTable, FieldValue};

/// Reads a table with its length before it.
pub(super) fn read(reader: &mut Reader<'_>, field: &'static str) -> Result<FieldTable, SyntaxError> {
    table(reader, field, 0)
}

/// Parses a table with its length before it, and nothing after it.
///
/// # Errors
/// [`SyntaxError`] for what is cut off, of an unknown type, or nested too deeply.
pub fn parse(bytes: &[u8]) -> Result<FieldTable, SyntaxError> {
    let mut reader = Reader(bytes);
    let table = read(&mut reader, "table")?;
    if reader.0.is_empty() { Ok(table) } else { Err(SyntaxError("bytes behind a table")) }
}

fn table(reader: &mut Reader<'_>, field: &'static str, depth: usize) -> Result<FieldTable, SyntaxError> {
    if depth > DEPTH_MAX {
        return Err(SyntaxError("table nested too deeply"));
    }
    let mut inside = Reader(reader.long_bytes(field)?);
    let mut entries = Vec::new();
    while !inside.0.is_empty() {
        let name = inside.short_string("name in a table")?.to_owned();
        entries.push((name, value(&mut inside, depth)?));
    }
    Ok(FieldTable(entries))
}

fn value(reader: &mut Reader<'_>, depth: usize) -> Result<FieldValue, SyntaxError> {
    const FIELD: &str = "value in a table";
    Ok(match reader.u8(FIELD)? {
        b't' => FieldValue::Boolean(reader.u8(FIELD)? != 0),
        b'b' => FieldValue::Int8(reader.u8(FIELD)? as i8),
        b'B' => FieldValue::UInt8(reader.u8(FIELD)?),
        b's' => FieldValue::Int16(reader.u16(FIELD)? as i16),
        b'u' => FieldValue::UInt16(reader.u16(FIELD)?),
        b'I' => FieldValue::Int32(reader.u32(FIELD)? as i32),
        b'i' => FieldValue::UInt32(reader.u32(FIELD)?),
        b'l' | b'L' => FieldValue::Int64(reader.u64(FIELD)? as i64),
        b'f' => FieldValue::Float(f32::from_bits(reader.u32(FIELD)?)),
        b'd' => FieldValue::Double(f64::from_bits(reader.u64(FIELD)?)),
        b'D' => FieldValue::Decimal(reader.u8(FIELD)?, reader.u32(FIELD)?),
        b'S' => FieldValue::LongString(reader.long_bytes(FIELD)?.to_vec()),
        b'T' => FieldValue::Timestamp(reader.u64(FIELD)?),
        b'F' => FieldValue::Table(table(reader, FIELD, depth + 1)?),
        b'x' => FieldValue::ByteArray(reader.long_bytes(FIELD)?.to_vec()),
        b'V' => FieldValue::Void,
        b'A' => {
            if depth > DEPTH_MAX {
                return Err(SyntaxError("array nested too deeply"));
            }
            let mut inside = Reader(reader.long_bytes(FIELD)?);
            let mut values = Vec::new();
            while !inside.0.is_empty() {
                values.push(value(&mut inside, depth + 1)?);
            }
            FieldValue::Array(values)
        }
        _ => return Err(SyntaxError("type of a value in a table")),
    })
}

/// Appends a table with its length before it. Names beyond 255 bytes are cut at a character.
pub fn encode(out: &mut Vec<u8>, table: &FieldTable) {
    with_length(out, |out| {
        for (name, value) in table.iter() {
            super::encode::short_string(out, name);
            encode_value(out, value);
        }
    });
}

fn encode_value(out: &mut Vec<u8>, value: &FieldValue) {
    match value {
        FieldValue::Boolean(value) => out.extend([b't', u8::from(*value)]),
        FieldValue::Int8(value) => out.extend([b'b', *value as u8]),
        FieldValue::UInt8(value) => out.extend([b'B', *value]),
        FieldValue::Int16(value) => typed(out, b's', &value.to_be_bytes()),
        FieldValue::UInt16(value) => typed(out, b'u', &value.to_be_bytes()),
        FieldValue::Int32(value) => typed(out, b'I', &value.to_be_bytes()),
        FieldValue::UInt32(value) => typed(out, b'i', &value.to_be_bytes()),
        FieldValue::Int64(value) => typed(out, b'l', &value.to_be_bytes()),
        FieldValue::Float(value) => typed(out, b'f', &value.to_be_bytes()),
        FieldValue::Double(value) => typed(out, b'd', &value.to_be_bytes()),
        FieldValue::Timestamp(value) => typed(out, b'T', &value.to_be_bytes()),
        FieldValue::Decimal(places, value) => {
            out.extend([b'D', *places]);
            out.extend(value.to_be_bytes());
        }
        FieldValue::LongString(bytes) => {
            out.push(b'S');
            super::encode::long_bytes(out, bytes);
        }
        FieldValue::ByteArray(bytes) => {
            out.push(b'x');
            super::encode::long_bytes(out, bytes);
        }
        FieldValue::Table(table) => {
            out.push(b'F');
            encode(out, table);
        }
        FieldValue::Array(values) => {
            out.push(b'A');
            with_length(out, |out| values.iter().for_each(|value| encode_value(out, value)));
        }
        FieldValue::Void => out.push(b'V'),
    }
}

fn typed(out: &mut Vec<u8>, octet: u8, bytes: &[u8]) {
    out.push(octet);
    out.extend_from_slice(bytes);
}

fn with_length(out: &mut Vec<u8>, content: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend([0; 4]);
    content(out);
    let bytes = (out.len() - at - 4) as u32;
    out[at..at + 4].copy_from_slice(&bytes.to_be_bytes());
}

/// Tables and arrays within each other.
const DEPTH_MAX: usize = 32;

//! Field tables on the wire: `[bytes u32]`, then `[name short string][type octet][value]` for each entry.
use super::read::{Reader, SyntaxError};
use super::text;
use super::write::{long_bytes, short_binary};
use crate::table::{FieldTable, FieldValue};

/// Reads a table with its length before it.
///
/// # Errors
/// [`SyntaxError`] if it is cut off, has a value of an unknown type, or is nested too deeply.
pub fn read(reader: &mut Reader<'_>, field: &'static str) -> Result<FieldTable, SyntaxError> {
    table(reader, field, 0)
}

/// Parses a table with its length before it, and nothing after it.
///
/// # Errors
/// [`SyntaxError`] if it is cut off, has a value of an unknown type, or is nested too deeply.
pub fn parse(bytes: &[u8]) -> Result<FieldTable, SyntaxError> {
    let mut reader = Reader(bytes);
    let table = read(&mut reader, "table")?;
    if reader.0.is_empty() { Ok(table) } else { Err(SyntaxError::Malformed("bytes behind a table")) }
}

fn table(reader: &mut Reader<'_>, field: &'static str, depth: usize) -> Result<FieldTable, SyntaxError> {
    if depth > DEPTH_MAX {
        return Err(SyntaxError::Malformed("table nested too deeply"));
    }
    entries(reader.long_bytes(field)?, depth)
}

/// Parses the entries of a table, without a length before them: the response of AMQPLAIN.
///
/// # Errors
/// [`SyntaxError`] if it is cut off, has a value of an unknown type, or is nested too deeply.
pub fn parse_entries(bytes: &[u8]) -> Result<FieldTable, SyntaxError> {
    entries(bytes, 0)
}

fn entries(bytes: &[u8], depth: usize) -> Result<FieldTable, SyntaxError> {
    let mut inside = Reader(bytes);
    let mut entries = Vec::new();
    while !inside.0.is_empty() {
        let name = text::from_bytes(inside.short_bytes(NAME)?);
        entries.push((name, value(&mut inside, depth)?));
    }
    Ok(FieldTable(entries))
}

/// Skips a table with its length before it. Is as strict as [`parse`] and builds nothing. Returns whether the table has
/// an entry (not one of a table within it) whose name is `wanted`.
pub(crate) fn skip(
    reader: &mut Reader<'_>,
    field: &'static str,
    wanted: impl Fn(&[u8]) -> bool,
) -> Result<bool, SyntaxError> {
    let mut inside = Reader(reader.long_bytes(field)?);
    let mut found = false;
    while !inside.0.is_empty() {
        found |= wanted(inside.short_bytes(NAME)?);
        skip_value(&mut inside, 0)?;
    }
    Ok(found)
}

fn skip_table(reader: &mut Reader<'_>, field: &'static str, depth: usize) -> Result<(), SyntaxError> {
    if depth > DEPTH_MAX {
        return Err(SyntaxError::Malformed("table nested too deeply"));
    }
    let mut inside = Reader(reader.long_bytes(field)?);
    while !inside.0.is_empty() {
        inside.short_bytes(NAME)?;
        skip_value(&mut inside, depth)?;
    }
    Ok(())
}

fn skip_value(reader: &mut Reader<'_>, depth: usize) -> Result<(), SyntaxError> {
    let fixed = match reader.u8(VALUE)? {
        b't' | b'b' | b'B' => 1,
        b's' | b'u' => 2,
        b'I' | b'i' | b'f' => 4,
        b'D' => 5,
        b'l' | b'L' | b'd' | b'T' => 8,
        b'V' => 0,
        b'S' | b'x' => reader.u32(VALUE)? as usize,
        b'F' => return skip_table(reader, VALUE, depth + 1),
        b'A' if depth > DEPTH_MAX => return Err(SyntaxError::Malformed("array nested too deeply")),
        b'A' => {
            let mut inside = Reader(reader.long_bytes(VALUE)?);
            while !inside.0.is_empty() {
                skip_value(&mut inside, depth + 1)?;
            }
            0
        }
        _ => return Err(SyntaxError::Malformed("type of a value in a table")),
    };
    reader.bytes(fixed, VALUE).map(|_| ())
}

/// Appends the table that `reader` begins with to `out`, without the entries called `name`.
pub(crate) fn copy_without(out: &mut Vec<u8>, reader: &mut Reader<'_>, name: &[u8]) -> Result<(), SyntaxError> {
    let mut inside = Reader(reader.long_bytes("headers")?);
    let mut kept = Vec::with_capacity(inside.0.len());
    while !inside.0.is_empty() {
        let entry = inside.0;
        let is_kept = inside.short_bytes(NAME)? != name;
        skip_value(&mut inside, 0)?;
        if is_kept {
            kept.extend_from_slice(&entry[..entry.len() - inside.0.len()]);
        }
    }
    long_bytes(out, &kept);
    Ok(())
}

fn value(reader: &mut Reader<'_>, depth: usize) -> Result<FieldValue, SyntaxError> {
    Ok(match reader.u8(VALUE)? {
        b't' => FieldValue::Boolean(reader.u8(VALUE)? != 0),
        b'b' => FieldValue::Int8(reader.u8(VALUE)? as i8),
        b'B' => FieldValue::UInt8(reader.u8(VALUE)?),
        b's' => FieldValue::Int16(reader.u16(VALUE)? as i16),
        b'u' => FieldValue::UInt16(reader.u16(VALUE)?),
        b'I' => FieldValue::Int32(reader.u32(VALUE)? as i32),
        b'i' => FieldValue::UInt32(reader.u32(VALUE)?),
        b'l' | b'L' => FieldValue::Int64(reader.u64(VALUE)? as i64),
        b'f' => FieldValue::Float(f32::from_bits(reader.u32(VALUE)?)),
        b'd' => FieldValue::Double(f64::from_bits(reader.u64(VALUE)?)),
        b'D' => FieldValue::Decimal(reader.u8(VALUE)?, reader.u32(VALUE)?),
        b'S' => FieldValue::LongString(reader.long_bytes(VALUE)?.to_vec()),
        b'T' => FieldValue::Timestamp(reader.u64(VALUE)?),
        b'F' => FieldValue::Table(table(reader, VALUE, depth + 1)?),
        b'x' => FieldValue::ByteArray(reader.long_bytes(VALUE)?.to_vec()),
        b'V' => FieldValue::Void,
        b'A' => {
            if depth > DEPTH_MAX {
                return Err(SyntaxError::Malformed("array nested too deeply"));
            }
            let mut inside = Reader(reader.long_bytes(VALUE)?);
            let mut values = Vec::new();
            while !inside.0.is_empty() {
                values.push(value(&mut inside, depth + 1)?);
            }
            FieldValue::Array(values)
        }
        _ => return Err(SyntaxError::Malformed("type of a value in a table")),
    })
}

/// Appends a table with its length before it. Names beyond 255 bytes are cut at a character.
pub fn encode(out: &mut Vec<u8>, table: &FieldTable) {
    with_length(out, |out| {
        for (name, value) in table.iter() {
            short_binary(out, name);
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
            long_bytes(out, bytes);
        }
        FieldValue::ByteArray(bytes) => {
            out.push(b'x');
            long_bytes(out, bytes);
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

const NAME: &str = "name in a table";
const VALUE: &str = "value in a table";
/// The deepest nesting of tables and arrays.
const DEPTH_MAX: usize = 32;

//! Field tables as JSON objects and back, and request bodies.
use crate::error::Error;
use leveret_model::table::{FieldTable, FieldValue};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

/// A table as an object.
pub(crate) fn from_table(table: &FieldTable) -> Value {
    Value::Object(table.iter().map(|(name, value)| (name.to_owned(), from_value(value))).collect())
}

fn from_value(value: &FieldValue) -> Value {
    match value {
        FieldValue::Boolean(value) => json!(value),
        FieldValue::Float(value) => json!(value),
        FieldValue::Double(value) => json!(value),
        FieldValue::Timestamp(value) => json!(value),
        FieldValue::LongString(bytes) | FieldValue::ByteArray(bytes) => json!(String::from_utf8_lossy(bytes)),
        FieldValue::Array(values) => values.iter().map(from_value).collect(),
        FieldValue::Table(table) => from_table(table),
        FieldValue::Decimal(..) => json!(value.to_string()),
        FieldValue::Void => Value::Null,
        integer => json!(integer.as_integer()),
    }
}

/// An object as a table.
pub(crate) fn to_table(object: Map<String, Value>) -> FieldTable {
    object.into_iter().map(|(name, value)| (name, to_value(value))).collect()
}

fn to_value(value: Value) -> FieldValue {
    match value {
        Value::Null => FieldValue::Void,
        Value::Bool(value) => FieldValue::Boolean(value),
        Value::Number(number) => match number.as_i64() {
            Some(integer) => FieldValue::Int64(integer),
            None => FieldValue::Double(number.as_f64().unwrap_or_default()),
        },
        Value::String(text) => FieldValue::LongString(text.into_bytes()),
        Value::Array(values) => FieldValue::Array(values.into_iter().map(to_value).collect()),
        Value::Object(object) => FieldValue::Table(to_table(object)),
    }
}

/// A request's body; an empty one is an empty object.
///
/// # Errors
/// 400 naming the field and what was expected.
pub(crate) fn body<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    let bytes = if bytes.is_empty() { b"{}" } else { bytes };
    serde_json::from_slice(bytes).map_err(|error| Error::bad_request(format!("invalid JSON body: {error}")))
}

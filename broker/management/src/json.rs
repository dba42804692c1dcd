//! Converts AMQP field tables to JSON objects and back, and reads request bodies, leniently: clients in many languages
//! write flags and empty tables in different ways.
use crate::error::ApiError;
use leveret_model::table::{FieldTable, FieldValue};
use serde_json::{Map, Value, json};

/// Returns a field table as a JSON object. Bytes that are not UTF-8 are replaced, and decimals become strings.
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

fn to_table(object: Map<String, Value>) -> FieldTable {
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

/// The body of a request: a JSON object, whose fields are taken out one by one.
pub(crate) struct Fields(Map<String, Value>);

impl Fields {
    /// Parses a body. An empty body and `null` count as an empty object.
    ///
    /// # Errors
    /// 400 if the body is not JSON, with the place of the mistake, or not an object.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, ApiError> {
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self(Map::new()));
        }
        match serde_json::from_slice(bytes) {
            Ok(Value::Object(fields)) => Ok(Self(fields)),
            Ok(Value::Null) => Ok(Self(Map::new())),
            Ok(other) => {
                Err(ApiError::bad_request(format!("the body has to be a JSON object, it is {}", kind(&other))))
            }
            Err(error) => Err(ApiError::bad_request(format!("invalid JSON body: {error}"))),
        }
    }

    /// Takes a boolean, which may be written as the string "true" or "false". Returns `default` if it is absent or null.
    ///
    /// # Errors
    /// 400 with the field's name if it holds anything else.
    pub(crate) fn flag(&mut self, name: &str, default: bool) -> Result<bool, ApiError> {
        match self.0.remove(name) {
            None | Some(Value::Null) => Ok(default),
            Some(Value::Bool(flag)) => Ok(flag),
            Some(Value::String(text)) if text == "true" => Ok(true),
            Some(Value::String(text)) if text == "false" => Ok(false),
            Some(other) => Err(Self::unexpected(name, "a boolean", &other)),
        }
    }

    /// Takes a string. Returns `default` if the field is absent or null.
    ///
    /// # Errors
    /// 400 with the field's name if it holds anything else.
    pub(crate) fn text(&mut self, name: &str, default: &str) -> Result<String, ApiError> {
        match self.0.remove(name) {
            None | Some(Value::Null) => Ok(default.to_owned()),
            Some(Value::String(text)) => Ok(text),
            Some(other) => Err(Self::unexpected(name, "a string", &other)),
        }
    }

    /// Takes a field table, written as an object. An empty array or string, which some languages write for an empty object,
    /// counts as an empty table, as does an absent field or null.
    ///
    /// # Errors
    /// 400 with the field's name if it holds anything else.
    pub(crate) fn table(&mut self, name: &str) -> Result<FieldTable, ApiError> {
        match self.0.remove(name) {
            None | Some(Value::Null) => Ok(FieldTable::default()),
            Some(Value::Object(object)) => Ok(to_table(object)),
            Some(Value::Array(items)) if items.is_empty() => Ok(FieldTable::default()),
            Some(Value::String(text)) if text.is_empty() => Ok(FieldTable::default()),
            Some(other) => Err(Self::unexpected(name, "an object", &other)),
        }
    }

    fn unexpected(name: &str, expected: &str, found: &Value) -> ApiError {
        ApiError::bad_request(format!("{name}: expected {expected}, found {}", kind(found)))
    }
}

fn kind(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(text) => format!("the string {:?}", text.chars().take(SHOWN_MAX).collect::<String>()),
        Value::Array(_) => "an array".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

/// How many characters of a string an error repeats.
const SHOWN_MAX: usize = 100;

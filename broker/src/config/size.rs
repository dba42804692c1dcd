//! Sizes as people write them: bytes, `512MiB`, `2GiB`, or a share of the memory that there is, `60%`.
use serde::Deserialize;

/// A size in the file: a number of bytes or a text.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(untagged, expecting = "expected a number of bytes, or a text such as \"512MiB\" or \"60%\"")]
pub(crate) enum Size {
    Bytes(u64),
    Text(String),
}

impl Size {
    /// In bytes.
    pub(crate) fn bytes(&self) -> Result<u64, String> {
        match self {
            Self::Bytes(bytes) => Ok(*bytes),
            Self::Text(text) => parse(text),
        }
    }
}

/// The bytes that `text` says.
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|character: char| !character.is_ascii_digit());
    let unit = text[digits.len()..].trim();
    let number: Option<u64> = digits.parse().ok();
    let bytes = match (number, unit) {
        (Some(number), "" | "B") => Some(number),
        (Some(number), "KiB" | "Ki") => number.checked_shl(10),
        (Some(number), "MiB" | "Mi") => number.checked_shl(20),
        (Some(number), "GiB" | "Gi") => number.checked_shl(30),
        (Some(number @ 1..=100), "%") => Some(leveret_node::available_bytes() / 100 * number),
        _ => None,
    };
    bytes.ok_or_else(|| format!("'{text}' is no size: bytes, 512MiB, 2GiB or 60% are"))
}

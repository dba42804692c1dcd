//! Sizes as people write them: bytes, `512MiB`, `512M`, `2GB`, or a share of the available memory, `60%`.
use serde::Deserialize;

/// A size in the file: a number of bytes or a text.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(untagged, expecting = "expected a number of bytes, or a text such as \"512MiB\" or \"60%\"")]
pub(crate) enum Size {
    Bytes(u64),
    Text(String),
}

impl Size {
    /// Returns the size in bytes.
    pub(crate) fn bytes(&self) -> Result<u64, String> {
        match self {
            Self::Bytes(bytes) => Ok(*bytes),
            Self::Text(text) => parse(text),
        }
    }
}

/// Returns the number of bytes that `text` says. Units are RabbitMQ's: K, M, G, T and KiB, MiB, GiB, TiB are powers of
/// 1024; kB, MB, GB, TB are powers of 1000; case does not matter.
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    let refused = || format!("'{text}' is no size: bytes, 512MiB, 512M, 2GB or 60% are");
    let digits = text.trim_end_matches(|character: char| !character.is_ascii_digit());
    let unit = text[digits.len()..].trim();
    let number: u64 = digits.trim().parse().map_err(|_| refused())?;
    if unit == "%" {
        let share = (1..=100).contains(&number).then(|| leveret_node::available_bytes() / 100 * number);
        return share.ok_or_else(refused);
    }
    let bytes = match &*unit.to_ascii_lowercase() {
        "" | "b" => 1,
        "k" | "ki" | "kib" => 1 << 10,
        "m" | "mi" | "mib" => 1 << 20,
        "g" | "gi" | "gib" => 1 << 30,
        "t" | "ti" | "tib" => 1 << 40,
        "kb" => 1000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return Err(refused()),
    };
    number.checked_mul(bytes).ok_or_else(|| format!("'{text}' is more than 64 bits hold"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_units_are_those_of_rabbitmq() {
        for (text, bytes) in [
            ("0", 0),
            ("7B", 7),
            ("512M", 512 << 20),
            ("512 MiB", 512 << 20),
            ("3g", 3 << 30),
            ("2Ki", 2048),
            ("2kB", 2000),
            ("5MB", 5_000_000),
            ("1GB", 1_000_000_000),
            ("1TiB", 1 << 40),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn texts_that_are_no_size_are_refused() {
        for text in ["", "M", "-1", "1.5G", "0%", "101%", "12 parsecs", "1 2", "18446744073709551616"] {
            assert!(parse(text).unwrap_err().contains("is no size"), "{text}");
        }
        for text in ["99999999999GiB", "18446744073709551615K", "20000000TB"] {
            assert!(parse(text).unwrap_err().contains("more than 64 bits"), "{text}");
        }
    }
}

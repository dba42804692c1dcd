//! Quantities as Kubernetes reads them. They are computed in whole numbers, so that two notations of one quantity are
//! equal.

/// Reads a quantity in thousandths, rounded up; `None` if the text is no quantity, or negative. A quantity above [`UNITS_MAX`]
/// counts as that one.
/// Source: <https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/>.
pub(crate) fn milli(text: &str) -> Option<u128> {
    scaled(text, 3)
}

/// Reads a quantity in whole units, rounded up, such as bytes of storage.
pub(crate) fn units(text: &str) -> Option<u128> {
    scaled(text, 0)
}

/// Reads a quantity in units of ten to the power of minus `places`, rounded up.
fn scaled(text: &str, places: i32) -> Option<u128> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    let Factor { binary, decimal } = factor(suffix)?;
    let (fraction, rest) = fraction.split_at(fraction.len().min(FRACTION_DIGITS_MAX));
    let rounded_up = u128::from(rest.contains(|digit| digit != '0'));
    let largest = UNITS_MAX * 10_u128.pow(places.unsigned_abs());
    let Ok(mantissa) = format!("0{whole}{fraction}").parse::<u128>() else { return Some(largest) };
    let mantissa = mantissa.saturating_add(rounded_up);
    if mantissa == 0 {
        return Some(0);
    }
    let exponent = decimal.saturating_add(places).saturating_sub(i32::try_from(fraction.len()).ok()?);
    let power = 10_u128.checked_pow(exponent.unsigned_abs());
    let Some(multiplied) = mantissa.checked_mul(1 << binary) else { return Some(largest) };
    let value = match (exponent < 0, power) {
        (true, power) => power.map_or(1, |power| multiplied.div_ceil(power)),
        (false, power) => power.and_then(|power| multiplied.checked_mul(power)).unwrap_or(largest),
    };
    Some(value.min(largest))
}

/// The factor that a suffix stands for: two to the power of `binary` times ten to the power of `decimal`.
struct Factor {
    binary: u32,
    decimal: i32,
}

fn factor(suffix: &str) -> Option<Factor> {
    let (binary, decimal) = match suffix {
        "n" => (0, -9),
        "u" => (0, -6),
        "m" => (0, -3),
        "" => (0, 0),
        "k" => (0, 3),
        "M" => (0, 6),
        "G" => (0, 9),
        "T" => (0, 12),
        "P" => (0, 15),
        "E" => (0, 18),
        "Ki" => (10, 0),
        "Mi" => (20, 0),
        "Gi" => (30, 0),
        "Ti" => (40, 0),
        "Pi" => (50, 0),
        "Ei" => (60, 0),
        _ => (0, suffix.strip_prefix(['e', 'E'])?.parse().ok()?),
    };
    Some(Factor { binary, decimal })
}

/// The largest quantity: Kubernetes reduces larger ones to it.
const UNITS_MAX: u128 = i64::MAX as u128;
/// The number of digits after the point that are read; if any later one is not 0, the last of them is rounded up.
const FRACTION_DIGITS_MAX: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read() {
        for (text, expected) in [
            ("10Gi", Some(10 << 30)),
            ("1.5Ki", Some(1536)),
            ("320Mi", Some(320 << 20)),
            ("2G", Some(2_000_000_000)),
            ("1e3", Some(1000)),
            ("2E", Some(2_000_000_000_000_000_000)),
            ("512", Some(512)),
            (".5Ki", Some(512)),
            ("5.", Some(5)),
            ("0.1", Some(1)),
            ("0", Some(0)),
            ("lots", None),
            ("", None),
            (".", None),
            ("1.2.3", None),
            ("-1Gi", None),
            ("10Gb", None),
        ] {
            assert_eq!(units(text), expected, "{text}");
        }
        assert_eq!((milli("1000m"), milli("0.5")), (milli("1"), Some(500)));
    }

    #[test]
    fn as_written_and_as_canonical_are_equal() {
        for (written, canonical) in [
            ("1.1T", "1100G"),
            ("1.1Ti", "1209462790554"),
            ("0.3Gi", "322122548"),
            ("1024Mi", "1Gi"),
            ("1.5", "1500m"),
            ("0.0001", "100u"),
            ("1e30", "9223372036854775807"),
            ("9Ei", "9223372036854775807"),
            ("8E", "8E"),
            ("340282366920938463463374607431768211456", "9223372036854775807"),
            ("1e2147483647", "9223372036854775807"),
            ("2.7P", "2700T"),
            ("1.0000000000000000000000000000Ei", "1Ei"),
        ] {
            assert_eq!(units(written), units(canonical), "{written}");
            assert!(units(written).is_some_and(|units| units <= UNITS_MAX), "{written}");
        }
        for (written, canonical) in
            [("1.1T", "1100G"), ("0.1m", "100u"), ("1e30", "9223372036854775807"), ("2.5", "2500m")]
        {
            assert_eq!(milli(written), milli(canonical), "{written}");
        }
        assert_eq!(units("1e-2147483648"), Some(1), "rounded up");
    }
}

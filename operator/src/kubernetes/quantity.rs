//! Quantities as Kubernetes writes them.

/// A quantity in thousandths, rounded up; none if it is none, or negative.
/// Source: <https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/>.
pub(crate) fn milli(text: &str) -> Option<u128> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let number: f64 = number.parse().ok()?;
    let exponent = || suffix.strip_prefix(['e', 'E'])?.parse::<i32>().ok();
    let factor = match suffix {
        "" => 1e3,
        "m" => 1.0,
        "k" => 1e6,
        "M" => 1e9,
        "G" => 1e12,
        "T" => 1e15,
        "P" => 1e18,
        "E" => 1e21,
        "Ki" => 1e3 * 1024.0,
        "Mi" => 1e3 * 1024f64.powi(2),
        "Gi" => 1e3 * 1024f64.powi(3),
        "Ti" => 1e3 * 1024f64.powi(4),
        "Pi" => 1e3 * 1024f64.powi(5),
        "Ei" => 1e3 * 1024f64.powi(6),
        _ => 1e3 * 10f64.powi(exponent()?),
    };
    Some((number * factor).ceil() as u128)
}

/// A quantity in whole units, rounded up: bytes, for one of storage.
pub(crate) fn units(text: &str) -> Option<u128> {
    milli(text).map(|milli| milli.div_ceil(1000))
}

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
            ("lots", None),
            ("", None),
            ("-1Gi", None),
            ("10Gb", None),
        ] {
            assert_eq!(units(text), expected, "{text}");
        }
        assert_eq!((milli("1000m"), milli("0.5")), (milli("1"), Some(500)));
    }
}

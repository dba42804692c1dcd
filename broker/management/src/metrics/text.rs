//! Prometheus' text format, version 0.0.4.
use std::fmt::Write;

/// The type that scrapers are told.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Lines that are written.
#[derive(Default)]
pub(super) struct Text(String);

impl Text {
    /// Says what the samples that follow are. `kind` is `gauge`, `counter` or `histogram`.
    pub(super) fn head(&mut self, name: &str, help: &str, kind: &str) {
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    /// One sample. `labels` is what lies between the braces; empty for none.
    pub(super) fn sample(&mut self, name: &str, labels: &str, value: f64) {
        let _ = match labels {
            "" => writeln!(self.0, "{name} {value}"),
            labels => writeln!(self.0, "{name}{{{labels}}} {value}"),
        };
    }

    /// A gauge without labels.
    pub(super) fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.head(name, help, "gauge");
        self.sample(name, "", value);
    }

    /// A counter without labels.
    pub(super) fn counter(&mut self, name: &str, help: &str, value: f64) {
        self.head(name, help, "counter");
        self.sample(name, "", value);
    }

    /// What was written since the last time.
    pub(super) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.0).into_bytes()
    }
}

/// `name="value"`, separated by commas.
pub(super) fn labels(pairs: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (name, value) in pairs {
        let comma = if text.is_empty() { "" } else { "," };
        let _ = write!(text, "{comma}{name}=\"");
        for character in value.chars() {
            match character {
                '\\' => text.push_str("\\\\"),
                '"' => text.push_str("\\\""),
                '\n' => text.push_str("\\n"),
                other => text.push(other),
            }
        }
        text.push('"');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_as_prometheus_reads_them() {
        let mut text = Text::default();
        text.gauge("a", "What it is.", 3.0);
        text.sample("b", &labels(&[("x", "q\"\\\n"), ("y", "")]), 0.000_25);
        let expected = "# HELP a What it is.\n# TYPE a gauge\na 3\nb{x=\"q\\\"\\\\\\n\",y=\"\"} 0.00025\n";
        assert_eq!(String::from_utf8(text.take()).unwrap(), expected);
        assert!(text.take().is_empty());
    }
}

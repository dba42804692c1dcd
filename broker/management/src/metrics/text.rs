//! The text format of Prometheus, version 0.0.4.
use std::fmt::Write;

/// The content type of an answer in this format.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The lines written so far.
#[derive(Default)]
pub(super) struct Text(String);

impl Text {
    /// Writes the head of a family of samples. `kind` is `gauge`, `counter` or `histogram`.
    pub(super) fn head(&mut self, name: &str, help: &str, kind: &str) {
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    /// Writes one sample. `labels` is the text between the braces, as [`labels`] returns it; empty for no labels.
    pub(super) fn sample(&mut self, name: &str, labels: &str, value: f64) {
        let _ = match labels {
            "" => writeln!(self.0, "{name} {value}"),
            labels => writeln!(self.0, "{name}{{{labels}}} {value}"),
        };
    }

    /// Writes a gauge without labels: head and sample.
    pub(super) fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.head(name, help, "gauge");
        self.sample(name, "", value);
    }

    /// Writes a counter without labels: head and sample.
    pub(super) fn counter(&mut self, name: &str, help: &str, value: f64) {
        self.head(name, help, "counter");
        self.sample(name, "", value);
    }

    /// Takes the lines written since the last call.
    pub(super) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.0).into_bytes()
    }
}

/// Returns labels as `name="value"`, escaped and separated by commas.
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
    fn samples_follow_the_text_format() {
        let mut text = Text::default();
        text.gauge("a", "What it is.", 3.0);
        text.sample("b", &labels(&[("x", "q\"\\\n"), ("y", "")]), 0.000_25);
        let expected = "# HELP a What it is.\n# TYPE a gauge\na 3\nb{x=\"q\\\"\\\\\\n\",y=\"\"} 0.00025\n";
        assert_eq!(String::from_utf8(text.take()).unwrap(), expected);
        assert!(text.take().is_empty());
    }
}

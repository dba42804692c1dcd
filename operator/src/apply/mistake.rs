//! Messages for mistakes in a document: they say what to write instead.
use serde_saphyr::Error;

/// Returns the message for an error of the parser, in one line; `line` is the line of the document with the mistake.
pub(super) fn text(error: &Error, line: &str) -> String {
    let in_field = |text: String| match field(line) {
        "" => text,
        field => format!("{field}: {text}"),
    };
    match error.without_snippet() {
        Error::SerdeUnknownField { field, expected, .. } => unknown_field(field, expected),
        Error::SerdeUnknownVariant { variant, expected, .. } => match nearest(variant, expected) {
            Some(meant) => in_field(format!("'{variant}' is not known: did you mean '{meant}'?")),
            None => in_field(format!("{} is expected, not '{variant}'", expected.join(" or "))),
        },
        Error::SerdeMissingField { field, .. } => format!("the field '{field}' is missing"),
        Error::SerdeInvalidType { unexpected, expected, .. }
        | Error::SerdeInvalidValue { unexpected, expected, .. } => {
            in_field(format!("{expected} is expected, not {unexpected}"))
        }
        Error::InvalidScalar { ty: "boolean" | "bool", .. } => in_field("true or false is expected".to_owned()),
        Error::InvalidScalar { ty, .. } => in_field(format!("{ty} is expected")),
        Error::Unexpected { expected: "mapping start", .. } => in_field("fields are expected".to_owned()),
        Error::Unexpected { expected, .. } => in_field(format!("{expected} is expected")),
        Error::NullIntoString { .. } => in_field("a text is expected, not nothing".to_owned()),
        Error::DuplicateMappingKey { key, .. } => {
            format!("the field '{}' is there twice", key.as_deref().unwrap_or_else(|| field(line)))
        }
        other => {
            let text = other.to_string();
            // The parser's text repeats the place, which the message begins with.
            in_field(text.split(" at line ").next().unwrap_or_default().to_owned())
        }
    }
}

/// Returns the message for a field that is not one of the `known` ones.
pub(super) fn unknown_field(field: &str, known: &[&str]) -> String {
    match nearest(field, known) {
        Some(meant) => format!("unknown field '{field}': did you mean '{meant}'?"),
        None => format!("unknown field '{field}': there are {}", known.join(", ")),
    }
}

/// Returns the name before the colon.
fn field(line: &str) -> &str {
    line.split_once(':').map_or("", |(name, _)| name.trim().trim_start_matches("- "))
}

/// Returns the known name that was probably meant.
fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let near = known.iter().map(|known| (strsim::jaro_winkler(known, name), *known));
    near.filter(|(similarity, _)| *similarity > SIMILARITY_MIN)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, known)| known)
}

/// How similar two names have to be, from 0 to 1, for one to be suggested in place of the other.
const SIMILARITY_MIN: f64 = 0.75;

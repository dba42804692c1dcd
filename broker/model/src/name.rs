//! The rules for names of queues and exchanges, and the length of routing keys.
use crate::refusal::{Refusal, RefusalKind};
use std::borrow::Cow;

/// The longest name in bytes of UTF-8: the capacity of a short string.
pub const NAME_BYTES_MAX: usize = 255;
/// The longest routing key or pattern in bytes: the capacity of a short string.
pub const ROUTING_KEY_BYTES_MAX: usize = 255;

/// Returns a name without carriage returns and line feeds, which are not part of a name (RabbitMQ: observed).
#[must_use]
pub fn without_line_breaks(name: &str) -> Cow<'_, str> {
    if name.contains(LINE_BREAKS) { name.replace(LINE_BREAKS, "").into() } else { name.into() }
}

/// Checks a name that a client chose for a new object; `what` is "queue" or "exchange".
///
/// # Errors
/// 406 beyond 255 bytes, 403 for the reserved prefix `amq.`.
pub fn check(what: &str, name: &str) -> Result<(), Refusal> {
    if name.len() > NAME_BYTES_MAX {
        let bytes = name.len();
        return Err(Refusal::precondition(format!("{what} name of {bytes} bytes is longer than {NAME_BYTES_MAX}")));
    }
    if name.starts_with("amq.") {
        let text = format!("{what} name '{name}' contains reserved prefix 'amq.*'");
        return Err(Refusal::new(RefusalKind::AccessRefused, text));
    }
    Ok(())
}

const LINE_BREAKS: [char; 2] = ['\r', '\n'];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_breaks_are_no_part_of_a_name() {
        for (name, expected) in [("a", "a"), ("a\r\nb\n", "ab"), ("\n", ""), ("a b", "a b")] {
            assert_eq!(without_line_breaks(name), expected);
        }
    }
}

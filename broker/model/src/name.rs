//! What queues and exchanges may be called, and how long a routing key may be.
use crate::refusal::{Refusal, RefusalKind};
use std::borrow::Cow;

/// Longest name, in bytes of UTF-8: what a short string holds.
pub const NAME_BYTES_MAX: usize = 255;
/// Longest routing key or pattern, in bytes: what a short string holds.
pub const ROUTING_KEY_BYTES_MAX: usize = 255;

/// A name without carriage returns and line feeds, which are not part of a name (RabbitMQ: observed).
#[must_use]
pub fn without_line_breaks(name: &str) -> Cow<'_, str> {
    if name.contains(LINE_BREAKS) { name.replace(LINE_BREAKS, "").into() } else { name.into() }
}

/// Checks a name that a client chose for a new `what` ("queue", "exchange").
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

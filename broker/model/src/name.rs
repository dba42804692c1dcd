//! What queues and exchanges may be called.
use crate::refusal::{Refusal, RefusalKind};

/// Longest name, in bytes of UTF-8: what a short string holds.
pub const NAME_BYTES_MAX: usize = 255;

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

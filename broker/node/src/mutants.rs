//! Rules that a test breaks on purpose, to see that it notices.
use std::sync::atomic::AtomicBool;

/// Of the runs that are relocated together the first one is forgotten, and its segment is used again.
pub static RELOCATION_FORGETS: AtomicBool = AtomicBool::new(false);

//! Rules that a test breaks on purpose, to see that it notices.
use std::sync::atomic::AtomicBool;

/// Of the runs that are relocated together the first one is forgotten, and its segment is used again.
pub static RELOCATION_FORGETS: AtomicBool = AtomicBool::new(false);
/// Segments whose contents were relocated are used again before a snapshot says where the contents lie now.
pub static RELOCATION_UNNOTED: AtomicBool = AtomicBool::new(false);

//! Rules broken on purpose, for the tests of the tests. Not in any build that is shipped.
use std::sync::atomic::AtomicBool;

/// That entries were taken back is not noted in the journal.
pub static TRUNCATE_SKIPPED: AtomicBool = AtomicBool::new(false);

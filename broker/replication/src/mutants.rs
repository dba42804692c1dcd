//! Switches with which mutation tests break a rule on purpose to check that other tests notice. No released build has
//! them.
use std::sync::atomic::AtomicBool;

/// While true, the truncation of a log is not written to the journal.
pub static TRUNCATE_SKIPPED: AtomicBool = AtomicBool::new(false);

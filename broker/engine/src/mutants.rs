//! Rules that a test breaks on purpose, to see that it notices.
use std::sync::atomic::AtomicBool;

/// The digest of an index is not compared with what it holds.
pub static DIGEST_IGNORED: AtomicBool = AtomicBool::new(false);
/// The index of a queue is written without its last run.
pub static SNAPSHOT_FORGETS: AtomicBool = AtomicBool::new(false);

//! Switches for mutation tests, which break a rule on purpose and check that a test notices.
use std::sync::atomic::AtomicBool;

/// If set, the digest of a queue's index is not compared with the restored messages.
pub static DIGEST_IGNORED: AtomicBool = AtomicBool::new(false);
/// If set, the index of a queue is written without its last run.
pub static SNAPSHOT_FORGETS: AtomicBool = AtomicBool::new(false);

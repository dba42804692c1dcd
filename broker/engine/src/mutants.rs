//! Switches for mutation tests, which break a rule on purpose and check that a test notices.
use std::sync::atomic::AtomicBool;

/// If set, the digest of a queue's index is not compared with the restored messages.
pub static DIGEST_IGNORED: AtomicBool = AtomicBool::new(false);
/// If set, the index of a queue is written without its last run.
pub static SNAPSHOT_FORGETS: AtomicBool = AtomicBool::new(false);
/// If set, a batch that gets into the log twice is applied twice.
pub static RETRY_APPLIED: AtomicBool = AtomicBool::new(false);
/// If set, a message that is returned is ready again although it was delivered in an earlier epoch.
pub static RETURN_WITHOUT_EPOCH: AtomicBool = AtomicBool::new(false);

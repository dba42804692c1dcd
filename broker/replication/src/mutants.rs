//! Switches with which mutation tests break a rule on purpose to check that other tests notice. No released build has
//! them.
use std::sync::atomic::AtomicBool;

/// While true, the truncation of a log is not written to the journal.
pub static TRUNCATE_SKIPPED: AtomicBool = AtomicBool::new(false);
/// While true, a leader that restarts leads on in the same term.
pub static LEADER_RESTORED: AtomicBool = AtomicBool::new(false);
/// While true, a vote counts before it is on the disk.
pub static VOTE_UNSYNCED: AtomicBool = AtomicBool::new(false);

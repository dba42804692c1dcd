//! Switches with which mutation tests break a rule on purpose, to check that the suite fails.
use std::sync::atomic::AtomicBool;

/// When set, the first of the runs that are relocated together is forgotten, and its segment is used again.
pub static RELOCATION_FORGETS: AtomicBool = AtomicBool::new(false);
/// When set, segments whose contents were relocated are used again before a snapshot says where the contents lie now.
pub static RELOCATION_UNNOTED: AtomicBool = AtomicBool::new(false);
/// When set, a node that leads no more confirms what it could not get into the log.
pub static STALE_LEADER_CONFIRMS: AtomicBool = AtomicBool::new(false);
/// When set, a leader takes batches that it has taken before.
pub static RETRY_TAKEN: AtomicBool = AtomicBool::new(false);

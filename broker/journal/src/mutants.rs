//! Rules broken on purpose, for the tests of the tests. Not in any build that is shipped.
use std::sync::atomic::AtomicBool;

/// Records are called durable before they are synced.
pub static CONFIRM_BEFORE_SYNC: AtomicBool = AtomicBool::new(false);

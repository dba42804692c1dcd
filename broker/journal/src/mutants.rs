//! Switches with which mutation tests break a rule on purpose to check that other tests notice. No released build has
//! them.
use std::sync::atomic::AtomicBool;

/// While true, records are reported durable before they are synced.
pub static CONFIRM_BEFORE_SYNC: AtomicBool = AtomicBool::new(false);

//! The broker's rules: plain, synchronous, deterministic.
//!
//! There is no async, clock, randomness, I/O or hash order here: times and random names arrive as arguments. In the order
//! of a message's journey: `catalog` (the definitions), `exchange` (routing within one exchange), `queue` (messages that
//! wait for their consumers), `shard` (which operations of a log were applied).
pub mod catalog;
mod exchange;
#[cfg(any(test, feature = "mutants"))]
pub mod mutants;
pub mod queue;
pub mod shard;

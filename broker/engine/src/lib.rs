//! The broker's rules: plain, synchronous, deterministic.
//!
//! No async, clock, randomness, I/O or hash order: time and names that need chance arrive as arguments. In the order
//! of a message's journey: `catalog` (what is declared), `exchange` (where a message goes), `queue` (where it waits,
//! and whom it is handed to).
pub mod catalog;
mod exchange;
#[cfg(any(test, feature = "mutants"))]
pub mod mutants;
pub mod queue;

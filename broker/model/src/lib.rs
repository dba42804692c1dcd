//! The broker's vocabulary: what every other crate speaks of, and nothing that does anything.
//!
//! `name` (what may be called how), `table` (typed key-value lists of clients), `exchange` (types), `refusal` (why
//! something is not done).
pub mod exchange;
pub mod name;
pub mod refusal;
pub mod table;

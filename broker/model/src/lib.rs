//! The broker's vocabulary: the types that all other crates use, without behaviour of their own.
//!
//! `name` (rules for names of objects), `table` (the typed key-value lists of clients), `properties` (of a message),
//! `exchange` (types), `refusal` (of a request), `wire` (AMQP 0-9-1's encoding of tables and properties).
pub mod exchange;
pub mod name;
pub mod properties;
pub mod refusal;
pub mod table;
pub mod wire;

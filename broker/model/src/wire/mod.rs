//! AMQP 0-9-1's encoding of primitive types and field tables (0-9-1 spec 4.2.5).
//!
//! Message properties are stored in this encoding whatever the protocol that a message came with: `properties` reads
//! and writes them. `read` and `write` are the primitive types, `text` converts strings that need not be UTF-8 to text
//! and back, and `table` is the field table. Parsing borrows; no length field of a client makes anything allocate.
pub mod read;
pub mod table;
#[cfg(test)]
mod tests;
pub mod text;
pub mod write;

pub use read::SyntaxError;

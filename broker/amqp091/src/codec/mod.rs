//! AMQP 0-9-1 on the wire: bytes to frames, methods, content and tables, and back. Pure: no sockets, no state.
//!
//! Parsing borrows from the read buffer and copies no body; no length field of a client makes anything allocate.
pub mod content;
pub mod encode;
pub mod frame;
pub mod ids;
pub mod method;
mod read;
pub mod reply;
pub mod table;
#[cfg(test)]
mod tests;
pub mod text;
mod write;

pub use read::SyntaxError;

//! AMQP 0-9-1 on the wire: bytes to frames, methods and content headers, and back. Pure: no sockets, no state.
//!
//! The primitive types, field tables and properties, which other protocols need as well, are in `leveret_model`. Parsing
//! borrows from the read buffer and copies no body; no length field of a client makes anything allocate.
pub mod content;
pub mod encode;
pub mod frame;
pub mod ids;
pub mod method;
pub mod reply;
#[cfg(test)]
mod tests;

//! One client, from its first bytes to its last.
//!
//! In the order of a message's journey: `handshake` (login and tuning), `reader` (bytes to frames, one `turn` at a time,
//! unless a `hold` keeps it from reading), `session` (frames to their handlers, which share the `context`), `output` and
//! `writer` (the bytes that are sent back), `failure` (an error on its way to the client).
pub(crate) mod by_channel;
pub(crate) mod context;
pub(crate) mod failure;
mod handshake;
pub(crate) mod hold;
pub(crate) mod output;
mod reader;
mod session;
pub(crate) mod turn;
mod writer;

pub(crate) use reader::serve;

//! One client: from the first bytes to the last. In order: `handshake` (who is it, what is agreed upon), `reader`
//! (bytes to frames, in a `turn` at a time, unless a `hold` keeps it from reading), `session` (frames to channels), `output`
//! and `writer` (what goes back), `failure` (how it ends).
mod by_channel;
pub(crate) mod failure;
mod handshake;
mod hold;
pub(crate) mod output;
mod reader;
pub(crate) mod session;
pub(crate) mod turn;
mod writer;

pub(crate) use reader::serve;

//! One client: from the first bytes to the last. In order: `handshake` (who is it, what is agreed upon), `reader`
//! (bytes to frames), `session` (frames to channels), `output` and `writer` (what goes back), `failure` (how it ends).
mod by_channel;
pub(crate) mod failure;
mod handshake;
pub(crate) mod output;
mod reader;
pub(crate) mod session;
mod writer;

pub(crate) use reader::serve;

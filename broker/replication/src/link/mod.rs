//! Links between the nodes of a cluster: authenticated connections that carry frames. They know nothing of Raft or of
//! AMQP.
//!
//! Each node dials each other node, once per [`Lane`], so that a heartbeat never waits behind bulk data. A node sends
//! requests and messages on the connections that it dialled, and answers on those that it accepted.
//!
//! The files in the order of a connection's life: `wires` (streams of bytes: TCP, or whatever a simulation puts in its
//! place), `tls` (streams that are encrypted, between nodes with certificates) with `credentials` (the certificates and
//! their files) and `tls_reasons` (what goes wrong, in words), `dial` and `accept` with `accepted` (connections are made
//! and replaced), `handshake` (both sides prove that they know the secret), `connection` with `frame` (frames are written
//! and read until the connection breaks), `calls` (requests that wait for their answers), and `ask` beside them (single
//! questions to an address). `peers` has [`Peers`], the handle to all links of a node, and `state` what their tasks share;
//! `options` has the settings, and `refusals` the log messages about strangers.
mod accept;
mod accepted;
mod ask;
mod calls;
mod connection;
mod credentials;
mod dial;
mod frame;
mod handshake;
mod options;
mod peers;
mod refusals;
mod state;
#[cfg(test)]
mod tests;
mod tls;
mod tls_reasons;
#[cfg(test)]
mod tls_tests;
mod wires;

pub use ask::{AskError, PeerAnswer};
pub use credentials::{TlsFileError, TlsFiles};
pub use options::{LinkDirection, LinkTimes, PeerMessages, PeerQuestions, PeersOptions, SendError};
pub use peers::Peers;
pub use tls::TlsWires;
pub use wires::{TcpWires, Wire, Wires};

pub(crate) use calls::{CallError, PendingAnswer};
pub(crate) use connection::{Answers, FrameHandler, PeerRequests};
pub(crate) use frame::LinkFrame;
pub(crate) use options::Lane;
pub(crate) use state::PeerChange;

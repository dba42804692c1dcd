//! Listening sockets and the clients that come to them, whatever the protocol.
//!
//! `bind` opens the sockets. `accept` takes clients from a socket, asks the protocol for a place for each of them,
//! prepares the client's stream (`client`), and has the protocol serve it in a task of its own. A protocol implements
//! [`Protocol`] and sees nothing of this but streams. `crowd` is a bound on clients for protocols in which the client
//! that has kept the broker waiting for the longest gives way to a new one.
mod accept;
mod bind;
mod client;
mod crowd;

pub use accept::{Protocol, serve};
pub use bind::{ListenError, listen};
pub use client::AcceptedClient;
pub use crowd::{Crowd, Dismissal, Member, WaitingClient};

//! Clients over real sockets, in one program: each file of its own would compile the whole broker once more.
#![allow(clippy::unwrap_used, reason = "a test")]
mod definitions;
mod login;
mod turns;

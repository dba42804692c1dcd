//! Tests with clients over real sockets, in one program: each further program would compile the whole broker once more.
#![allow(clippy::unwrap_used, reason = "a test")]
mod definitions;
mod login;
mod turns;

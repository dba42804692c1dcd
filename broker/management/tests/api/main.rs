//! Tests of the management API over real sockets. They are one program, as each further one would compile the broker again.
#![allow(clippy::unwrap_used, reason = "a test")]
mod bounds;
mod http;
mod served;
mod tools;

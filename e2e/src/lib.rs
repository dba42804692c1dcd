//! What runs the built programs from outside: find them, start them, talk to them, run unmodified clients against them.
//!
//! A test starts a [`broker::BrokerProcess`], runs [`clients::Client`]s or its own lapin connection against it, scrapes it with a
//! real [`prometheus::Prometheus`], and asks over [`http`]. [`raw`] does what no client library does. [`programs`] finds what is run, [`process`] ends it, [`wait`] waits.

pub mod broker;
pub mod clients;
pub mod http;
pub mod process;
pub mod programs;
pub mod prometheus;
pub mod raw;
pub mod wait;

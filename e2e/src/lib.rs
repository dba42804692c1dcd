//! Support for the end-to-end tests, which run the built programs from outside and talk to them as users do.
//!
//! A test starts a [`broker::BrokerProcess`], runs [`clients::Client`]s or its own lapin connection against it, scrapes it
//! with a real [`prometheus::Prometheus`], and sends requests over [`http`]. [`raw`] is an AMQP client that does what no
//! client library does. [`programs`] finds the programs to run, [`process`] runs and ends them, [`wait`] waits for
//! conditions. [`trouble`] has what the tests share in which brokers are killed.

pub mod broker;
pub mod clients;
pub mod http;
pub mod process;
pub mod programs;
pub mod prometheus;
pub mod raw;
pub mod trouble;
pub mod wait;

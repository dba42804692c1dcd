//! Support for the end-to-end tests, which run the built programs from outside and talk to them as users do.
//!
//! A test starts a [`broker::BrokerProcess`], runs [`clients::Client`]s or its own lapin connection against it, scrapes it
//! with a real [`prometheus::Prometheus`], and sends requests over [`http`]. [`raw`] is an AMQP client that does what no
//! client library does. [`programs`] finds the programs to run, [`process`] runs and ends them, [`wait`] waits for
//! conditions. [`trouble`] has what the tests share in which brokers are killed: [`nodes`] are three of them that form a
//! cluster, and [`traffic`] the clients that use it meanwhile. [`network`] cuts nodes off from one another, and [`volume`]
//! fills or breaks the disk of one. [`steady`] clients tell what they see, which [`book`] compares with what has to be so.

pub mod book;
pub mod broker;
pub mod certificates;
pub mod clients;
pub mod http;
pub mod network;
pub mod nodes;
pub mod process;
pub mod programs;
pub mod prometheus;
pub mod raw;
pub mod steady;
pub mod traffic;
pub mod trouble;
pub mod volume;
pub mod wait;

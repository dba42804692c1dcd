//! The node's write-ahead log, which all Raft groups share: records go in with one fdatasync for whatever queued
//! meanwhile, and come out again after a crash. It knows neither groups nor messages.
//!
//! In the order of a record's journey: `room` (promised before it is appended), `journal` (append: a place at once, written
//! later), `ring` (segments: free, in use, recycled), `writer` (one thread, one write and one sync for a group of records),
//! `proof` (what is known to be durable), `recover` over `scan` (what is there after a crash), `format` (bytes on disk). Below
//! them `disk`: all file access, real or `faulty`.
mod disk;
pub mod faulty;
mod format;
mod journal;
#[cfg(any(test, feature = "mutants"))]
pub mod mutants;
mod proof;
mod recover;
mod ring;
mod room;
mod scan;
#[cfg(test)]
mod tests;
mod writer;

pub use disk::{Disk, DiskFile, RealDisk, is_passing, read_whole, write_whole};
pub use format::{Head, KEPT_FROM, Place};
pub use journal::{Body, Driver, Full, Journal, Options, ReadError, Usage};
pub use recover::{OpenError, Recovered};

//! The node's write-ahead log, called the journal, which all Raft groups of the node share. It appends records, makes all
//! records that are waiting durable with one write and one fdatasync, and returns them after a crash. It knows nothing of
//! Raft or of messages: to it a record is a small head and a body of bytes.
//!
//! The files in the order in which a record passes through them: `room` (space promised to a record before it is
//! appended), `journal` (append: the record gets its place at once and is written later), `state` (the data that the
//! handle and the writer share), `ring` (the segment files:
//! free, in use, reused), `writer` (one thread that writes and syncs the waiting records together), `proof` (a small
//! file that says up to where the log is durable), `recover` and below it `scan` (reading the log after a crash),
//! `format` (the bytes on disk). Below all of them lies `disk`, the interface for all file access, with the real
//! implementation; `faulty` is the implementation for tests.
mod disk;
pub mod faulty;
mod format;
mod journal;
#[cfg(any(test, feature = "mutants"))]
pub mod mutants;
mod open_error;
mod proof;
mod recover;
mod ring;
mod room;
mod scan;
mod state;
#[cfg(test)]
mod tests;
mod writer;

pub use disk::{Disk, DiskFile, RealDisk, is_passing, read_whole, write_whole};
pub use format::{Head, KEPT_FROM, RecordPlace, Recovered};
pub use journal::{Full, LogUsage, ReadError, RecordBody};
pub use open_error::JournalOpenError;
pub use state::{Driver, Journal, JournalOptions};

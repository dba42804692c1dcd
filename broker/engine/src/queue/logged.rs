//! What a durable queue and the log say to each other: where runs lie, what happened to deliveries, and what is to be read.
use super::ranges::Ranges;
use bytes::Bytes;
use std::collections::BTreeMap;

/// Where a run lies: a slice of a record in a file of the log, or of the archive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: u64,
    /// Of the record in the file.
    pub offset: u32,
    /// Length of the record in bytes.
    pub len: u32,
    /// Of the run in the record.
    pub at: u32,
    /// Length of the run in bytes.
    pub run_len: u32,
}

/// A run that the log has.
pub struct LoggedRun<'a> {
    /// In stored form: lengths, exchange, routing key, messages.
    pub run: &'a Bytes,
    /// Where it lies.
    pub place: Place,
    /// Messages in it.
    pub count: u32,
    /// Bytes of their bodies.
    pub body_bytes: u64,
    /// Its bytes stay in memory for a delivery soon.
    pub warm: bool,
}

/// What happened to deliveries, to be logged before it counts.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct DeliveryChanges {
    /// Messages that are gone for good: the first sequence of each range, and the number of messages.
    pub settled: Vec<(u64, u64)>,
    /// Messages that are ready again: the sequence of each, and the offset in its segment.
    pub returned: Vec<(u64, u32)>,
}

/// Runs to be read: the number of each one's segment in the queue, and where the run lies.
pub type ReadRequest = Vec<(u64, Place)>;

/// How much is read at a time, at most; one run in any case.
pub(super) struct ReadBounds {
    /// Of the runs, in bytes: what stays in memory.
    pub(super) run_bytes: u64,
    /// Of the records that the runs lie in, in bytes: what the disk is asked for.
    pub(super) record_bytes: u64,
}

#[derive(Default)]
pub(super) struct Durable {
    pub(super) settled: Ranges,
    /// How often each message was given back.
    pub(super) counts: BTreeMap<u64, u32>,
    /// Changes with every message that comes or goes: equal on replicas that hold the same.
    pub(super) digest: u64,
}

impl Durable {
    /// A sum over the messages of a range: what a digest changes by when they come or go.
    pub(super) fn range_digest(first: u64, count: u64) -> u64 {
        let last = first.wrapping_add(count);
        let triangle = |n: u64| (u128::from(n) * (u128::from(n) + 1) / 2) as u64;
        triangle(last).wrapping_sub(triangle(first)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

//! The types that durable queues and the log exchange: names of runs, settlements and returns, and requests to read.
use super::ranges::Ranges;
use super::run::DeliveryId;
use bytes::Bytes;
use std::collections::BTreeMap;

/// The name of a run: a slice of an entry of the log. It is the same on every replica, wherever the bytes lie there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct RunName {
    /// The index of the entry in the log of the queue's shard.
    pub entry: u64,
    /// Offset of the run in the entry, in bytes.
    pub at: u32,
    /// Length of the run in bytes.
    pub len: u32,
}

/// The location of a run in a file, which older versions of a queue's index had in place of the run's name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OldPlace {
    /// The number of the file.
    pub file: u64,
    /// Offset of the record in the file.
    pub offset: u32,
    /// Length of the record in bytes.
    pub len: u32,
    /// Offset of the run in the record.
    pub at: u32,
    /// Length of the run in bytes.
    pub run_len: u32,
}

/// A run that the log has.
pub struct LoggedRun<'a> {
    /// The run in stored form.
    pub run: &'a Bytes,
    /// The name of the run.
    pub name: RunName,
    /// The number of messages in the run.
    pub count: u32,
    /// Bytes of their bodies.
    pub body_bytes: u64,
    /// True if the bytes stay in memory because they will be delivered soon.
    pub warm: bool,
}

/// Settlements and returns of deliveries, which take effect once they are logged.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct DeliveryChanges {
    /// Messages that are gone for good: the first sequence of each range, and the number of messages.
    pub settled: Vec<(u64, u64)>,
    /// Messages that are ready again.
    pub returned: Vec<DeliveryId>,
    /// Messages that were granted to this node and not delivered to a consumer: they are ready again, and were not returned
    /// by anybody.
    pub released: Vec<DeliveryId>,
}

/// Runs to be read: the number of the segment and the name of each.
pub type ReadRequest = Vec<(u64, RunName)>;

#[derive(Default)]
pub(super) struct Durable {
    pub(super) settled: Ranges,
    /// The number of times that each message was returned, by sequence.
    pub(super) counts: BTreeMap<u64, u32>,
    /// A sum that changes with every message that is added or removed. It is equal on replicas that hold the same
    /// messages.
    pub(super) digest: u64,
}

impl Durable {
    /// Returns the amount by which the digest changes when the messages of a range are added or removed.
    pub(super) fn range_digest(first: u64, count: u64) -> u64 {
        let last = first.wrapping_add(count);
        let triangle = |n: u64| (u128::from(n) * (u128::from(n) + 1) / 2) as u64;
        triangle(last).wrapping_sub(triangle(first)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

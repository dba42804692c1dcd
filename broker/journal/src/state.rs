//! The handle to the log, its settings, and the data that it shares with the writer's thread.
use crate::disk::{Disk, DiskFile};
use crate::format::{Head, RECORD_HEAD};
use crate::proof::Proof;
use crate::ring::{NewSegment, Ring};
use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// The settings of a journal.
#[derive(Clone)]
pub struct JournalOptions {
    /// Identity of the node, a random number. A log that was written by another node is refused.
    pub node: u64,
    /// Size of a segment in bytes. Determines [`Journal::record_bytes_max`].
    pub segment_bytes: u32,
    /// The largest number of segment files. Control records may exceed it, see [`Journal::append`].
    pub segments_max: u32,
    /// The number of these segments that are reserved for control records.
    pub segments_reserved: u32,
    /// True if an earlier start has made the log. Then a missing log is an error instead of a reason to make a new one.
    pub made: bool,
    /// Called with the reason when the log cannot be written any more; has to end the process.
    pub on_failure: Arc<dyn Fn(String) + Send + Sync>,
    /// The driver that has the journal written, for tests; `None`: the journal has a writer's thread.
    pub driver: Option<Arc<dyn Driver>>,
}

/// Replaces the node's threads for disk work, so that a simulation decides when the journal writes and syncs. A journal
/// with a driver is called driven.
pub trait Driver: Send + Sync {
    /// Called when the journal is open. From then on the driver has to call [`Journal::step`] or [`Journal::turn`]
    /// repeatedly.
    fn drive(&self, journal: Journal);
    /// Called when an append could write and sync its record itself. Returns whether it may; otherwise the record waits
    /// for the driver.
    fn writes_at_once(&self) -> bool;
    /// Runs work that waits for the disk while other tasks go on. The future ends with the work.
    fn off_thread(&self, work: Box<dyn FnOnce() + Send>) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

/// The handle to the log; cheap to clone.
#[derive(Clone)]
pub struct Journal(pub(crate) Arc<JournalInner>);

pub(crate) struct JournalInner {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) options: JournalOptions,
    pub(crate) state: Mutex<JournalState>,
    /// Wakes the writer's thread: a record was queued, there is idle work, or the journal stops.
    pub(crate) wakeup: Condvar,
    /// Wakes the callers of `flush`: records became durable, or the disk has failed.
    pub(crate) progress: Condvar,
    /// Sequence up to which all records are durable.
    pub(crate) durable_sequence: AtomicU64,
    pub(crate) bytes_written: AtomicU64,
    pub(crate) syncs: AtomicU64,
    pub(crate) failed: AtomicBool,
    pub(crate) proof: Proof,
    /// Sequence up to which a synced slot of the proof says that records are durable.
    pub(crate) proven_sequence: AtomicU64,
    /// True while the writer's thread has nothing to do and waits to be woken.
    pub(crate) asleep: AtomicBool,
    pub(crate) driven_writes: Mutex<DrivenWrites>,
    /// Held by the thread that writes and syncs records.
    pub(crate) writing: Mutex<()>,
}

pub(crate) struct JournalState {
    pub(crate) ring: Ring,
    pub(crate) next_sequence: u64,
    pub(crate) queue: Vec<PendingRecord>,
    pub(crate) stopping: bool,
    /// True while a spare file is being prepared or a free file swept.
    pub(crate) preparing: bool,
    /// The newest kept record of each group and kind.
    pub(crate) kept: BTreeMap<(u16, u8), Head>,
    /// Bytes promised to records that are not queued yet.
    pub(crate) promised: u64,
}

/// A record that has its place and is not written yet.
pub(crate) struct PendingRecord {
    pub(crate) file: Arc<dyn DiskFile>,
    /// The segment whose first record this is; its header is written before the record.
    pub(crate) new_segment: Option<NewSegment>,
    /// Offset of the record's header in the file.
    pub(crate) offset: u32,
    pub(crate) header: [u8; RECORD_HEAD],
    pub(crate) body: Bytes,
    pub(crate) sequence: u64,
    pub(crate) on_durable: Option<Box<dyn FnOnce() + Send>>,
}

/// The records of a driven journal that were taken from the queue and are not durable yet.
#[derive(Default)]
pub(crate) struct DrivenWrites {
    /// The records that are written and not synced.
    pub(crate) written: Vec<PendingRecord>,
    /// The records that are not written yet.
    pub(crate) rest: Vec<PendingRecord>,
}

impl DrivenWrites {
    /// Returns whether there are such records.
    pub(crate) fn is_pending(&self) -> bool {
        !self.written.is_empty() || !self.rest.is_empty()
    }
}

impl JournalInner {
    /// Returns whether there is work to do although no record is queued: the proof is behind, or a file is to be
    /// prepared.
    pub(crate) fn has_idle_work(&self, state: &JournalState) -> bool {
        let durable = self.durable_sequence.load(Relaxed);
        let prepares = state.ring.wants_spare().is_some() || state.ring.wants_sweep(durable, state.promised);
        !self.failed.load(Relaxed) && (durable > self.proven_sequence.load(Relaxed) || (prepares && !state.preparing))
    }
}

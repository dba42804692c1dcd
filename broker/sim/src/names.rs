//! The queues and bindings that clients use, and what they may know of each: there, not there, or unknown since a request was
//! cancelled or others changed it at the same time.
use leveret_node::QueueId;

/// Queues that there are names for.
pub(crate) const SLOTS: usize = 7;
/// Bound to `fan` for ever.
pub(crate) const FAN: [usize; 3] = [0, 1, 4];
/// Bound to `fan` now and then.
pub(crate) const BOUND_AT_TIMES: [usize; 2] = [2, 5];
/// Deleted and declared again.
pub(crate) const DELETED: [usize; 2] = [3, 6];
/// The quorum queue.
pub(crate) const QUORUM: usize = 4;
/// Its delivery limit.
pub(crate) const DELIVERY_LIMIT: u32 = 3;

/// Whether the queue outlives a restart.
pub(crate) fn is_durable(at: usize) -> bool {
    at < 5
}

/// How often a message of the queue may be given back.
pub(crate) fn delivery_limit(at: usize) -> Option<u32> {
    (at == QUORUM).then_some(DELIVERY_LIMIT)
}

pub(crate) fn name(at: usize) -> String {
    format!("q{at}")
}

/// What is known of the queue with a name.
#[derive(Clone, Default)]
pub(crate) struct Name {
    /// Its identity, if it is there.
    pub(crate) id: Option<QueueId>,
    /// Requests under way that declare or delete it.
    pub(crate) busy: u32,
    /// Of these, those that delete.
    pub(crate) deletes: u32,
    /// Some were under way at a time.
    pub(crate) overlapped: bool,
    /// One was cancelled: nobody knows what came of it.
    pub(crate) cancelled: bool,
    /// Since it was last known: times it was made, less the times it was deleted.
    pub(crate) balance: i64,
}

impl Name {
    /// Whether nobody is changing it, and what is known of it holds.
    pub(crate) fn is_sure(&self) -> bool {
        self.busy == 0 && !self.overlapped && !self.cancelled
    }
}

/// What is known of a binding.
#[derive(Clone, Default)]
pub(crate) struct Bound {
    pub(crate) is: bool,
    pub(crate) busy: u32,
    pub(crate) unsure: bool,
}

impl Bound {
    pub(crate) fn is_sure(&self) -> bool {
        self.busy == 0 && !self.unsure
    }
}

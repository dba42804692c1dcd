//! The queues, the bindings and the exchange that clients use, and what is known of each: that it exists, that it does not, or nothing,
//! because a request was cancelled or several requests changed it at the same time.
//!
//! A slot is the number of a queue's name: slot 3 is the queue `q3`, which may be deleted and declared again.
use leveret_node::QueueId;

/// The number of slots.
pub(crate) const SLOTS: usize = 7;
/// The queues that are always bound to the exchange `fan`.
pub(crate) const FAN: [usize; 3] = [0, 1, 4];
/// The queues that clients bind to `fan` and unbind again.
pub(crate) const BOUND_AT_TIMES: [usize; 2] = [2, 5];
/// The queues that clients delete and declare again.
pub(crate) const DELETED: [usize; 2] = [3, 6];
/// The quorum queue.
pub(crate) const QUORUM: usize = 4;
/// The delivery limit of the quorum queue.
pub(crate) const DELIVERY_LIMIT: u32 = 3;

/// Returns whether the queue is durable.
pub(crate) fn is_durable(at: usize) -> bool {
    at < 5
}

/// Returns how often a message of the queue may be given back before it is dropped; `None` for any number.
pub(crate) fn delivery_limit(at: usize) -> Option<u32> {
    (at == QUORUM).then_some(DELIVERY_LIMIT)
}

pub(crate) fn name(at: usize) -> String {
    format!("q{at}")
}

/// The record of the queue with a name.
#[derive(Clone, Default)]
pub(crate) struct Name {
    /// The identity of the queue; `None` if it does not exist.
    pub(crate) id: Option<QueueId>,
    /// The number of requests under way that declare or delete it.
    pub(crate) busy: u32,
    /// The number of requests under way that delete it.
    pub(crate) deletes: u32,
    /// True if several of these requests were under way at the same time.
    pub(crate) overlapped: bool,
    /// True if one of these requests was cancelled, so that its outcome is unknown.
    pub(crate) cancelled: bool,
    /// The number of times that the queue was created, less the number of times that it was deleted, since `id` was last
    /// known.
    pub(crate) balance: i64,
}

impl Name {
    /// Returns whether `id` is reliable: no request is changing the queue, and the outcome of all earlier ones is known.
    pub(crate) fn is_sure(&self) -> bool {
        self.busy == 0 && !self.overlapped && !self.cancelled
    }
}

/// The record of the binding between `fan` and a queue.
#[derive(Clone, Default)]
pub(crate) struct Bound {
    /// True if the binding exists, as far as is known.
    pub(crate) is: bool,
    /// The number of requests under way that bind or unbind.
    pub(crate) busy: u32,
    /// True if requests overlapped or were cancelled, so that `is` may be wrong.
    pub(crate) unsure: bool,
}

impl Bound {
    /// Returns whether `is` is reliable.
    pub(crate) fn is_sure(&self) -> bool {
        self.busy == 0 && !self.unsure
    }
}

/// The state of the auto-delete exchange `brief`, as far as clients know it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Brief {
    /// The exchange does not exist.
    #[default]
    Absent,
    /// The exchange exists and is bound to the queue of this slot.
    BoundTo(usize),
    /// Unknown, as a request was not answered, or its queue did not survive a restart.
    Unknown,
}

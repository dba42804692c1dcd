//! Who asks, and whether a queue that belongs to a connection is open to them.
use super::refusals::Subject;
use super::{ConnectionId, DeclaredQueue};
use leveret_model::refusal::Refusal;

/// Where a request comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A client's connection.
    Connection(ConnectionId),
    /// The management API.
    Api,
    /// The node itself, or a program that it is a part of.
    System,
}

/// What somebody wants with a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To declare it again, consume from it or bind it: an exclusive queue is for its own connection alone.
    Use,
    /// To look at it, purge or delete it: whoever administers the node may do that to every queue.
    Administer,
}

impl DeclaredQueue {
    /// # Errors
    /// 405 if the queue belongs to another connection.
    pub(super) fn check_access(&self, queue: Subject<'_>, origin: Origin, purpose: Purpose) -> Result<(), Refusal> {
        let is_open = match (self.exclusive, origin, purpose) {
            (None, ..) => true,
            (Some(owner), Origin::Connection(connection), _) => owner == connection,
            (Some(_), Origin::Api | Origin::System, Purpose::Administer) => true,
            (Some(_), Origin::Api | Origin::System, Purpose::Use) => false,
        };
        if is_open { Ok(()) } else { Err(queue.locked()) }
    }
}

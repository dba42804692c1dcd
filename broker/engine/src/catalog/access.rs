//! The origin of a request, and whether it may use a queue that belongs to a connection.
use super::refusals::Subject;
use super::{ConnectionId, DeclaredQueue};
use leveret_model::refusal::Refusal;

/// The origin of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A client's connection.
    Connection(ConnectionId),
    /// The management API.
    Api,
    /// The node itself, or the program that it is a part of.
    System,
}

/// The purpose for which a request needs a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To declare it again, consume from it or bind it. An exclusive queue allows that only to its own connection.
    Use,
    /// To look at it, purge it or delete it. An administrator of the node may do that to every queue.
    Administer,
}

impl DeclaredQueue {
    /// Checks that a request from `origin` may use the queue for `purpose`.
    ///
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

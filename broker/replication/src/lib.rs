//! The Raft groups of a node, whose logs share the node's journal. This is the only crate that uses openraft.
//!
//! The files in the order in which an entry passes through them: `group` (an entry is submitted, and its leader gives
//! it an index), `log_store` with `log_table` (it is appended to the journal, becomes durable, and can be read),
//! `state_machine` (it is applied, in order, by an implementation of [`GroupStates`]), `snapshot` (the state is written to
//! a file, and the log before it is purged). `types` defines the types that openraft is used with. `network` is the way
//! to the peers, of which there are none while every group has one voter.
//!
//! Invariants: an entry is applied only after it is durable. Votes and entries reach the disk in the order in which
//! openraft wrote them, because both are records of the journal. No entry is purged that is not covered by a snapshot.
//! A leader that restarts is a follower first: with `enable_leader_restore` it would give other entries the indexes of
//! a lost tail.
mod group;
mod log_store;
mod log_table;
#[cfg(any(test, feature = "mutants"))]
pub mod mutants;
mod network;
#[cfg(feature = "simulated")]
mod simulated;
mod snapshot;
mod state_machine;
#[cfg(test)]
mod tests;
mod types;

pub use group::{Groups, GroupsOpenError, GroupsOptions, NotLeader};

use bytes::Bytes;
use leveret_journal::RecordPlace;

/// Number of a Raft group of the node. At a start the log of group 0 is applied completely before those of the others.
pub type GroupId = u16;

/// The states to which the entries of the groups are applied. The methods are synchronous, and are called by one
/// task per group, in the order of the group's log.
pub trait GroupStates: Send + Sync + 'static {
    /// Applies a committed entry.
    ///
    /// # Errors
    /// The reason why the entry cannot be applied. The group stops at this entry.
    fn apply(&self, group: GroupId, entry: &AppliedEntry) -> Result<(), String>;

    /// Called after some entries were applied and other tasks had a turn. Does work that follows from these entries and
    /// need not be done before the callers that wait for the entries are told.
    fn follow_up(&self, group: GroupId);

    /// Returns the state of the group after the last applied entry, encoded.
    ///
    /// # Errors
    /// The reason why there is no state any more. The group stops, and no snapshot is written.
    fn snapshot(&self, group: GroupId) -> Result<GroupSnapshot, String>;

    /// Replaces the state of the group with one that [`snapshot`](Self::snapshot) returned. At a start this comes
    /// before any entry.
    ///
    /// # Errors
    /// The reason why the bytes cannot be decoded.
    fn restore(&self, group: GroupId, snapshot: &GroupSnapshot) -> Result<(), String>;
}

/// A committed entry of a group's log.
#[derive(Clone, Debug)]
pub struct AppliedEntry {
    /// Position of the entry in the log, which is the same on every node.
    pub index: u64,
    /// The bytes that were submitted.
    pub bytes: Bytes,
    /// The place of the bytes in the journal of this node.
    pub place: RecordPlace,
}

/// The state of a group after an entry of its log, encoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupSnapshot {
    /// The state, which is the same on every node after the same entry.
    pub state: Vec<u8>,
    /// What belongs to this node alone: where the state's contents lie on its disk. It is never sent to another node.
    pub local: Vec<u8>,
}

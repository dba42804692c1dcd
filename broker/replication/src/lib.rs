//! The Raft groups of a node, whose logs share the node's journal. This is the only crate that uses openraft.
//!
//! The files in the order in which an entry passes through them: `group` (an entry is submitted to the `replica` of a
//! group on this node, and its leader gives it an index), `proposal` with `responder` (whoever submitted it gets an
//! answer), `log_store` with `log_table` and `durable` (it is appended to the journal, becomes durable, and can be read),
//! `network` with `remote` and `wire` (it is sent to the other members), `serve` (a member receives it), `state_machine`
//! (it is applied, in order, by an implementation of [`GroupStates`]), `snapshot` (the state is written to a file, and the
//! log before it is purged). `snapshot_data`, `send_snapshot` and `receive_snapshot` bring a snapshot to a member that
//! lacks purged entries, with the contents to which its state refers.
//!
//! Beside these, `start` opens the groups (`open_error` says why that fails), `members` changes who belongs to them,
//! `leadership` tells when this node leads, and `takeover` replaces a leader whose process has ended. `link` has the
//! authenticated connections between nodes; it knows nothing of groups. `types` defines the types that openraft is used
//! with.
//!
//! Invariants: an entry is applied only after it is durable. Votes and entries reach the disk in the order in which
//! openraft wrote them, because both are records of the journal. No entry is purged that is not covered by a snapshot.
//! A leader that restarts is a follower first: with `enable_leader_restore` it would give other entries the indexes of
//! a lost tail.
mod beat;
mod durable;
mod group;
mod leadership;
mod link;
mod log_store;
mod log_table;
mod members;
#[cfg(any(test, feature = "mutants"))]
pub mod mutants;
mod network;
mod open_error;
mod proposal;
mod receive_snapshot;
mod remote;
mod replica;
mod responder;
mod send_snapshot;
mod serve;
#[cfg(feature = "simulated")]
pub mod simulated;
mod snapshot;
mod snapshot_data;
mod start;
mod state_machine;
mod takeover;
#[cfg(test)]
mod tests;
mod types;
mod wire;

pub use group::{GroupLeader, Groups};
pub use link::{
    AskError, LinkDirection, LinkTimes, PeerAnswer, PeerMessages, PeerQuestions, Peers, PeersOptions, SendError,
    TcpWires, TlsFileError, TlsFiles, TlsWires, Wire, Wires,
};
pub use members::{GroupStatus, MemberError};
pub use open_error::GroupsOpenError;
pub use proposal::{NotLeader, SubmitOutcome};
pub use start::GroupsOptions;
pub use types::GroupMember;

use bytes::Bytes;
use futures::future::BoxFuture;
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
    /// before any entry. Later, the state comes from a peer: the local part is empty, and the contents have arrived.
    ///
    /// # Errors
    /// The reason why the bytes cannot be decoded.
    fn restore(&self, group: GroupId, snapshot: &GroupSnapshot) -> Result<(), String>;

    /// Returns the local part that belongs to the state after [`restore`](Self::restore).
    fn local(&self, _group: GroupId) -> Vec<u8> {
        Vec::new()
    }

    /// Called when the state that came from a peer is on the disk. What belonged to the state before can be freed.
    fn installed(&self, _group: GroupId) {}

    /// Begins to receive the contents to which a state refers that came from a peer: finds those that this node lacks.
    ///
    /// # Errors
    /// The reason why the bytes cannot be decoded.
    fn begin_contents(&self, _group: GroupId, _state: &[u8]) -> Result<(), String> {
        Ok(())
    }

    /// Makes durable what [`take_contents`](Self::take_contents) took. Returns which contents are to be sent next, in a
    /// form that is opaque to the groups; it is empty if all are here.
    fn wanted_contents(&self, _group: GroupId) -> BoxFuture<'static, Result<Bytes, String>> {
        Box::pin(std::future::ready(Ok(Bytes::new())))
    }

    /// Takes a part of the contents. Parts may come more than once, and in any order.
    fn take_contents(&self, group: GroupId, _part: Bytes) -> BoxFuture<'static, Result<(), String>> {
        Box::pin(std::future::ready(Err(format!("group {group} has no contents"))))
    }

    /// Returns whether all contents are here and durable of the state for which
    /// [`begin_contents`](Self::begin_contents) was called last.
    fn has_contents(&self, _group: GroupId) -> bool {
        true
    }

    /// Reads the first of the contents that a peer wants, about a mebibyte of them.
    fn read_contents(&self, group: GroupId, _wanted: Bytes) -> BoxFuture<'static, Result<ContentsPart, String>> {
        Box::pin(std::future::ready(Err(format!("group {group} has no contents"))))
    }

    /// Called when this node leads the group in `term` and everything of earlier terms is applied. It leads until
    /// [`follow`](Self::follow) is called.
    fn lead(&self, _group: GroupId, _term: u64) {}

    /// Called when this node does not lead the group any more, or stops. May be called while an entry is being applied,
    /// by another task; entries of the term that has ended may still be applied later.
    fn follow(&self, _group: GroupId) {}
}

/// A committed entry of a group's log.
#[derive(Clone, Debug)]
pub struct AppliedEntry {
    /// Position of the entry in the log, which is the same on every node.
    pub index: u64,
    /// The term of the leader that put the entry into the log.
    pub term: u64,
    /// The bytes that were submitted.
    pub bytes: Bytes,
    /// The place of the bytes in the journal of this node.
    pub place: RecordPlace,
}

/// Some of the contents that a peer wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContentsPart {
    /// The contents, for the peer's [`take_contents`](GroupStates::take_contents).
    pub part: Bytes,
    /// What the peer wants beside these; shorter than what it wanted before.
    pub later: Bytes,
}

/// The state of a group after an entry of its log, encoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupSnapshot {
    /// The state, which is the same on every node after the same entry.
    pub state: Vec<u8>,
    /// What belongs to this node alone: where the state's contents lie on its disk. It is never sent to another node.
    pub local: Vec<u8>,
}

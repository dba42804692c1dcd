//! Raft groups over the node's journal: the only crate that names openraft.
//!
//! In the order of an entry's journey: `group` (handed in, numbered by its leader), `log_store` over `log_table` (into the
//! journal, durable, read again), `state_machine` (applied, in order, by what implements [`Applied`]), `snapshot` (the state
//! as a file, after which the log before it goes). `types` ties openraft's types together, `network` reaches the peers: there
//! are none while every group has one voter.
//!
//! Invariants: an entry is applied only after it is durable; votes and entries reach the disk in the order that openraft
//! gave them (both are records of the journal); what a snapshot does not have is never purged; a leader that restarts is a follower first
//! (`enable_leader_restore` off: it would give the indexes of a lost tail to other entries).
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

pub use group::{Groups, NotLeader, OpenError, Options};

use bytes::Bytes;
use leveret_journal::Place;

/// Names a Raft group of the node; 0 is the first to be complete at a start.
pub type GroupId = u16;

/// What a group's log is for. Synchronous; called by one task a group, in the order of the log.
pub trait Applied: Send + Sync + 'static {
    /// An entry is committed; its bytes lie at `place` in the journal.
    ///
    /// # Errors
    /// What the entry is that it cannot be applied: the group stops there.
    fn apply(&self, group: GroupId, entry: &Bytes, place: Place) -> Result<(), String>;

    /// Called after some entries were applied and other tasks had a turn: for what follows from the entries and may come after
    /// those who waited for them were told.
    fn follow_up(&self, group: GroupId);

    /// The state of the group as of the last entry applied.
    ///
    /// # Errors
    /// There is none any more: the group stops, and nothing is written.
    fn snapshot(&self, group: GroupId) -> Result<Vec<u8>, String>;

    /// Takes over a state that `snapshot` gave, before any entry.
    ///
    /// # Errors
    /// What is wrong with it.
    fn restore(&self, group: GroupId, snapshot: &[u8]) -> Result<(), String>;
}

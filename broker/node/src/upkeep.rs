//! The memory of the maintenance task: what earlier rounds left to be done, and what is left alone for a while.
use leveret_replication::GroupId;
use std::collections::{BTreeMap, BTreeSet};
use std::io;

/// The state that the maintenance keeps between its rounds.
#[derive(Default)]
pub(crate) struct Upkeep {
    /// The groups whose snapshot on disk does not say yet where their contents lie now.
    pub(crate) moved: BTreeSet<GroupId>,
    /// The files that contents were moved out of since the last time when the snapshots of all groups said where their
    /// contents lie.
    pub(crate) emptied: BTreeSet<u64>,
    /// The files that could not be read, with the round from which on reading them is tried again.
    aside: BTreeMap<u64, u64>,
    /// The last snapshot that each group's log was cut by.
    pub(crate) cuts: BTreeMap<GroupId, LogCut>,
    /// The number of rounds since the start of the node.
    pub(crate) rounds: u64,
    /// The first round in which a snapshot may be begun again, after a step of a round failed.
    snapshots_from: u64,
    /// Set if the round before failed; the failure is logged once.
    pub(crate) held_up: bool,
    /// The files that were compacted in the last round that compacted the archive.
    compacted: BTreeSet<u64>,
    /// Set if there may be more to compact, which is done in the next round.
    pub(crate) compacts: bool,
}

/// A snapshot that a log was cut by.
#[derive(Clone, Copy)]
pub(crate) struct LogCut {
    /// The number of the segment that was written to at that time.
    pub(crate) segment: u64,
    /// The number of entries that were left in the log.
    pub(crate) left: u64,
}

impl Upkeep {
    /// Leaves a file alone for ten seconds, because contents in it cannot be read.
    pub(crate) fn set_aside(&mut self, file: u64) {
        self.aside.insert(file, self.rounds + ASIDE_ROUNDS);
    }

    pub(crate) fn is_aside(&self, file: u64) -> bool {
        self.aside.get(&file).is_some_and(|until| *until > self.rounds)
    }

    /// Notes that these files were compacted. There may be more to compact as long as each round compacts different files.
    pub(crate) fn has_compacted(&mut self, files: BTreeSet<u64>) {
        self.compacts = !files.is_empty() && files != self.compacted;
        self.compacted = files;
    }

    /// Returns whether work is left that has to go on even while no client does anything.
    pub(crate) fn has_work(&self) -> bool {
        self.compacts || !self.moved.is_empty() || !self.emptied.is_empty()
    }

    /// Has no snapshot begun for two seconds if a step of this round failed.
    pub(crate) fn wait_if_in_vain(&mut self, failed: &[io::Error]) {
        if !failed.is_empty() {
            self.snapshots_from = self.rounds + SNAPSHOT_AGAIN_ROUNDS;
        }
        self.aside.retain(|_, until| *until > self.rounds);
    }

    /// Returns whether no snapshot is begun in this round, because a step of an earlier one failed.
    pub(crate) fn waits(&self) -> bool {
        self.rounds < self.snapshots_from
    }
}

/// A snapshot that found no space is begun again after two seconds.
pub(crate) const SNAPSHOT_AGAIN_ROUNDS: u64 = 10;
/// A file that could not be read is left alone for ten seconds.
const ASIDE_ROUNDS: u64 = 50;

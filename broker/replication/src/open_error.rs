//! Why the groups of a node cannot be opened.
use crate::GroupId;
use leveret_journal::JournalOpenError;
use std::io;

/// The reasons why the groups cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum GroupsOpenError {
    /// The journal cannot be opened.
    #[error(transparent)]
    Journal(#[from] JournalOpenError),
    /// Entries are missing in the log of a group.
    #[error("the log of group {group} has entry {found} where entry {expected} should be")]
    Hole {
        /// Number of the group.
        group: GroupId,
        /// Index of the first missing entry.
        expected: u64,
        /// Index of the entry that was found in its place.
        found: u64,
    },
    /// The snapshot that the purged part of a log depends on is missing or too old.
    #[error(
        "{file} {state}: the log of group {group} was cut at entry {purged}, and only that file has the state up to there"
    )]
    Snapshot {
        /// Name of the snapshot file.
        file: String,
        /// "is missing" or "is older than the log".
        state: &'static str,
        /// Number of the group.
        group: GroupId,
        /// Index of the last entry that was purged from the log.
        purged: u64,
    },
    /// A snapshot, or the state in it, cannot be read.
    #[error("group {group}: {error}")]
    State {
        /// Number of the group.
        group: GroupId,
        /// The error of the disk or of [`GroupStates::restore`].
        error: io::Error,
    },
    /// openraft failed, or the log was not applied.
    #[error("group {group} did not start: {reason}")]
    Raft {
        /// Number of the group.
        group: GroupId,
        /// The error of openraft.
        reason: String,
    },
}

//! The content of a snapshot as openraft passes it around: not the bytes, which may take much of the memory, but where
//! they are.
use crate::GroupId;
use crate::log_table::LogTable;
use crate::snapshot::{self, StoredSnapshot};
use crate::types::{LogId, StoredMembership};
use leveret_journal::Disk;
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;

pub(crate) enum SnapshotData {
    /// The newest snapshot on this node's disk.
    Stored {
        group: GroupId,
        disk: Arc<dyn Disk>,
        table: Arc<Mutex<LogTable>>,
        /// True if files are read on blocking threads.
        threads: bool,
    },
    /// A snapshot that came from a peer.
    Received(WholeSnapshot),
}

/// A snapshot with its bytes.
pub(crate) struct WholeSnapshot {
    /// The last entry that the snapshot covers.
    pub(crate) last: LogId,
    pub(crate) membership: StoredMembership,
    /// The encoded state of the group.
    pub(crate) state: Vec<u8>,
    /// Chain of the entry `last`; `None` if the log does not know that entry.
    pub(crate) chain: Option<u32>,
}

impl SnapshotData {
    /// Returns the snapshot with its bytes. If it is read from the disk, it may be newer than the one that was asked for:
    /// snapshots are replaced. The error is that of the disk, or `NotFound` if there is no snapshot.
    pub(crate) async fn load(self) -> io::Result<WholeSnapshot> {
        let (group, disk, table, threads) = match self {
            Self::Received(whole) => return Ok(whole),
            Self::Stored { group, disk, table, threads } => (group, disk, table, threads),
        };
        for attempt in 1.. {
            let disk = disk.clone();
            let read = move || snapshot::read(&*disk, group);
            let stored = if threads { tokio::task::spawn_blocking(read).await? } else { read() }?;
            let Some(StoredSnapshot { last: Some(last), membership, snapshot }) = stored else { break };
            let state = snapshot.state;
            // Unknown if the snapshot was replaced and the log was purged further since the file was read.
            let chain = table.lock().chain_of(last);
            if chain.is_some() || attempt == READS_MAX {
                return Ok(WholeSnapshot { last, membership, state, chain });
            }
        }
        Err(io::Error::new(io::ErrorKind::NotFound, format!("group {group} has no snapshot")))
    }
}

/// A snapshot that is replaced while it is read is read this many times.
const READS_MAX: u32 = 5;

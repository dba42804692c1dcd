//! openraft's state machine over [`Applied`]: entries in order, snapshots to a file.
use crate::log_table::LogTable;
use crate::snapshot;
use crate::types::{LogId, StoredMembership, TypeConfig};
use crate::{Applied, GroupId};
use futures::{Stream, TryStreamExt};
use leveret_journal::{Disk, Place, is_passing};
use openraft::alias::{SnapshotMetaOf, SnapshotOf};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use tokio::sync::watch;

#[derive(Clone)]
pub(crate) struct Machine {
    pub(crate) group: GroupId,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) applied: Arc<dyn Applied>,
    pub(crate) table: Arc<Mutex<LogTable>>,
    pub(crate) last: Option<LogId>,
    pub(crate) membership: StoredMembership,
    pub(crate) builds: Arc<Builds>,
    /// There are threads for what waits for the disk.
    pub(crate) threads: bool,
}

/// The snapshots of a group that were begun, by number, and how the last one ended.
#[derive(Default)]
pub(crate) struct Builds {
    begun: AtomicU64,
    pub(crate) ended: watch::Sender<Ended>,
    /// What the snapshot on the disk covers.
    stored: Mutex<(Option<LogId>, StoredMembership)>,
    /// Bytes of the state in it.
    bytes: AtomicU64,
}

/// The number of a snapshot, and why it was not written.
#[derive(Clone, Default)]
pub(crate) struct Ended {
    pub(crate) number: u64,
    pub(crate) error: Option<Arc<io::Error>>,
}

impl Builds {
    /// The snapshot on the disk, of a state of `bytes`, covers the log up to `last`.
    pub(crate) fn is_stored(&self, last: Option<LogId>, membership: StoredMembership, bytes: usize) {
        *self.stored.lock() = (last, membership);
        self.bytes.store(bytes as u64, Relaxed);
    }

    /// Bytes of the state in the snapshot on the disk.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// Number of the snapshot begun last.
    pub(crate) fn begun(&self) -> u64 {
        self.begun.load(Relaxed)
    }
}

/// The state as it was when a snapshot was asked for.
pub(crate) struct Builder {
    machine: Machine,
    number: u64,
    state: Result<Arc<Vec<u8>>, String>,
}

impl Builder {
    /// Writes the snapshot, on a thread for that if there are any.
    async fn write(&self) -> io::Result<()> {
        let state = self.state.clone().map_err(io::Error::other)?;
        let Machine { disk, group, last, membership, threads, .. } = self.machine.clone();
        let write = move || snapshot::write(&*disk, group, last, &membership, &state);
        if threads { tokio::task::spawn_blocking(write).await? } else { write() }
    }
}

impl Machine {
    /// Names the entry: nothing else says which one it was once openraft has stopped.
    fn not_applied(&self, index: u64, place: Place, reason: &str) -> io::Error {
        let Place { segment, offset, .. } = place;
        let text = format!(
            "entry {index} of group {}, at offset {offset} of segment {segment}, cannot be applied: {reason}",
            self.group
        );
        tracing::error!("{text}");
        io::Error::other(text)
    }

    fn meta(&self) -> SnapshotMetaOf<TypeConfig> {
        SnapshotMetaOf::<TypeConfig> { last_log_id: self.last, last_membership: self.membership.clone() }
    }
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = Vec<u8>;

    async fn build_snapshot(&mut self) -> Result<SnapshotOf<TypeConfig, Vec<u8>>, io::Error> {
        let builds = &self.machine.builds;
        let error = match self.write().await {
            Ok(()) => {
                let bytes = self.state.as_ref().map_or(0, |state| state.len());
                builds.is_stored(self.machine.last, self.machine.membership.clone(), bytes);
                None
            }
            Err(error) => Some(Arc::new(error)),
        };
        builds.ended.send_replace(Ended { number: self.number, error: error.clone() });
        if let Some(error) = error {
            if !is_passing(&error) {
                return Err(copy(&error));
            }
            // No reason for openraft to end the group: the snapshot before stays, and the log with it.
            let (last_log_id, last_membership) = builds.stored.lock().clone();
            let meta = SnapshotMetaOf::<TypeConfig> { last_log_id, last_membership };
            return Ok(SnapshotOf::<TypeConfig, Vec<u8>> { meta, snapshot: Vec::new() });
        }
        Ok(SnapshotOf::<TypeConfig, Vec<u8>> { meta: self.machine.meta(), snapshot: Vec::new() })
    }
}

/// The same error once more.
pub(crate) fn copy(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = Vec<u8>;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.last, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        for number in 1u64.. {
            let Some((entry, responder)) = entries.try_next().await? else { break };
            match entry.payload {
                EntryPayload::Blank => {}
                EntryPayload::Normal(command) => {
                    let applied = self.applied.apply(self.group, &command.bytes, command.place);
                    applied.map_err(|reason| self.not_applied(entry.log_id.index, command.place, &reason))?;
                }
                EntryPayload::Membership(members) => {
                    self.membership = StoredMembership::new(Some(entry.log_id), members);
                }
            }
            self.last = Some(entry.log_id);
            self.table.lock().applied(entry.log_id.index);
            if let Some(responder) = responder {
                responder.send(());
            }
            if number.is_multiple_of(ENTRIES_AT_ONCE) {
                tokio::task::yield_now().await;
            }
        }
        tokio::task::yield_now().await; // so that who was told is not kept waiting by what follows
        self.applied.follow_up(self.group);
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        let number = self.builds.begun.fetch_add(1, Relaxed) + 1;
        Builder { machine: self.clone(), number, state: self.applied.snapshot(self.group).map(Arc::new) }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMetaOf<TypeConfig>, state: Vec<u8>) -> Result<(), io::Error> {
        self.applied.restore(self.group, &state).map_err(io::Error::other)?;
        self.last = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        snapshot::write(&*self.disk, self.group, self.last, &self.membership, &state)?;
        self.builds.is_stored(self.last, self.membership.clone(), state.len());
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<SnapshotOf<TypeConfig, Vec<u8>>>, io::Error> {
        // Without the state, which may be large: a group of one voter sends it to nobody, and has read it when it was opened.
        let (last_log_id, last_membership) = self.builds.stored.lock().clone();
        let meta = SnapshotMetaOf::<TypeConfig> { last_log_id, last_membership };
        Ok(last_log_id.map(|_| SnapshotOf::<TypeConfig, Vec<u8>> { meta, snapshot: Vec::new() }))
    }
}

/// Entries applied before others have their turn: at a start there are as many as the log holds.
const ENTRIES_AT_ONCE: u64 = 32;

//! openraft's state machine over [`Applied`]: entries in order, snapshots to a file.
use crate::log_table::LogTable;
use crate::snapshot;
use crate::types::{LogId, StoredMembership, TypeConfig};
use crate::{Applied, GroupId};
use futures::{Stream, TryStreamExt};
use leveret_journal::{Disk, Place};
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
}

/// The snapshots of a group that were begun, by number, and how the last one ended.
#[derive(Default)]
pub(crate) struct Builds {
    begun: AtomicU64,
    pub(crate) ended: watch::Sender<Ended>,
}

/// The number of a snapshot, and why it was not written.
#[derive(Clone, Copy, Default)]
pub(crate) struct Ended {
    pub(crate) number: u64,
    pub(crate) error: Option<io::ErrorKind>,
}

impl Builds {
    /// Number of the snapshot begun last.
    pub(crate) fn begun(&self) -> u64 {
        self.begun.load(Relaxed)
    }
}

/// The state as it was when a snapshot was asked for.
pub(crate) struct Builder {
    machine: Machine,
    number: u64,
    state: Vec<u8>,
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
        let Machine { disk, group, last, membership, .. } = &self.machine;
        let written = snapshot::write(&**disk, *group, *last, membership, &self.state);
        let error = written.as_ref().err().map(io::Error::kind);
        self.machine.builds.ended.send_replace(Ended { number: self.number, error });
        if error == Some(io::ErrorKind::StorageFull) {
            // No reason for openraft to end the group: the snapshot before stays, and the log with it.
            let before = snapshot::read(&**disk, *group)?;
            let (last_log_id, last_membership) =
                before.map(|before| (before.last, before.membership)).unwrap_or_default();
            let meta = SnapshotMetaOf::<TypeConfig> { last_log_id, last_membership };
            return Ok(SnapshotOf::<TypeConfig, Vec<u8>> { meta, snapshot: Vec::new() });
        }
        written?;
        Ok(SnapshotOf::<TypeConfig, Vec<u8>> { meta: self.machine.meta(), snapshot: Vec::new() })
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
        while let Some((entry, responder)) = entries.try_next().await? {
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
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        let number = self.builds.begun.fetch_add(1, Relaxed) + 1;
        Builder { machine: self.clone(), number, state: self.applied.snapshot(self.group) }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMetaOf<TypeConfig>, state: Vec<u8>) -> Result<(), io::Error> {
        self.applied.restore(self.group, &state).map_err(io::Error::other)?;
        self.last = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        snapshot::write(&*self.disk, self.group, self.last, &self.membership, &state)
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<SnapshotOf<TypeConfig, Vec<u8>>>, io::Error> {
        let stored = snapshot::read(&*self.disk, self.group)?;
        Ok(stored.map(|stored| SnapshotOf::<TypeConfig, Vec<u8>> {
            meta: SnapshotMetaOf::<TypeConfig> { last_log_id: stored.last, last_membership: stored.membership },
            snapshot: stored.state,
        }))
    }
}

//! openraft's state machine of a group: passes committed entries to [`GroupStates`] in order, and writes snapshots to a file.
use crate::log_store::LogStore;
use crate::snapshot;
use crate::snapshot_data::{SnapshotData, WholeSnapshot};
use crate::types::{self, Command, LogId, StoredMembership, TypeConfig};
use crate::{AppliedEntry, GroupId, GroupSnapshot, GroupStates};
use futures::{Stream, TryStreamExt};
use leveret_journal::{Disk, RecordPlace, is_passing};
use openraft::alias::{SnapshotMetaOf, SnapshotOf};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::watch;

#[derive(Clone)]
pub(crate) struct Machine {
    pub(crate) group: GroupId,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) applied: Arc<dyn GroupStates>,
    pub(crate) log: LogStore,
    /// The last entry that was applied.
    pub(crate) last: Option<LogId>,
    pub(crate) membership: StoredMembership,
    pub(crate) builds: Arc<Builds>,
    /// True if snapshots are written on blocking threads. False in simulations.
    pub(crate) threads: bool,
}

/// The snapshots of a group. Each build of a snapshot has a number, counted from 1.
#[derive(Default)]
pub(crate) struct Builds {
    /// Number of the newest build.
    latest: AtomicU64,
    /// The outcome of the build that ended last.
    pub(crate) outcome: watch::Sender<BuildOutcome>,
    /// The last entry that the snapshot on the disk covers, and the members in it.
    stored: Mutex<(Option<LogId>, StoredMembership)>,
    /// Bytes of the encoded state in the snapshot on the disk.
    bytes: AtomicU64,
    /// Held while the file is written and noted: a build goes on beside the installation of another node's snapshot.
    writing: tokio::sync::Mutex<()>,
}

/// The outcome of one build of a snapshot.
#[derive(Clone, Default)]
pub(crate) struct BuildOutcome {
    /// Number of the build; 0 if none has ended yet.
    pub(crate) number: u64,
    /// The reason why the snapshot was not written; `None` if it was.
    pub(crate) error: Option<Arc<io::Error>>,
}

impl Builds {
    /// Notes that the snapshot on the disk now covers the log up to `last`, and holds a state of `bytes` bytes.
    pub(crate) fn set_stored(&self, last: Option<LogId>, membership: StoredMembership, bytes: usize) {
        *self.stored.lock() = (last, membership);
        self.bytes.store(bytes as u64, Relaxed);
    }

    /// Returns the index of the last entry that the snapshot on the disk covers.
    #[cfg(feature = "simulated")]
    pub(crate) fn covered(&self) -> Option<u64> {
        self.stored.lock().0.map(|last| last.index)
    }

    /// Returns the number of bytes of the state in the snapshot on the disk; 0 if there is none.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// Returns the number of the newest build; 0 if there was none.
    pub(crate) fn latest(&self) -> u64 {
        self.latest.load(Relaxed)
    }
}

/// Writes one snapshot: holds the state of the group as it was when the snapshot was requested.
pub(crate) struct Builder {
    machine: Machine,
    /// Number of the build.
    number: u64,
    /// The encoded state, or the reason why there is none.
    state: Result<Arc<GroupSnapshot>, String>,
}

impl Builder {
    async fn write(&self) -> io::Result<()> {
        self.machine.write(self.state.clone().map_err(io::Error::other)?).await
    }
}

impl Machine {
    /// Logs and returns the error of an entry that cannot be applied. It names the entry, because openraft's own error
    /// does not.
    fn not_applied(&self, index: u64, place: RecordPlace, reason: &str) -> io::Error {
        let RecordPlace { segment, offset, .. } = place;
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

    /// Returns the snapshot on the disk, whose state is only read when it is asked for.
    fn stored(&self, meta: SnapshotMetaOf<TypeConfig>) -> SnapshotOf<TypeConfig, SnapshotData> {
        let Self { group, disk, log, threads, .. } = self.clone();
        let snapshot = SnapshotData::Stored { group, disk, table: log.table, threads };
        SnapshotOf::<TypeConfig, SnapshotData> { meta, snapshot }
    }

    /// Replaces the snapshot file, on a blocking thread if [`threads`](Self::threads) is set.
    async fn write(&self, state: Arc<GroupSnapshot>) -> io::Result<()> {
        let Self { disk, group, last, membership, threads, .. } = self.clone();
        let write = move || snapshot::write(&*disk, group, last, &membership, &state);
        if threads { tokio::task::spawn_blocking(write).await? } else { write() }
    }

    /// Replaces the snapshot file. While the disk has no room for it, tries again until the group stops: an error would
    /// end the group, and room was there when the snapshot was accepted.
    async fn write_in_time(&self, state: Arc<GroupSnapshot>) -> io::Result<()> {
        loop {
            match self.write(state.clone()).await {
                Err(error) if is_passing(&error) && !self.log.leadership.is_stopped() => {
                    tracing::warn!(group = self.group, %error, "a snapshot of another node waits to be written");
                    tokio::time::sleep(WRITE_AGAIN).await;
                }
                written => return written,
            }
        }
    }
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> Result<SnapshotOf<TypeConfig, SnapshotData>, io::Error> {
        let builds = &self.machine.builds;
        let _writing = builds.writing.lock().await;
        let is_overtaken = builds.stored.lock().0 > self.machine.last;
        let written = match is_overtaken {
            true => Ok(()), // the snapshot that was installed meanwhile says where contents lie now, too
            false => self.write().await,
        };
        let error = match written {
            Ok(()) if is_overtaken => None,
            Ok(()) => {
                let bytes = self.state.as_ref().map_or(0, |snapshot| snapshot.bytes());
                builds.set_stored(self.machine.last, self.machine.membership.clone(), bytes);
                None
            }
            Err(error) => Some(Arc::new(error)),
        };
        builds.outcome.send_replace(BuildOutcome { number: self.number, error: error.clone() });
        if let Some(error) = error.as_ref().filter(|error| !is_passing(error)) {
            return Err(copy(error));
        }
        if error.is_some() || is_overtaken {
            // An error returned to openraft would stop the group. So it gets the snapshot that is on the disk instead; the
            // log behind that one is kept too.
            let (last_log_id, last_membership) = builds.stored.lock().clone();
            let meta = SnapshotMetaOf::<TypeConfig> { last_log_id, last_membership };
            return Ok(self.machine.stored(meta));
        }
        Ok(self.machine.stored(self.machine.meta()))
    }
}

/// Returns a copy of an error, with the same number of the system or else the same kind and text.
pub(crate) fn copy(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = SnapshotData;
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
                EntryPayload::Blank => self.log.leadership.term_begins(entry.log_id.leader_id.term),
                EntryPayload::Normal(command) => {
                    let Command { bytes, place, .. } = command;
                    let (index, term) = (entry.log_id.index, entry.log_id.leader_id.term);
                    let applied = self.applied.apply(self.group, &AppliedEntry { index, term, bytes, place });
                    applied.map_err(|reason| self.not_applied(index, place, &reason))?;
                }
                EntryPayload::Membership(members) => {
                    self.membership = StoredMembership::new(Some(entry.log_id), members);
                }
            }
            self.last = Some(entry.log_id);
            self.log.table.lock().applied(entry.log_id.index);
            if let Some(responder) = responder {
                responder.send(());
            }
            if number.is_multiple_of(ENTRIES_PER_TURN) {
                tokio::task::yield_now().await;
            }
        }
        tokio::task::yield_now().await; // so that the callers that were told go on before the follow-up work
        self.applied.follow_up(self.group);
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        let number = self.builds.latest.fetch_add(1, Relaxed) + 1;
        Builder { machine: self.clone(), number, state: self.applied.snapshot(self.group).map(Arc::new) }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMetaOf<TypeConfig>,
        snapshot: SnapshotData,
    ) -> Result<(), io::Error> {
        let WholeSnapshot { state, chain, .. } = snapshot.load().await?;
        if let Some((last, chain)) = meta.last_log_id.zip(chain) {
            self.log.keep_installed(last, chain).await?;
        }
        let mut snapshot = GroupSnapshot { state, local: Vec::new() };
        self.applied.restore(self.group, &snapshot).map_err(io::Error::other)?;
        snapshot.local = self.applied.local(self.group);
        self.last = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.log.set_alone(types::has_one_member(self.membership.membership()));
        let bytes = snapshot.bytes();
        let writing = self.builds.writing.lock().await;
        self.write_in_time(Arc::new(snapshot)).await?;
        self.builds.set_stored(self.last, self.membership.clone(), bytes);
        drop(writing);
        if let Some(last) = self.last {
            self.log.table.lock().applied(last.index);
        }
        self.applied.installed(self.group);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<SnapshotOf<TypeConfig, SnapshotData>>, io::Error> {
        let (last_log_id, last_membership) = self.builds.stored.lock().clone();
        let meta = SnapshotMetaOf::<TypeConfig> { last_log_id, last_membership };
        Ok(last_log_id.map(|_| self.stored(meta)))
    }
}

/// Pause before a snapshot that had no room on the disk is written again.
const WRITE_AGAIN: Duration = Duration::from_millis(500);
/// The number of entries applied before other tasks have a turn. At a start openraft passes all entries of the log at
/// once.
const ENTRIES_PER_TURN: u64 = 32;

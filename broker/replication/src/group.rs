//! [`Groups`], the handle to the Raft groups of a node, which share one journal: opens them, submits entries, takes
//! snapshots.
use crate::log_store::{LogStore, RecoveredLog};
use crate::log_table::Hole;
use crate::network::NoPeers;
use crate::snapshot;
use crate::state_machine::{Builds, Machine, copy};
use crate::types::{Command, StoredMembership, TypeConfig};
use crate::{GroupId, GroupStates};
use bytes::Bytes;
use futures::future::BoxFuture;
use leveret_journal::{Disk, Journal, JournalOpenError, JournalOptions, RecordPlace};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::error::Fatal;
use openraft::{Config, EmptyNode, Raft, ServerState, SnapshotPolicy};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The settings of the groups of a node.
#[derive(Clone, Copy, Debug)]
pub struct GroupsOptions {
    /// Identity of the node.
    pub node: u64,
    /// The number of groups.
    pub groups: u16,
}

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

/// The error of a group that takes no entries, because it has stopped or is not led by this node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("group {group} takes no entries: {reason}")]
pub struct NotLeader {
    /// Number of the group.
    pub group: GroupId,
    /// The error of openraft.
    pub reason: String,
}

/// The handle to the groups; cheap to clone.
#[derive(Clone)]
pub struct Groups(Arc<GroupsInner>);

struct GroupsInner {
    journal: Journal,
    groups: Vec<Group>,
}

pub(crate) struct Group {
    pub(crate) raft: Raft<TypeConfig, Machine>,
    pub(crate) log: LogStore,
    builds: Arc<Builds>,
}

impl Groups {
    /// Opens the journal and the groups, restores their snapshots, and applies all entries of their logs. The log of
    /// group 0 is applied completely before those of the other groups.
    ///
    /// The future is boxed so that openraft's code is compiled once, in this crate, and not in each crate that awaits it.
    ///
    /// # Errors
    /// [`GroupsOpenError`] if the journal or a snapshot cannot be read or lacks something, or if an entry cannot be
    /// applied.
    pub fn open(
        disk: Arc<dyn Disk>,
        journal: JournalOptions,
        options: GroupsOptions,
        applied: Arc<dyn GroupStates>,
    ) -> BoxFuture<'static, Result<Self, GroupsOpenError>> {
        Box::pin(Self::open_all(disk, journal, options, applied))
    }

    async fn open_all(
        disk: Arc<dyn Disk>,
        journal: JournalOptions,
        options: GroupsOptions,
        applied: Arc<dyn GroupStates>,
    ) -> Result<Self, GroupsOpenError> {
        let mut logs = Vec::new();
        for group in 0..options.groups {
            logs.push(RecoveredLog::read(&*disk, group).map_err(|error| GroupsOpenError::State { group, error })?);
        }
        let journal = Journal::open(disk.clone(), journal, &mut |recovered| {
            if let Some(log) = logs.get_mut(usize::from(recovered.head.group)) {
                log.add(recovered);
            }
        })?;
        for (group, log) in (0..).zip(&logs) {
            if let Some(Hole { expected, found }) = log.table.hole() {
                return Err(GroupsOpenError::Hole { group, expected, found });
            }
        }
        let (mut groups, mut reported_at) = (Vec::new(), Instant::now());
        for (group, log) in (0..).zip(logs) {
            let log = LogStore::new(group, journal.clone(), log);
            groups.push(Group::open(log, disk.clone(), options.node, applied.clone()).await?);
            if group == 0 {
                report_progress(&groups, groups[0].lead(options.node)).await?;
            }
            if reported_at.elapsed() >= REPORT_EVERY {
                reported_at = Instant::now();
                tracing::info!("the snapshots of {} of {} groups were read", groups.len(), options.groups);
            }
        }
        let others = groups.iter().skip(1).map(|group| group.lead(options.node));
        report_progress(&groups, futures::future::try_join_all(others)).await?;
        (0..options.groups).for_each(|group| RecoveredLog::remove_file(&*disk, group));
        Ok(Self(Arc::new(GroupsInner { journal, groups })))
    }

    /// Returns whether the journal has room for an entry of `bytes` bytes. If so, the room is promised to that entry
    /// until it is appended. To be called before each [`submit`](Self::submit), and again later if there is no room. A
    /// `control` entry, one that leads to room being freed, may use all of the journal's reserve.
    #[must_use]
    pub fn has_room_for(&self, bytes: usize, control: bool) -> bool {
        self.0.journal.promise(bytes, control)
    }

    /// Submits an entry to a group. The entries get into the log in the order of the calls. Returns before the entry is
    /// durable; it is applied once it is.
    ///
    /// # Errors
    /// [`NotLeader`] if the group has stopped.
    pub async fn submit(&self, group: GroupId, entry: Bytes) -> Result<(), NotLeader> {
        let command = Command { bytes: entry, place: RecordPlace::default() };
        let raft = &self.group(group).raft;
        raft.client_write_ff(command, None).await.map_err(|error| NotLeader { group, reason: error.to_string() })
    }

    /// Waits until the journal has room for the entry, submits it as a control entry, and waits until it is applied on
    /// this node.
    ///
    /// # Errors
    /// [`NotLeader`] if the group has stopped.
    pub async fn write(&self, group: GroupId, entry: Bytes) -> Result<(), NotLeader> {
        while !self.has_room_for(entry.len(), true) {
            tokio::time::sleep(ROOM_RETRY).await;
        }
        let command = Command { bytes: entry, place: RecordPlace::default() };
        let raft = &self.group(group).raft;
        raft.client_write(command).await.map(drop).map_err(|error| NotLeader { group, reason: error.to_string() })
    }

    /// Writes a snapshot of a group that covers at least the entries applied so far, then has openraft purge the
    /// entries that it covers.
    ///
    /// The future is boxed for the same reason as that of [`open`](Self::open).
    ///
    /// # Errors
    /// The error of the disk, or an error if the group has stopped. After an error for which [`is_passing`](leveret_journal::is_passing)
    /// returns true, the group goes on and the snapshot can be tried again.
    pub fn snapshot(&self, group: GroupId) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(self.write_snapshot(group))
    }

    async fn write_snapshot(&self, group: GroupId) -> io::Result<()> {
        let Group { raft, builds, .. } = self.group(group);
        let applied = raft.metrics().borrow_watched().last_applied;
        let earlier = builds.latest();
        let mut outcomes = builds.outcome.subscribe();
        loop {
            raft.trigger().snapshot().await.map_err(io::Error::other)?;
            match tokio::time::timeout(CHECK_EVERY, outcomes.changed()).await {
                Ok(changed) => changed.map_err(io::Error::other)?,
                Err(_) => {
                    raft.metrics().borrow_watched().running_state.clone().map_err(io::Error::other)?;
                    tracing::info!(group, "writing a snapshot takes long");
                    continue;
                }
            }
            let outcome = outcomes.borrow_and_update().clone();
            if outcome.number > earlier {
                match outcome.error {
                    Some(error) => return Err(copy(&error)),
                    None => break,
                }
            }
        }
        // openraft silently purges nothing until its own metrics know of a snapshot that covers the entries.
        let wait = raft.wait(None);
        let written = wait.metrics(|metrics| metrics.snapshot >= applied, "the snapshot is written");
        let Some(upto) = written.await.map_err(io::Error::other)?.snapshot else { return Ok(()) };
        raft.trigger().purge_log(upto.index).await.map_err(io::Error::other)
    }

    /// Returns the number of bytes of a group's state in its snapshot on the disk; 0 if there is no snapshot.
    #[must_use]
    pub fn snapshot_bytes(&self, group: GroupId) -> u64 {
        self.group(group).builds.bytes()
    }

    /// Returns the first group that has stopped because of an error, with the error, or `None` if there is none.
    #[must_use]
    pub fn stopped(&self) -> Option<NotLeader> {
        self.0.groups.iter().find_map(|group| {
            let state = group.raft.metrics().borrow_watched().running_state.clone();
            let fatal = state.err().filter(|fatal| !matches!(fatal, Fatal::Stopped))?;
            Some(NotLeader { group: group.log.group, reason: fatal.to_string() })
        })
    }

    /// Returns the number of entries in the log of a group that are not purged.
    #[must_use]
    pub fn log_len(&self, group: GroupId) -> u64 {
        self.group(group).log.table.lock().len()
    }

    /// Returns the number of the oldest segment of the journal that holds an entry of a group's log, or `None` if the
    /// log is empty.
    #[must_use]
    pub fn first_segment(&self, group: GroupId) -> Option<u64> {
        self.group(group).log.table.lock().first_segment()
    }

    /// Returns the number of groups.
    #[must_use]
    pub fn len(&self) -> u16 {
        self.0.groups.len() as u16
    }

    /// Returns whether there are no groups.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.groups.is_empty()
    }

    /// Returns the journal that the groups share.
    #[must_use]
    pub fn journal(&self) -> &Journal {
        &self.0.journal
    }

    /// Stops the groups, then the journal.
    pub async fn stop(&self) {
        for group in &self.0.groups {
            let _ = group.raft.shutdown().await;
        }
        self.0.journal.stop();
    }

    pub(crate) fn group(&self, group: GroupId) -> &Group {
        &self.0.groups[usize::from(group)]
    }
}

impl Group {
    async fn open(
        log: LogStore,
        disk: Arc<dyn Disk>,
        node: u64,
        applied: Arc<dyn GroupStates>,
    ) -> Result<Self, GroupsOpenError> {
        let group = log.group;
        let state = |error| GroupsOpenError::State { group, error };
        let stored = snapshot::read(&*disk, group).map_err(state)?;
        let covered = stored.as_ref().and_then(|stored| stored.last).map(|id| id.index);
        let purged = log.table.lock().purged.map(|id| id.index);
        if let Some(purged) = purged.filter(|_| covered < purged) {
            let state = if stored.is_none() { "is missing" } else { "is older than the log" };
            return Err(GroupsOpenError::Snapshot { file: snapshot::file_name(group), state, group, purged });
        }
        let (mut last, mut membership, mut bytes) = (None, StoredMembership::default(), 0);
        if let Some(stored) = stored {
            bytes = stored.snapshot.bytes();
            applied.restore(group, &stored.snapshot).map_err(|reason| state(io::Error::other(reason)))?;
            (last, membership) = (stored.last, stored.membership);
        }
        let (table, threads) = (log.table.clone(), !log.journal.is_driven());
        let builds = Arc::new(Builds::default());
        builds.set_stored(last, membership.clone(), bytes);
        let machine = Machine { group, disk, applied, table, last, membership, builds: builds.clone(), threads };
        let failed = |reason: String| GroupsOpenError::Raft { group, reason };
        let config = config(group).map_err(failed)?;
        let raft = Raft::new(node, config, NoPeers, log.clone(), machine);
        let raft = raft.await.map_err(|error| failed(error.to_string()))?;
        Ok(Self { raft, log, builds })
    }

    /// Makes this node, the only voter, leader of the group, and waits until the whole log is applied.
    async fn lead(&self, node: u64) -> Result<(), GroupsOpenError> {
        let failed = |reason: String| GroupsOpenError::Raft { group: self.log.group, reason };
        let initialized = self.raft.is_initialized().await.map_err(|error| failed(error.to_string()))?;
        if initialized {
            self.raft.trigger().elect(false).await.map_err(|error| failed(error.to_string()))?;
        } else {
            let members = BTreeMap::from([(node, EmptyNode {})]);
            self.raft.initialize(members).await.map_err(|error| failed(error.to_string()))?;
        }
        self.until_applied().await
    }

    /// Waits until this node leads the group and the whole log is applied. Fails if openraft stops, or if for
    /// [`STALL_MAX`] no entry was applied and nothing else changed in openraft's metrics.
    async fn until_applied(&self) -> Result<(), GroupsOpenError> {
        let failed = |reason: String| GroupsOpenError::Raft { group: self.log.group, reason };
        let mut metrics = self.raft.metrics();
        loop {
            let applied = self.log.table.lock().applied_len();
            {
                let metrics = metrics.borrow_watched();
                metrics.running_state.as_ref().map_err(|fatal| failed(fatal.to_string()))?;
                let applied = metrics.last_applied.map(|id| id.index);
                if metrics.state == ServerState::Leader && applied.is_some() && applied == metrics.last_log_index {
                    return Ok(());
                }
            }
            match tokio::time::timeout(STALL_MAX, metrics.changed()).await {
                Ok(changed) => changed.map_err(|_| failed("openraft has ended".to_owned()))?,
                Err(_) if self.log.table.lock().applied_len() != applied => {}
                Err(_) => return Err(failed(format!("no entry of its log was applied for {STALL_MAX:?}"))),
            }
        }
    }

    /// Returns the number of entries in the log that are applied, and of all entries in it.
    fn applied(&self) -> (u64, u64) {
        let table = self.log.table.lock();
        (table.applied_len(), table.len())
    }
}

/// Awaits `work`, and logs every two seconds how many entries are applied.
async fn report_progress<T>(
    groups: &[Group],
    work: impl Future<Output = Result<T, GroupsOpenError>>,
) -> Result<T, GroupsOpenError> {
    let mut work = std::pin::pin!(work);
    loop {
        if let Ok(done) = tokio::time::timeout(REPORT_EVERY, &mut work).await {
            return done;
        }
        let (applied, entries) = groups.iter().map(Group::applied).fold((0, 0), |sum, of| (sum.0 + of.0, sum.1 + of.1));
        tracing::info!("{applied} of {entries} entries of the log were applied");
    }
}

/// Returns openraft's settings for a group. Its timers are off (`enable_tick`): a group with one voter gets its leader
/// when [`Group::lead`] says so, and no other node can become leader.
fn config(group: GroupId) -> Result<Arc<Config>, String> {
    let config = Config {
        cluster_name: format!("group {group}"),
        heartbeat_interval: 250,
        election_timeout_min: 750,
        election_timeout_max: 1500,
        enable_leader_restore: Some(false),
        enable_pre_vote: Some(true),
        enable_tick: false,
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        max_payload_entries: 4096,
        ..Config::default()
    };
    config.validate().map(Arc::new).map_err(|error| error.to_string())
}

/// Time between two log messages about the progress of a start.
const REPORT_EVERY: Duration = Duration::from_secs(2);
/// A start has failed if no entry is applied for this long.
const STALL_MAX: Duration = Duration::from_secs(300);
/// Time between two checks that a group still runs while its snapshot is being written.
const CHECK_EVERY: Duration = if cfg!(test) { Duration::from_millis(1) } else { Duration::from_secs(10) };
/// Pause before [`Groups::write`] asks the journal for room again.
const ROOM_RETRY: Duration = Duration::from_millis(20);

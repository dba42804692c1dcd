//! The groups of a node: opened together, over one journal; entries handed in, snapshots taken.
use crate::log_store::{LogStore, Noted};
use crate::log_table::Hole;
use crate::network::NoPeers;
use crate::snapshot;
use crate::state_machine::{Builds, Machine, copy};
use crate::types::{Command, StoredMembership, TypeConfig};
use crate::{Applied, GroupId};
use bytes::Bytes;
use futures::future::BoxFuture;
use leveret_journal::{self as journal, Disk, Journal, Place};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::error::Fatal;
use openraft::{Config, EmptyNode, Raft, ServerState, SnapshotPolicy};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How the groups of a node are set up.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Identity of the node.
    pub node: u64,
    /// How many groups there are.
    pub groups: u16,
}

/// Why the groups were not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The journal was not.
    #[error(transparent)]
    Journal(#[from] journal::OpenError),
    /// Entries are missing.
    #[error("the log of group {group} has entry {found} where entry {expected} should be")]
    Hole {
        /// The group.
        group: GroupId,
        /// The index that is missing.
        expected: u64,
        /// What was found in its place.
        found: u64,
    },
    /// A snapshot is gone.
    #[error(
        "{file} {state}: the log of group {group} was cut at entry {purged}, and its state up to there is in that file alone"
    )]
    Snapshot {
        /// Name of the file.
        file: String,
        /// What is wrong with it.
        state: &'static str,
        /// The group.
        group: GroupId,
        /// Entries up to this one are in no log any more.
        purged: u64,
    },
    /// A snapshot or state file was not read.
    #[error("group {group}: {error}")]
    State {
        /// The group.
        group: GroupId,
        /// What is wrong.
        error: io::Error,
    },
    /// openraft stopped.
    #[error("group {group} did not start: {reason}")]
    Raft {
        /// The group.
        group: GroupId,
        /// What it said.
        reason: String,
    },
}

/// The group takes no entries here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("group {group} takes no entries: {reason}")]
pub struct NotLeader {
    /// The group.
    pub group: GroupId,
    /// What openraft said.
    pub reason: String,
}

/// The groups; cheap to clone.
#[derive(Clone)]
pub struct Groups(Arc<Inner>);

struct Inner {
    journal: Journal,
    groups: Vec<Group>,
}

pub(crate) struct Group {
    pub(crate) raft: Raft<TypeConfig, Machine>,
    pub(crate) log: LogStore,
    builds: Arc<Builds>,
}

impl Groups {
    /// Opens journal and groups, and applies what their logs hold. Group 0 is complete before the others begin.
    ///
    /// # Errors
    /// [`OpenError`].
    ///
    /// The future is boxed so that all of openraft is compiled here, once, and not in each crate that awaits it.
    pub fn open(
        disk: Arc<dyn Disk>,
        journal: journal::Options,
        options: Options,
        applied: Arc<dyn Applied>,
    ) -> BoxFuture<'static, Result<Self, OpenError>> {
        Box::pin(Self::open_all(disk, journal, options, applied))
    }

    async fn open_all(
        disk: Arc<dyn Disk>,
        journal: journal::Options,
        options: Options,
        applied: Arc<dyn Applied>,
    ) -> Result<Self, OpenError> {
        let mut noted = Vec::new();
        for group in 0..options.groups {
            noted.push(Noted::read(&*disk, group).map_err(|error| OpenError::State { group, error })?);
        }
        let journal = Journal::open(disk.clone(), journal, &mut |recovered| {
            if let Some(noted) = noted.get_mut(usize::from(recovered.head.group)) {
                noted.recovered(recovered);
            }
        })?;
        for (group, noted) in (0..).zip(&noted) {
            if let Some(Hole { expected, found }) = noted.table.hole() {
                return Err(OpenError::Hole { group, expected, found });
            }
        }
        let (mut groups, mut told) = (Vec::new(), Instant::now());
        for (group, noted) in (0..).zip(noted) {
            let log = LogStore::new(group, journal.clone(), noted);
            groups.push(Group::open(log, disk.clone(), options.node, applied.clone()).await?);
            if group == 0 {
                tell(&groups, groups[0].lead(options.node)).await?;
            }
            if told.elapsed() >= TELL_EVERY {
                told = Instant::now();
                tracing::info!("the state of {} of {} groups is read", groups.len(), options.groups);
            }
        }
        let others = groups.iter().skip(1).map(|group| group.lead(options.node));
        tell(&groups, futures::future::try_join_all(others)).await?;
        (0..options.groups).for_each(|group| Noted::remove_file(&*disk, group));
        Ok(Self(Arc::new(Inner { journal, groups })))
    }

    /// Whether there is room for an entry of so many bytes, which is then kept for it: ask before [`submit`](Self::submit), and
    /// ask again later if there is none. `control` entries, which free something in the end, may use the last of it.
    #[must_use]
    pub fn has_room_for(&self, bytes: usize, control: bool) -> bool {
        self.0.journal.promise(bytes, control)
    }

    /// Hands an entry to the log of a group, in the order of the calls. It is applied once it is durable.
    ///
    /// # Errors
    /// [`NotLeader`] when the group stopped.
    pub async fn submit(&self, group: GroupId, entry: Bytes) -> Result<(), NotLeader> {
        let command = Command { bytes: entry, place: Place::default() };
        let raft = &self.group(group).raft;
        raft.client_write_ff(command, None).await.map_err(|error| NotLeader { group, reason: error.to_string() })
    }

    /// As [`submit`](Self::submit), and waits until the entry is applied here: before that for room, if there is none.
    ///
    /// # Errors
    /// [`NotLeader`] when the group stopped.
    pub async fn write(&self, group: GroupId, entry: Bytes) -> Result<(), NotLeader> {
        while !self.has_room_for(entry.len(), true) {
            tokio::time::sleep(ASK_AGAIN).await;
        }
        let command = Command { bytes: entry, place: Place::default() };
        let raft = &self.group(group).raft;
        raft.client_write(command).await.map(drop).map_err(|error| NotLeader { group, reason: error.to_string() })
    }

    /// Writes the state of a group, as it is now or later, to a file; the log before it goes.
    ///
    /// # Errors
    /// The disk's, or that the group stopped.
    ///
    /// The future is boxed as that of [`open`](Self::open).
    pub fn snapshot(&self, group: GroupId) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(self.write_snapshot(group))
    }

    async fn write_snapshot(&self, group: GroupId) -> io::Result<()> {
        let Group { raft, builds, .. } = self.group(group);
        let applied = raft.metrics().borrow_watched().last_applied;
        let begun = builds.begun();
        let mut ended = builds.ended.subscribe();
        loop {
            raft.trigger().snapshot().await.map_err(io::Error::other)?;
            match tokio::time::timeout(LOOK_EVERY, ended.changed()).await {
                Ok(changed) => changed.map_err(io::Error::other)?,
                Err(_) => {
                    raft.metrics().borrow_watched().running_state.clone().map_err(io::Error::other)?;
                    tracing::info!(group, "a snapshot takes long");
                    continue;
                }
            }
            let ended = ended.borrow_and_update().clone();
            if ended.number > begun {
                match ended.error {
                    Some(error) => return Err(copy(&error)),
                    None => break,
                }
            }
        }
        // openraft purges nothing that a snapshot does not cover which it knows of itself, and says nothing.
        let wait = raft.wait(None);
        let written = wait.metrics(|metrics| metrics.snapshot >= applied, "the snapshot is written");
        let Some(upto) = written.await.map_err(io::Error::other)?.snapshot else { return Ok(()) };
        raft.trigger().purge_log(upto.index).await.map_err(io::Error::other)
    }

    /// Bytes of the state of a group in its snapshot on the disk; 0: there is none.
    #[must_use]
    pub fn snapshot_bytes(&self, group: GroupId) -> u64 {
        self.group(group).builds.bytes()
    }

    /// The first group that stopped by itself, and why.
    #[must_use]
    pub fn stopped(&self) -> Option<NotLeader> {
        self.0.groups.iter().find_map(|group| {
            let state = group.raft.metrics().borrow_watched().running_state.clone();
            let fatal = state.err().filter(|fatal| !matches!(fatal, Fatal::Stopped))?;
            Some(NotLeader { group: group.log.group, reason: fatal.to_string() })
        })
    }

    /// Entries in the log of a group.
    #[must_use]
    pub fn log_len(&self, group: GroupId) -> u64 {
        self.group(group).log.table.lock().len()
    }

    /// The oldest segment of the journal that the log of a group lies in.
    #[must_use]
    pub fn first_segment(&self, group: GroupId) -> Option<u64> {
        self.group(group).log.table.lock().first_segment()
    }

    /// How many groups there are.
    #[must_use]
    pub fn len(&self) -> u16 {
        self.0.groups.len() as u16
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.groups.is_empty()
    }

    /// The journal of the node.
    #[must_use]
    pub fn journal(&self) -> &Journal {
        &self.0.journal
    }

    /// Ends the groups, then the journal.
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
    async fn open(log: LogStore, disk: Arc<dyn Disk>, node: u64, applied: Arc<dyn Applied>) -> Result<Self, OpenError> {
        let group = log.group;
        let state = |error| OpenError::State { group, error };
        let found = snapshot::read(&*disk, group).map_err(state)?;
        let purged = log.table.lock().purged.map(|id| id.index);
        if let Some(purged) = purged.filter(|_| found.as_ref().and_then(|found| found.last).map(|id| id.index) < purged)
        {
            let state = if found.is_none() { "is missing" } else { "is older than the log" };
            return Err(OpenError::Snapshot { file: snapshot::file_name(group), state, group, purged });
        }
        let (mut last, mut membership, mut bytes) = (None, StoredMembership::default(), 0);
        if let Some(found) = found {
            bytes = found.state.len();
            applied.restore(group, &found.state).map_err(|reason| state(io::Error::other(reason)))?;
            (last, membership) = (found.last, found.membership);
        }
        let (table, threads) = (log.table.clone(), !log.journal.is_driven());
        let builds = Arc::new(Builds::default());
        builds.is_stored(last, membership.clone(), bytes);
        let machine = Machine { group, disk, applied, table, last, membership, builds: builds.clone(), threads };
        let failed = |reason: String| OpenError::Raft { group, reason };
        let config = config(group).map_err(failed)?;
        let raft = Raft::new(node, config, NoPeers, log.clone(), machine);
        let raft = raft.await.map_err(|error| failed(error.to_string()))?;
        Ok(Self { raft, log, builds })
    }

    /// Leads the group, as its one voter, and waits until its whole log is applied.
    async fn lead(&self, node: u64) -> Result<(), OpenError> {
        let failed = |reason: String| OpenError::Raft { group: self.log.group, reason };
        let initialized = self.raft.is_initialized().await.map_err(|error| failed(error.to_string()))?;
        if initialized {
            self.raft.trigger().elect(false).await.map_err(|error| failed(error.to_string()))?;
        } else {
            let members = BTreeMap::from([(node, EmptyNode {})]);
            self.raft.initialize(members).await.map_err(|error| failed(error.to_string()))?;
        }
        self.until_applied().await
    }

    /// Waits until the group is led here and its whole log is applied, for as long as it goes on.
    async fn until_applied(&self) -> Result<(), OpenError> {
        let failed = |reason: String| OpenError::Raft { group: self.log.group, reason };
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
            match tokio::time::timeout(STANDSTILL_MAX, metrics.changed()).await {
                Ok(changed) => changed.map_err(|_| failed("openraft ended".to_owned()))?,
                Err(_) if self.log.table.lock().applied_len() != applied => {}
                Err(_) => return Err(failed(format!("its log is not applied: nothing moved for {STANDSTILL_MAX:?}"))),
            }
        }
    }

    /// Entries that are applied, of how many.
    fn applied(&self) -> (u64, u64) {
        let table = self.log.table.lock();
        (table.applied_len(), table.len())
    }
}

/// Does what a start waits for, and says every few seconds how far it is.
async fn tell<T>(groups: &[Group], work: impl Future<Output = Result<T, OpenError>>) -> Result<T, OpenError> {
    let mut work = std::pin::pin!(work);
    loop {
        if let Ok(done) = tokio::time::timeout(TELL_EVERY, &mut work).await {
            return done;
        }
        let (applied, entries) = groups.iter().map(Group::applied).fold((0, 0), |sum, of| (sum.0 + of.0, sum.1 + of.1));
        tracing::info!("{applied} of {entries} entries of the log are applied");
    }
}

/// Without timers: a group of one voter is led when it is told to, and nobody else can lead it.
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

/// A start that waits says so this often.
const TELL_EVERY: Duration = Duration::from_secs(2);
/// A start in which nothing happens for so long has failed.
const STANDSTILL_MAX: Duration = Duration::from_secs(300);
/// How often to look whether a group still runs whose snapshot takes long.
const LOOK_EVERY: Duration = if cfg!(test) { Duration::from_millis(1) } else { Duration::from_secs(10) };
/// How often to ask for room again.
const ASK_AGAIN: Duration = Duration::from_millis(20);

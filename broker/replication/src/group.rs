//! The groups of a node: opened together, over one journal; entries handed in, snapshots taken.
use crate::log_store::{LogStore, Noted};
use crate::network::NoPeers;
use crate::snapshot;
use crate::state_machine::{Builds, Machine};
use crate::types::{Command, StoredMembership, TypeConfig};
use crate::{Applied, GroupId};
use bytes::Bytes;
use leveret_journal::{self as journal, Disk, Journal, Place};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::error::Fatal;
use openraft::{Config, EmptyNode, Raft, ServerState, SnapshotPolicy};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

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

struct Group {
    raft: Raft<TypeConfig, Machine>,
    log: LogStore,
    builds: Arc<Builds>,
}

impl Groups {
    /// Opens journal and groups, and applies what their logs hold. Group 0 is complete before the others begin, and
    /// `before_others` is called in between.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open(
        disk: Arc<dyn Disk>,
        journal: journal::Options,
        options: Options,
        applied: Arc<dyn Applied>,
    ) -> Result<Self, OpenError> {
        let mut noted = Vec::new();
        for group in 0..options.groups {
            noted.push(Noted::read(&*disk, group).map_err(|error| OpenError::State { group, error })?);
        }
        let mut hole = None;
        let journal = Journal::open(disk.clone(), journal, &mut |recovered| {
            let group = recovered.head.group;
            if let Some(noted) = noted.get_mut(usize::from(group))
                && let Err(found) = noted.table.recovered(recovered.head, recovered.place)
            {
                hole.get_or_insert(OpenError::Hole { group, expected: found.expected, found: found.found });
            }
        })?;
        if let Some(hole) = hole {
            return Err(hole);
        }
        let mut groups = Vec::new();
        for (group, noted) in (0..).zip(noted) {
            let log = LogStore::new(group, journal.clone(), noted);
            groups.push(Group::open(log, disk.clone(), options.node, applied.clone()).await?);
            if group == 0 {
                groups[0].lead(options.node).await?;
            }
        }
        let others = groups.iter().skip(1).map(|group| group.lead(options.node));
        futures::future::try_join_all(others).await?;
        Ok(Self(Arc::new(Inner { journal, groups })))
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

    /// As [`submit`](Self::submit), and waits until the entry is applied here.
    ///
    /// # Errors
    /// [`NotLeader`] when the group stopped.
    pub async fn write(&self, group: GroupId, entry: Bytes) -> Result<(), NotLeader> {
        let command = Command { bytes: entry, place: Place::default() };
        let raft = &self.group(group).raft;
        raft.client_write(command).await.map(drop).map_err(|error| NotLeader { group, reason: error.to_string() })
    }

    /// Writes the state of a group, as it is now or later, to a file; the log before it goes.
    ///
    /// # Errors
    /// The disk's, or that the group stopped.
    pub async fn snapshot(&self, group: GroupId) -> io::Result<()> {
        let Group { raft, builds, .. } = self.group(group);
        let applied = raft.metrics().borrow_watched().last_applied;
        let begun = builds.begun();
        let mut ended = builds.ended.subscribe();
        loop {
            raft.trigger().snapshot().await.map_err(io::Error::other)?;
            let build = tokio::time::timeout(SNAPSHOT_MAX, ended.changed()).await;
            build.map_err(io::Error::other)?.map_err(io::Error::other)?;
            let ended = *ended.borrow_and_update();
            if ended.number > begun {
                match ended.error {
                    Some(error) => return Err(error.into()),
                    None => break,
                }
            }
        }
        // openraft purges nothing that a snapshot does not cover which it knows of itself, and says nothing.
        let wait = raft.wait(Some(SNAPSHOT_MAX));
        let metrics = wait.metrics(|metrics| metrics.snapshot >= applied, "the snapshot is written");
        let Some(upto) = metrics.await.map_err(io::Error::other)?.snapshot else { return Ok(()) };
        raft.trigger().purge_log(upto.index).await.map_err(io::Error::other)
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

    fn group(&self, group: GroupId) -> &Group {
        &self.0.groups[usize::from(group)]
    }
}

impl Group {
    async fn open(log: LogStore, disk: Arc<dyn Disk>, node: u64, applied: Arc<dyn Applied>) -> Result<Self, OpenError> {
        let group = log.group;
        let state = |error| OpenError::State { group, error };
        let found = snapshot::read(&*disk, group).map_err(state)?;
        let (mut last, mut membership) = (None, StoredMembership::default());
        if let Some(found) = found {
            applied.restore(group, &found.state).map_err(|reason| state(io::Error::other(reason)))?;
            (last, membership) = (found.last, found.membership);
        }
        let table = log.table.clone();
        let builds = Arc::new(Builds::default());
        let machine = Machine { group, disk, applied, table, last, membership, builds: builds.clone() };
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
        let wait = self.raft.wait(Some(REPLAY_MAX));
        let complete = wait.metrics(
            |metrics| {
                metrics.state == ServerState::Leader
                    && metrics.last_applied.is_some()
                    && metrics.last_applied.map(|id| id.index) == metrics.last_log_index
            },
            "the log is applied",
        );
        complete.await.map(drop).map_err(|error| failed(error.to_string()))
    }
}

/// Timers are for groups of one voter, which nobody else can lead: they only cost when idle.
fn config(group: GroupId) -> Result<Arc<Config>, String> {
    let config = Config {
        cluster_name: format!("group {group}"),
        heartbeat_interval: 250,
        election_timeout_min: 750,
        election_timeout_max: 1500,
        enable_leader_restore: Some(false),
        enable_pre_vote: Some(true),
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        max_payload_entries: 4096,
        ..Config::default()
    };
    config.validate().map(Arc::new).map_err(|error| error.to_string())
}

/// A log longer than can be applied in this time does not start.
const REPLAY_MAX: Duration = Duration::from_secs(600);
const SNAPSHOT_MAX: Duration = Duration::from_secs(60);

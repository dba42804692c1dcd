//! Starts the groups of a node: reads their logs and snapshots, and applies what is agreed on.
use crate::leadership::Leadership;
use crate::link::Peers;
use crate::log_store::{LogStore, RecoveredLog};
use crate::log_table::Hole;
use crate::network::GroupNetwork;
use crate::open_error::GroupsOpenError;
use crate::replica::Group;
use crate::snapshot;
use crate::state_machine::{Builds, Machine};
use crate::types::{GroupMember, StoredMembership, TypeConfig, has_one_member};
use crate::{GroupId, GroupStates};
use leveret_journal::{Disk, Journal, JournalOptions};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::{Config, Raft, RaftMetrics, ServerState, SnapshotPolicy};
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

/// What the groups of a node have in common.
pub(crate) struct StartContext {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) options: GroupsOptions,
    pub(crate) states: Arc<dyn GroupStates>,
    pub(crate) peers: Option<Peers>,
}

/// Opens the journal and the groups. Returns once the logs of all groups that this node is the only member of are
/// applied, that of group 0 first.
pub(crate) async fn open_all(
    context: StartContext,
    journal: JournalOptions,
) -> Result<(Journal, Arc<[Group]>), GroupsOpenError> {
    if context.options.groups > GROUPS_MAX {
        let reason = format!("a node has at most {GROUPS_MAX} groups");
        return Err(GroupsOpenError::Raft { group: GROUPS_MAX, reason });
    }
    let (journal, logs) = read_logs(&context, journal)?;
    let (mut groups, mut reported_at) = (Vec::new(), Instant::now());
    for (group, log) in (0..).zip(logs) {
        let leadership = Leadership::new(group, context.options.node, context.states.clone(), log.vote);
        let log = LogStore::new(journal.clone(), log, leadership);
        groups.push(open(log, &context).await?);
        if group == 0 {
            report_progress(&groups, groups[0].begin()).await?;
        }
        if reported_at.elapsed() >= REPORT_EVERY {
            reported_at = Instant::now();
            tracing::info!("the snapshots of {} of {} groups were read", groups.len(), context.options.groups);
        }
    }
    let others = groups.iter().skip(1).map(Group::begin);
    report_progress(&groups, futures::future::try_join_all(others)).await?;
    (0..context.options.groups).for_each(|group| RecoveredLog::remove_file(&*context.disk, group));
    Ok((journal, groups.into()))
}

fn read_logs(context: &StartContext, journal: JournalOptions) -> Result<(Journal, Vec<RecoveredLog>), GroupsOpenError> {
    let mut logs = Vec::new();
    for group in 0..context.options.groups {
        logs.push(RecoveredLog::read(&*context.disk, group).map_err(|error| GroupsOpenError::State { group, error })?);
    }
    let journal = Journal::open(context.disk.clone(), journal, &mut |recovered| {
        if let Some(log) = logs.get_mut(usize::from(recovered.head.group)) {
            log.add(recovered);
        }
    })?;
    for (group, log) in (0..).zip(&logs) {
        if let Some(Hole { expected, found }) = log.table.hole() {
            return Err(GroupsOpenError::Hole { group, expected, found });
        }
    }
    Ok((journal, logs))
}

/// Opens a group: restores its snapshot, and lets openraft begin.
async fn open(log: LogStore, context: &StartContext) -> Result<Group, GroupsOpenError> {
    let StartContext { disk, options, states, peers } = context;
    let group = log.group;
    let state = |error| GroupsOpenError::State { group, error };
    let stored = snapshot::read(&**disk, group).map_err(state)?;
    let covered = stored.as_ref().and_then(|stored| stored.last).map(|id| id.index);
    let purged = log.table.lock().purged.map(|id| id.index);
    if let Some(purged) = purged.filter(|_| covered < purged) {
        let state = if stored.is_none() { "is missing" } else { "is older than the log" };
        return Err(GroupsOpenError::Snapshot { file: snapshot::file_name(group), state, group, purged });
    }
    let (mut last, mut membership, mut bytes) = (None, StoredMembership::default(), 0);
    if let Some(stored) = stored {
        bytes = stored.snapshot.bytes();
        states.restore(group, &stored.snapshot).map_err(|reason| state(io::Error::other(reason)))?;
        (last, membership) = (stored.last, stored.membership);
    }
    let threads = !log.journal.is_driven();
    let builds = Arc::new(Builds::default());
    builds.set_stored(last, membership.clone(), bytes);
    let (disk, applied) = (disk.clone(), states.clone());
    let machine = Machine { group, disk, applied, log: log.clone(), last, membership, builds: builds.clone(), threads };
    let failed = |reason: String| GroupsOpenError::Raft { group, reason };
    log.set_alone(peers.is_none());
    let network = GroupNetwork { log: log.clone(), peers: peers.clone() };
    let config = config(group, peers.is_some()).map_err(failed)?;
    let raft = Raft::new(options.node, config, network, log.clone(), machine);
    let raft = raft.await.map_err(|error| failed(error.to_string()))?;
    if peers.is_some() {
        log.table.lock().keep_hot(HOT_BYTES / usize::from(options.groups.max(1)));
    }
    let (arriving, diverged, heard) = (Arc::default(), Arc::default(), Arc::default());
    Ok(Group { node: options.node, raft, log, builds, arriving, diverged, heard, peers: peers.clone() })
}

impl Group {
    /// Makes this node leader of a group that it is the only member of, and waits until the whole log is applied. A
    /// group with peers needs them for that, and is not waited for.
    async fn begin(&self) -> Result<(), GroupsOpenError> {
        let failed = |reason: String| GroupsOpenError::Raft { group: self.log.group, reason };
        if self.peers.is_some() {
            // openraft's metrics do not have the members yet.
            let members = self.raft.with_raft_state(|state| state.membership_state.effective().membership().clone());
            let members = members.await.map_err(|error| failed(error.to_string()))?;
            let is_alone = has_one_member(&members) && members.voter_ids().any(|voter| voter == self.node);
            self.log.set_alone(is_alone);
            return if is_alone { self.until_applied().await } else { Ok(()) };
        }
        let others = self.raft.with_raft_state(|state| state.membership_state.effective().membership().nodes().count());
        if others.await.map_err(|error| failed(error.to_string()))? > 1 {
            return Err(failed("it has members on other nodes: start this node as a member of its cluster".to_owned()));
        }
        let initialized = self.raft.is_initialized().await.map_err(|error| failed(error.to_string()))?;
        if initialized {
            self.raft.trigger().elect(false).await.map_err(|error| failed(error.to_string()))?;
        } else {
            let members = BTreeMap::from([(self.node, GroupMember::default())]);
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
            if is_applied(&metrics.borrow_watched()).map_err(failed)? {
                return Ok(());
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

fn is_applied(metrics: &RaftMetrics<TypeConfig>) -> Result<bool, String> {
    metrics.running_state.as_ref().map_err(ToString::to_string)?;
    let applied = metrics.last_applied.map(|id| id.index);
    Ok(metrics.state == ServerState::Leader && applied.is_some() && applied == metrics.last_log_index)
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

/// Returns openraft's settings for a group. Without peers its timers are off (`enable_tick`): the group gets its leader
/// when [`Group::begin`] says so, and no other node can become leader.
fn config(group: GroupId, has_peers: bool) -> Result<Arc<Config>, String> {
    let config = Config {
        cluster_name: format!("group {group}"),
        heartbeat_interval: 100,
        heartbeat_min_interval: Some(100),
        election_timeout_min: 300,
        election_timeout_max: 600,
        enable_leader_restore: Some(restores_leader()),
        enable_pre_vote: Some(true),
        enable_tick: has_peers,
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        max_payload_entries: 4096,
        ..Config::default()
    };
    config.validate().map(Arc::new).map_err(|error| error.to_string())
}

/// Returns whether a leader that restarts leads on: never, as it may have lost entries that it gave others the numbers of.
fn restores_leader() -> bool {
    #[cfg(any(test, feature = "mutants"))]
    if crate::mutants::LEADER_RESTORED.load(std::sync::atomic::Ordering::Relaxed) {
        return true;
    }
    false
}

/// The journal keeps 40 records; each group has up to three.
const GROUPS_MAX: u16 = 13;
/// Time between two log messages about the progress of a start.
const REPORT_EVERY: Duration = Duration::from_secs(2);
/// A start has failed if no entry is applied for this long.
const STALL_MAX: Duration = Duration::from_secs(300);
/// The most bytes of applied entries that all groups together keep in memory for peers that lag behind.
const HOT_BYTES: usize = 16 << 20;

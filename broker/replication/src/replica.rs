//! The replica of one group on this node.
use crate::link::Peers;
use crate::log_store::{self, LogStore};
use crate::state_machine::{Builds, Machine};
use crate::types::TypeConfig;
use crate::wire::SnapshotHead;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::{Raft, ServerState};
use parking_lot::Mutex;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::time::Instant;

#[derive(Clone)]
pub(crate) struct Group {
    /// Identity of this node.
    pub(crate) node: u64,
    pub(crate) raft: Raft<TypeConfig, Machine>,
    pub(crate) log: LogStore,
    pub(crate) builds: Arc<Builds>,
    /// The snapshot that is arriving from the leader.
    pub(crate) arriving: Arc<Mutex<Option<ArrivingSnapshot>>>,
    /// Why the group was stopped because its log differs from that of its leader.
    pub(crate) diverged: Arc<OnceLock<String>>,
    /// When a leader was heard of last.
    pub(crate) heard: Arc<Heard>,
    /// The links to other nodes; `None` if this node is the only one.
    pub(crate) peers: Option<Peers>,
}

/// When a group heard of its leader last.
#[derive(Default)]
pub(crate) struct Heard(Mutex<Option<Instant>>);

impl Heard {
    /// Notes that an append or heartbeat of the leader was accepted.
    pub(crate) fn now(&self) {
        *self.0.lock() = Some(Instant::now());
    }

    /// Returns whether that was less than `time` ago.
    pub(crate) fn is_within(&self, time: Duration) -> bool {
        self.0.lock().is_some_and(|at| at.elapsed() < time)
    }
}

/// A snapshot that is arriving.
pub(crate) struct ArrivingSnapshot {
    /// The node that sends it.
    pub(crate) from: u64,
    pub(crate) head: SnapshotHead,
    /// What is here of the state.
    pub(crate) state: Vec<u8>,
    /// True once the state is known to be whole, and its contents are arriving.
    pub(crate) is_whole: bool,
    /// When the last part of the state came.
    pub(crate) since: Instant,
}

impl Group {
    /// Returns up to which entry the log may be purged when a snapshot covers it up to `covered`, or `None` if nothing
    /// may be. A leader keeps what the slowest member that can be reached does not have, but no entries in segments
    /// below `first_segment`.
    pub(crate) fn purge_upto(&self, covered: u64, first_segment: u64) -> Option<u64> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let reachable = |node: &u64| self.peers.as_ref().is_some_and(|peers| peers.is_connected(*node));
        let others = metrics.replication.iter().flatten().filter(|(node, _)| **node != self.node && reachable(node));
        let Some(slowest) = others.map(|(_, matched)| matched.map(|id| id.index)).min() else { return Some(covered) };
        let beyond_budget = self.log.table.lock().last_below(first_segment);
        slowest.max(beyond_budget).map(|upto| upto.min(covered))
    }

    /// Stops the group, because its log and that of its leader have different entries at or before `index`. Returns the
    /// reason.
    pub(crate) fn stop_diverged(&self, index: u64) -> String {
        let reason = log_store::diverged(self.log.group, index).to_string();
        if self.diverged.set(reason.clone()).is_ok() {
            let group = self.clone();
            tokio::spawn(async move {
                group.log.leadership.stop();
                let _ = group.raft.shutdown().await;
            });
        }
        reason
    }

    /// Keeps links to all members of the group. Tells when this node stops leading although no newer vote is saved,
    /// because it was removed from the group.
    pub(crate) async fn watch(self, peers: Peers) {
        let mut metrics = self.raft.server_metrics(); // the others change with each entry
        let mut known = None;
        loop {
            {
                let now = metrics.borrow_and_update();
                if matches!(now.state, ServerState::Follower | ServerState::Learner) {
                    self.log.leadership.resigned(&now.vote);
                }
                let membership = &now.membership_config;
                if known != Some(*membership.log_id()) {
                    known = Some(*membership.log_id());
                    membership.membership().nodes().for_each(|(node, member)| peers.introduce(*node, &member.address));
                }
            }
            if metrics.changed().await.is_err() {
                return self.log.leadership.stop(); // the group has stopped
            }
        }
    }
}

/// Has openraft try at once again to send entries to a node that can be reached again.
pub(crate) async fn resume(groups: Arc<[Group]>, node: u64) {
    for group in groups.iter() {
        let _ = group.raft.trigger().reset_backoff([node]).await; // fails if the group stops
    }
}

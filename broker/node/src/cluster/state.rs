//! [`Cluster`]: what a node knows of its cluster beside the logs, shared by the tasks that keep the cluster together.
use super::founders::Addresses;
use super::membership::Surroundings;
use super::options::ClusterOptions;
use super::report::{GroupReport, LedReport, MemberStage, NodeReport};
use crate::Node;
use bytes::Bytes;
use leveret_replication::{GroupId, GroupStatus, Groups, PeerMessages, Peers};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// What a node knows of its cluster beside the logs.
pub(crate) struct Cluster {
    pub(super) options: ClusterOptions,
    /// Identity of this node.
    pub(super) node: u64,
    /// The name of this node, for people.
    name: String,
    pub(super) peers: Peers,
    broker: Weak<Node>,
    pub(super) stopping: CancellationToken,
    pub(super) heard: Arc<HeardReports>,
    /// What this node has promised to found.
    pub(super) founders: Mutex<Option<Addresses>>,
    /// The nodes with which this one would found a cluster.
    pub(super) proposal: Mutex<Option<Addresses>>,
    /// What this node waits for, in words; empty if for nothing.
    pub(super) waits_for: Mutex<String>,
    /// Until when this node leads no group if that can be avoided.
    pub(super) leaves_until: Mutex<Option<Instant>>,
    pub(super) removal: OwnRemoval,
    /// Whether the disk of this node has had no room for a while.
    pub(super) is_full: AtomicBool,
    /// The groups of which this node has had all entries since it last lost their leader.
    pub(super) caught_up: Mutex<BTreeSet<GroupId>>,
    /// Held while this node, as the leader of group 0, changes the members on request.
    pub(super) changing: tokio::sync::Mutex<()>,
}

/// Whether this node was removed from the cluster.
pub(super) struct OwnRemoval {
    pub(super) is_removed: watch::Sender<bool>,
    /// Since when all that is heard says so.
    suspected: Mutex<Option<Instant>>,
}

/// The newest report of each other node.
#[derive(Default)]
pub(crate) struct HeardReports(Mutex<BTreeMap<u64, HeardReport>>);

/// A report and when it came.
#[derive(Clone)]
pub(super) struct HeardReport {
    pub(super) at: Instant,
    pub(super) report: Arc<NodeReport>,
}

impl HeardReports {
    pub(super) fn note(&self, from: u64, report: Arc<NodeReport>) {
        let mut heard = self.0.lock();
        if heard.len() >= HEARD_MAX && !heard.contains_key(&from) {
            let oldest = heard.iter().min_by_key(|(_, report)| report.at).map(|(node, _)| *node);
            oldest.map(|node| heard.remove(&node));
        }
        heard.insert(from, HeardReport { at: Instant::now(), report });
    }

    pub(super) fn of(&self, node: u64) -> Option<HeardReport> {
        self.0.lock().get(&node).cloned()
    }
}

impl PeerMessages for HeardReports {
    fn received(&self, from: u64, _: u8, message: Bytes) {
        match NodeReport::decode(&message) {
            Some(report) => self.note(from, Arc::new(report)),
            None => tracing::debug!(from, "a report that this version does not know"),
        }
    }
}

impl Cluster {
    /// Returns the addresses of the members of group 0, as far as this node knows.
    pub(super) fn addresses(&self) -> Addresses {
        self.groups().map(|groups| addresses(&groups.status(0))).unwrap_or_default()
    }

    pub(super) fn new(
        node: &Arc<Node>,
        options: ClusterOptions,
        peers: Peers,
        heard: Arc<HeardReports>,
        founders: Option<Addresses>,
    ) -> Self {
        Self {
            options,
            node: peers.node(),
            name: node.options.name.clone(),
            peers,
            broker: Arc::downgrade(node),
            stopping: node.stopping.clone(),
            heard,
            founders: Mutex::new(founders),
            proposal: Mutex::default(),
            waits_for: Mutex::default(),
            leaves_until: Mutex::default(),
            removal: OwnRemoval { is_removed: watch::Sender::new(false), suspected: Mutex::default() },
            is_full: AtomicBool::new(false),
            caught_up: Mutex::default(),
            changing: tokio::sync::Mutex::default(),
        }
    }

    /// Returns the groups; `None` before storage is open and after the node has ended.
    pub(super) fn groups(&self) -> Option<Groups> {
        Some(self.broker.upgrade()?.storage.get()?.groups.clone())
    }

    /// Returns the node; `None` after it has ended.
    pub(super) fn broker(&self) -> Option<Arc<Node>> {
        self.broker.upgrade()
    }

    /// Returns the status of each group in the order of their numbers.
    pub(super) fn statuses(&self) -> Vec<GroupStatus> {
        let Some(groups) = self.groups() else { return Vec::new() };
        (0..groups.len()).map(|group| groups.status(group)).collect()
    }

    /// Returns the name of a member, if it has told it.
    pub(crate) fn name_of(&self, node: u64) -> Option<String> {
        if node == self.node { Some(self.name.clone()) } else { Some(self.heard.of(node)?.report.name.clone()) }
    }

    pub(super) fn is_removed(&self) -> bool {
        *self.removal.is_removed.borrow()
    }

    /// Returns whether the disk of this node has had no room for a while.
    pub(super) fn is_full(&self) -> bool {
        self.is_full.load(Relaxed)
    }

    pub(super) fn is_leaving(&self) -> bool {
        let until = *self.leaves_until.lock();
        self.is_removed() || until.is_some_and(|until| until > Instant::now())
    }

    /// Returns the other members that this node is connected to.
    pub(crate) fn reached(&self) -> Vec<u64> {
        let members = self.statuses().into_iter().next().map(|definitions| definitions.members).unwrap_or_default();
        members.into_keys().filter(|node| *node != self.node && self.peers.is_connected(*node)).collect()
    }

    /// Returns whether a node is this one or is connected to it.
    pub(crate) fn reaches(&self, node: u64) -> bool {
        node == self.node || self.peers.is_connected(node)
    }

    /// Returns the report of another node, if it is not too old and the node can be reached.
    pub(super) fn report_of(&self, node: u64) -> Option<Arc<NodeReport>> {
        Some(self.heard_from(node)?.report)
    }

    /// Returns the same, and when it came.
    pub(super) fn heard_from(&self, node: u64) -> Option<HeardReport> {
        self.fresh(node).filter(|_| self.peers.is_connected(node))
    }

    /// Returns the report of another node, if it is not too old.
    pub(super) fn fresh_report(&self, node: u64) -> Option<Arc<NodeReport>> {
        Some(self.fresh(node)?.report)
    }

    fn fresh(&self, node: u64) -> Option<HeardReport> {
        self.heard.of(node).filter(|heard| heard.at.elapsed() <= self.options.times.report_max)
    }

    pub(super) fn stage(&self, statuses: &[GroupStatus]) -> MemberStage {
        let has_entries = statuses.iter().any(|status| status.last.is_some() || !status.members.is_empty());
        let knows_members = statuses.first().is_some_and(|status| !status.members.is_empty());
        let has_promised = self.founders.lock().is_some();
        match (knows_members, has_promised, has_entries) {
            _ if self.is_removed() => MemberStage::Removed,
            (true, ..) => MemberStage::Member,
            (_, true, _) => MemberStage::Founding,
            (_, _, true) => MemberStage::Joining,
            _ => MemberStage::Empty,
        }
    }

    /// Returns what this node reports of itself.
    pub(super) fn report(&self) -> NodeReport {
        let statuses = self.statuses();
        let definitions = statuses.first();
        let is_settled = |status: &&GroupStatus| status.configured_at <= status.applied;
        let members = statuses.iter().flat_map(|status| status.members.keys().copied());
        NodeReport {
            stage: self.stage(&statuses),
            is_leaving: self.is_leaving(),
            is_full: self.is_full(),
            reached: members.filter(|member| self.peers.is_connected(*member)).collect(),
            name: self.name.clone(),
            address: self.options.address.clone(),
            founders: self.founders.lock().clone(),
            proposal: self.proposal.lock().clone(),
            members: definitions.map(addresses).unwrap_or_default(),
            configured_at: definitions.filter(is_settled).and_then(|status| status.configured_at),
            groups: statuses.iter().map(|status| self.group_report(status)).collect(),
        }
    }

    fn group_report(&self, status: &GroupStatus) -> GroupReport {
        let GroupStatus { leader, term, last, applied, .. } = *status;
        let led = (leader == Some(self.node)).then(|| {
            let connected = status.matched.iter().filter(|(node, _)| self.peers.is_connected(**node));
            LedReport {
                has_quorum: self.has_quorum(status),
                reached: connected.filter_map(|(node, matched)| Some((*node, (*matched)?))).collect(),
            }
        });
        GroupReport { leader, term, last, applied, led }
    }

    /// Returns whether this node is connected to a majority of the voters of a group, itself included.
    pub(super) fn has_quorum(&self, status: &GroupStatus) -> bool {
        self.with_surroundings(|around| around.has_quorum(status, None))
    }

    /// Calls `decide` with what this node knows of the others.
    pub(super) fn with_surroundings<T>(&self, decide: impl FnOnce(&Surroundings<'_>) -> T) -> T {
        let is_reachable = |node: u64| self.peers.is_connected(node);
        decide(&Surroundings { own: self.node, is_reachable: &is_reachable })
    }

    /// Notes what this node waits for, and logs it if it is something new.
    pub(super) fn wait_for(&self, reason: &str) {
        let mut waits_for = self.waits_for.lock();
        if *waits_for != reason {
            reason.clone_into(&mut waits_for);
            if !reason.is_empty() {
                tracing::info!("no member of a cluster yet: {reason}");
            }
        }
    }

    /// Notes whether what is heard at the moment says that this node was removed from its cluster. Reports may be out of
    /// date, so it only counts if it lasts.
    pub(super) fn suspect_removal(&self, is_suspected: bool) {
        let mut since = self.removal.suspected.lock();
        if !is_suspected {
            *since = None;
        } else if since.get_or_insert_with(Instant::now).elapsed() > self.options.times.report_max
            && !self.removal.is_removed.send_replace(true)
        {
            tracing::error!("{REMOVED}");
        }
    }
}

/// Returns whether the newest configuration of a group's members is applied, and none is being introduced.
pub(super) fn is_settled(status: &GroupStatus) -> bool {
    !status.is_changing && status.configured_at <= status.applied
}

/// Returns the members of a group with their addresses.
pub(super) fn addresses(status: &GroupStatus) -> Addresses {
    status.members.iter().map(|(node, member)| (*node, member.address.clone())).collect()
}

/// What a removed node says.
pub(super) const REMOVED: &str = "this node was removed from its cluster and serves nothing any more: stop it, or start it with an \
     empty data folder to have it join again";
/// The most nodes whose reports are kept.
const HEARD_MAX: usize = 64;

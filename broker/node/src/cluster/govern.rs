//! The task that has the groups which this node leads follow: their members those of group 0, and their leaders the nodes
//! that are to lead.
use super::founders::Addresses;
use super::membership::{self, MemberStep};
use super::question::{ClusterQuestion, ClusterReply};
use super::report::MemberStage;
use super::room::RoomLook;
use super::state::{self, Cluster};
use crate::Broker;
use futures::future::join_all;
use leveret_engine::catalog::{CatalogCommand, NodeRun};
use leveret_replication::{GroupId, GroupMember, GroupStatus, Groups};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// What has to be the same for a while before leaders are moved.
#[derive(Default, PartialEq, Eq)]
struct Calm {
    leaders: Vec<Option<u64>>,
    members: Addresses,
    connected: Vec<u64>,
}

/// What was the same for how long.
struct Quiet {
    calm: Calm,
    since: Instant,
    /// Since when the same members are connected.
    steady_since: Instant,
}

impl Quiet {
    fn new() -> Self {
        let now = Instant::now();
        Self { calm: Calm::default(), since: now, steady_since: now }
    }

    fn look(&mut self, calm: Calm) {
        if calm == self.calm {
            return;
        }
        self.since = Instant::now();
        if calm.members != self.calm.members || calm.connected != self.calm.connected {
            self.steady_since = self.since;
        }
        self.calm = calm;
    }

    fn is_quiet(&self, time: Duration) -> bool {
        self.since.elapsed() >= time
    }

    fn is_steady(&self, time: Duration) -> bool {
        self.steady_since.elapsed() >= time
    }
}

impl Cluster {
    /// Looks again and again whether a group that this node leads has to change.
    pub(super) async fn govern(self: Arc<Self>) {
        let (mut quiet, mut known) = (Quiet::new(), BTreeSet::new());
        let (mut lost_at, mut room) = (None, RoomLook::default());
        loop {
            tokio::time::sleep(self.options.times.look).await;
            let Some(groups) = self.groups() else { return };
            let statuses = self.statuses();
            self.look_for_majority(&statuses, &mut lost_at);
            self.look_for_room(&statuses, &mut room);
            if !matches!(self.stage(&statuses), MemberStage::Member | MemberStage::Removed) {
                continue;
            }
            self.keep_links(&statuses, &mut known);
            if self.is_leaving() {
                self.hand_over_all(Instant::now() + self.options.times.look).await;
                continue;
            }
            self.follow_members(&groups, &statuses).await;
            self.end_removed(&groups).await;
            quiet.look(self.calm(&statuses));
            let is_quiet = quiet.is_quiet(self.options.times.quiet);
            if is_quiet || self.is_full() || quiet.is_steady(self.options.times.quiet / 2) {
                self.spread(&groups, &self.statuses(), is_quiet).await;
            }
        }
    }

    /// As the leader of group 0, deletes what lived on nodes that are members no longer. Their identities never come back.
    async fn end_removed(&self, groups: &Groups) {
        let Some(broker) = self.broker().map(Broker) else { return };
        // Read before the members: a node that runs by now was a member by then.
        let running: Vec<NodeRun> = broker.catalog().running().collect();
        let definitions = groups.status(0);
        if definitions.leader != Some(self.node) || !state::is_settled(&definitions) {
            return;
        }
        let removed = running.into_iter().find(|run| !definitions.members.contains_key(&run.node));
        let Some(run) = removed else { return }; // the next one follows soon
        tracing::info!("what lived on node {:016x}, which was removed, is deleted", run.node);
        match timeout(STEP_MAX, broker.command(CatalogCommand::NodeGone(run))).await {
            Ok(Ok(_)) => {}
            Ok(Err(refused)) => tracing::info!("it is not deleted yet: {}", refused.text),
            Err(_) => tracing::info!("it is not deleted yet: the members have not agreed on it in time"),
        }
    }

    fn calm(&self, statuses: &[GroupStatus]) -> Calm {
        let members = statuses.first().map(state::addresses).unwrap_or_default();
        Calm {
            leaders: statuses.iter().map(|status| status.leader).collect(),
            connected: members.keys().copied().filter(|node| self.peers.is_connected(*node)).collect(),
            members,
        }
    }

    /// Takes the next step of each group that this node leads.
    async fn follow_members(&self, groups: &Groups, statuses: &[GroupStatus]) {
        let Some(definitions) = statuses.first() else { return };
        let cluster = state::addresses(definitions);
        let is_settled = state::is_settled(definitions);
        let led = (0..).zip(statuses).filter(|(_, status)| status.leader == Some(self.node));
        let steps = led.filter_map(|(group, status)| {
            let step = self.with_surroundings(|around| match group {
                0 => membership::step_of_definitions(status, &self.reported_addresses(status), around),
                _ if !is_settled => None,
                _ => membership::step_of_shard(status, &cluster, around),
            });
            step.map(|step| self.take(groups, group, step))
        });
        join_all(steps.collect::<Vec<_>>()).await;
    }

    /// Returns the addresses that the members of a group report at the moment. A member that has moved can report it
    /// although this node cannot reach it yet.
    fn reported_addresses(&self, status: &GroupStatus) -> Addresses {
        let others = status.members.keys().filter_map(|node| Some((*node, self.fresh_report(*node)?.address.clone())));
        others.chain([(self.node, self.options.address.clone())]).collect()
    }

    async fn take(&self, groups: &Groups, group: GroupId, step: MemberStep) {
        if group > 0 && !self.is_confirmed(groups, &step).await {
            return;
        }
        let change = match step.clone() {
            MemberStep::Add { node, address } => groups.add_learner(group, node, GroupMember { address }),
            MemberStep::Promote(node) => groups.promote(group, node),
            MemberStep::Remove(node) => groups.remove(group, node),
            MemberStep::Finish => groups.finish_change(group),
        };
        match timeout(STEP_MAX, change).await {
            Ok(Ok(())) => tracing::debug!(group, "the members have changed: {step:?}"),
            Ok(Err(error)) => tracing::info!("the members are not changed yet: {error}"),
            Err(_) => tracing::info!("group {group}: the members have not agreed on a change in time"),
        }
    }

    /// Asks the leader of group 0 before a member is added to a shard or removed, because this node may not have the
    /// newest entries of group 0.
    async fn is_confirmed(&self, groups: &Groups, step: &MemberStep) -> bool {
        let (node, is_wanted) = match step {
            MemberStep::Promote(_) | MemberStep::Finish => return true,
            MemberStep::Add { node, .. } => (*node, true),
            MemberStep::Remove(node) => (*node, false),
        };
        let status = groups.status(0);
        let Some(leader) = status.leader else { return false };
        if leader == self.node {
            return status.members.contains_key(&node) == is_wanted;
        }
        let Some(member) = status.members.get(&leader) else { return false };
        match self.ask(&member.address, &ClusterQuestion::Report, ASK_MAX).await {
            Ok((from, ClusterReply::Report(report))) => {
                let leads = report.groups.first().is_some_and(|group| group.led.is_some());
                let is_settled = report.configured_at.is_some();
                from == leader && leads && is_settled && report.members.contains_key(&node) == is_wanted
            }
            _ => false,
        }
    }

    /// Closes the links to nodes that are members of no group any more; `known` has those that were members before. Has
    /// members dialled where they say they are.
    fn keep_links(&self, statuses: &[GroupStatus], known: &mut BTreeSet<u64>) {
        let members: BTreeSet<u64> = statuses.iter().flat_map(|status| status.members.keys().copied()).collect();
        known.difference(&members).for_each(|node| self.peers.forget(*node));
        *known = members;
        let Some(definitions) = statuses.first() else { return };
        let mut addresses = state::addresses(definitions);
        addresses.extend(self.reported_addresses(definitions));
        addresses.iter().for_each(|(node, address)| self.peers.introduce(*node, address));
    }
}

/// The longest time that the members of a group may take to agree on a change.
const STEP_MAX: Duration = Duration::from_secs(5);
const ASK_MAX: Duration = Duration::from_secs(2);

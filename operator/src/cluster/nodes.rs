//! The nodes of a Broker: their pods, their claims, and what the brokers in the pods say of themselves and of their cluster.
//! Pure: questions to what was observed.
//!
//! The members of the cluster are only believed to be those that ready nodes name, because these have a majority and all
//! entries. Nodes that are not ready may know an old state.
use super::pods;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::ResourceExt;
use leveret_client::{ClusterMember, ClusterStatus};
use std::collections::BTreeSet;

/// The answers of the broker in a pod.
#[derive(Clone, Debug, Default)]
pub(super) struct NodeAnswer {
    /// The reason why the broker cannot serve clients, or why it does not answer; `None` if it is ready.
    pub(super) lacks: Option<String>,
    /// The cluster as the broker sees it; `None` if it does not answer, or is no part of one.
    pub(super) cluster: Option<ClusterStatus>,
    /// Whether the broker answers that it is no part of a cluster: an earlier operator has started it.
    pub(super) is_alone: bool,
    /// Number of clients.
    pub(super) connections: i64,
    /// The resources that the broker has run short of.
    pub(super) alarms: Vec<String>,
}

/// A pod of a Broker with its claim and its broker.
#[derive(Clone, Debug)]
pub(super) struct BrokerNode {
    /// The number at the end of the pod's name.
    pub(super) ordinal: i32,
    /// The address at which the other nodes reach this one.
    pub(super) address: String,
    pub(super) pod: Option<Pod>,
    pub(super) claim: Option<PersistentVolumeClaim>,
    pub(super) answer: NodeAnswer,
}

/// All nodes that a Broker can have, in the order of their ordinals.
#[derive(Clone, Debug, Default)]
pub(super) struct BrokerNodes(pub(super) Vec<BrokerNode>);

impl BrokerNode {
    /// Returns whether Kubernetes shows clients the way to the node, and the broker says that it is ready.
    pub(super) fn is_ready(&self) -> bool {
        self.pod.as_ref().is_some_and(pods::is_ready) && self.answer.cluster.is_some() && self.answer.lacks.is_none()
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.pod.as_ref().is_some_and(|pod| pod.metadata.deletion_timestamp.is_some())
    }

    /// Returns whether the node has said that it was removed from the cluster.
    pub(super) fn is_removed(&self) -> bool {
        self.answer.cluster.as_ref().is_some_and(|cluster| cluster.removed)
    }

    /// Returns whether the claim of the node is there and not being deleted.
    pub(super) fn keeps_claim(&self) -> bool {
        self.claim.as_ref().is_some_and(|claim| claim.metadata.deletion_timestamp.is_none())
    }

    /// Returns the reason why the node is not ready, in words.
    fn problem(&self) -> Option<String> {
        let Some(pod) = &self.pod else { return Some(format!("pod {} does not exist", self.pod_name())) };
        if self.is_stopping() {
            return Some(format!("pod {} is being stopped", pod.name_any()));
        }
        match &self.answer.lacks {
            _ if self.is_ready() => None,
            Some(lacks) => Some(format!("pod {} is not ready: {lacks}", pod.name_any())),
            None => Some(format!("pod {} is not ready", pod.name_any())),
        }
    }

    fn pod_name(&self) -> &str {
        self.address.split('.').next().unwrap_or_default()
    }
}

impl BrokerNodes {
    pub(super) fn of(&self, ordinal: i32) -> Option<&BrokerNode> {
        self.0.iter().find(|node| node.ordinal == ordinal)
    }

    /// Returns the clusters that the nodes see which are ready.
    fn views(&self) -> impl Iterator<Item = &ClusterStatus> {
        self.0.iter().filter(|node| node.is_ready()).filter_map(|node| node.answer.cluster.as_ref())
    }

    /// Returns whether the node with this ordinal is a member of the cluster. `None` if no node that is ready says so, or if
    /// it has left the cluster but not all of its groups yet.
    pub(super) fn is_member(&self, ordinal: i32) -> Option<bool> {
        let address = &self.of(ordinal)?.address;
        let mut views = self.views().peekable();
        views.peek()?;
        views.try_fold(false, |is_member, view| {
            let is_listed = view.members.iter().any(|member| member.address == *address);
            let is_left = is_listed || strangers(view).is_empty();
            is_left.then_some(is_member || is_listed)
        })
    }

    /// Returns the member at the address of this ordinal, as the nodes see it that are ready.
    pub(super) fn member(&self, ordinal: i32) -> Option<&ClusterMember> {
        let address = &self.of(ordinal)?.address;
        self.views().find_map(|view| view.members.iter().find(|member| member.address == *address))
    }

    /// Returns the number of pods that all known members need. Nodes that are not ready are believed if there are no
    /// others, since they may lack the pods that are missing.
    pub(super) fn needed(&self) -> i32 {
        let ready: Vec<_> = self.views().collect();
        let all: Vec<_> = self.0.iter().filter_map(|node| node.answer.cluster.as_ref()).collect();
        let views = if ready.is_empty() { all } else { ready };
        let members: BTreeSet<_> =
            views.iter().flat_map(|view| view.members.iter().map(|member| &member.address)).collect();
        let needed = self.0.iter().filter(|node| members.contains(&node.address));
        needed.map(|node| node.ordinal + 1).max().unwrap_or(0)
    }

    /// Returns the number of members that are up and vote; `None` if no node is ready.
    pub(super) fn members_up(&self) -> Option<usize> {
        let view = self.views().max_by_key(|view| view.members.len())?;
        Some(view.members.iter().filter(|member| trouble_of(member).is_none()).count())
    }

    /// Checks whether the cluster is whole: the first `count` nodes are ready, are its members, and are up in the eyes of
    /// all, and each group has these members. The node `except` does not count.
    ///
    /// # Errors
    /// What is missing, in words.
    pub(super) fn whole(&self, count: i32, except: Option<i32>) -> Result<(), String> {
        let counted = || self.0.iter().filter(|node| node.ordinal < count && Some(node.ordinal) != except);
        let spared = except.and_then(|ordinal| self.of(ordinal)).map(|node| &node.address);
        for node in counted() {
            if let Some(problem) = node.problem() {
                return Err(problem);
            }
            let Some(view) = &node.answer.cluster else { continue };
            let members = || view.members.iter().filter(|member| Some(&member.address) != spared);
            for other in counted() {
                if !members().any(|member| member.address == other.address) {
                    return Err(format!("{} is no member of the cluster yet", other.pod_name()));
                }
            }
            if let Some(trouble) = members().find_map(trouble_of) {
                return Err(trouble);
            }
            if members().count() != counted().count() {
                return Err(format!("the cluster has {} members instead of {count}", view.members.len()));
            }
            unsettled_group(view, spared)?;
        }
        Ok(())
    }
}

/// Returns why a member is not up, in words.
fn trouble_of(member: &ClusterMember) -> Option<String> {
    let name = member.name.as_ref().unwrap_or(&member.address);
    match &*member.state {
        "running" | "leaving" if member.voter => None,
        state => Some(format!("member {name} is {state}")),
    }
}

/// Returns the nodes that take part in a group and are no members of the cluster.
fn strangers(view: &ClusterStatus) -> BTreeSet<&String> {
    let members: BTreeSet<_> = view.members.iter().map(|member| &member.node).collect();
    let taking_part = view.groups.iter().flat_map(|group| group.voters.iter().chain(&group.learners));
    taking_part.filter(|node| !members.contains(node)).collect()
}

/// Checks that each group has a leader and the members of the cluster, except for those at the address `spared`.
fn unsettled_group(view: &ClusterStatus, spared: Option<&String>) -> Result<(), String> {
    let (spared, members): (Vec<_>, Vec<_>) = view.members.iter().partition(|member| Some(&member.address) == spared);
    let spared: BTreeSet<_> = spared.iter().map(|member| &member.node).collect();
    let members: BTreeSet<_> = members.iter().map(|member| &member.node).collect();
    for group in &view.groups {
        let without = |nodes: &'_ [String]| {
            nodes.iter().filter(|node| !spared.contains(node)).cloned().collect::<BTreeSet<String>>()
        };
        let (voters, learners) = (without(&group.voters), without(&group.learners));
        if group.leader.is_none() {
            return Err(format!("group {} has no leader", group.group));
        }
        if !learners.is_empty() || !voters.iter().eq(members.iter().copied()) {
            return Err(format!("group {} does not have the members of the cluster yet", group.group));
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "nodes_tests.rs"]
pub(super) mod tests;

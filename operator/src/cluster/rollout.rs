//! Decides which pod of a Broker is restarted next so that all get the newest template. Pure.
//!
//! The StatefulSet does not replace pods by itself (`OnDelete`), because it would do so while another pod is not ready, and
//! two of three nodes are no majority. A pod that serves is restarted only while all others are whole.
use super::build::pod::SHARED;
use super::nodes::{BrokerNode, BrokerNodes};
use super::pods;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

/// A step of a rollout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RolloutStep {
    /// All pods that there are have the newest template.
    Done,
    /// A pod has an older template, and cannot be restarted yet for this reason.
    Wait(String),
    /// The pod is replaced at once: it serves nobody.
    Replace(i32),
    /// The pod is evicted, as soon as its node has let others lead if it answers.
    Evict(i32),
}

/// Decides the next step for the first `count` pods.
pub(super) fn next(set: &StatefulSet, count: i32, nodes: &BrokerNodes) -> RolloutStep {
    let Some(revision) = newest_revision(set) else { return RolloutStep::Done };
    let present = || nodes.0.iter().rev().filter(|node| node.ordinal < count);
    let outdated: Vec<&BrokerNode> = present().filter(|node| is_outdated(node, revision)).collect();
    let Some(first) = outdated.first() else { return RolloutStep::Done };
    let cannot_serve = outdated.iter().find(|node| {
        let pod = node.pod.as_ref();
        !pod.is_some_and(pods::is_running) || node.answer.is_alone || pod.is_some_and(|pod| has_other_secret(pod, set))
    });
    if let Some(node) = cannot_serve {
        return RolloutStep::Replace(node.ordinal);
    }
    let serves = |node: &BrokerNode| node.pod.as_ref().is_some_and(pods::is_ready);
    // A node that serves clients and does not answer the operator may have a login that only a restart replaces.
    let is_silent = |node: &&BrokerNode| serves(node) && node.answer.cluster.is_none();
    if !present().any(BrokerNode::is_ready) || outdated.iter().all(is_silent) {
        // The PodDisruptionBudget says whether a pod can go that serves clients.
        let idle = outdated.iter().find(|node| !serves(node)).unwrap_or(first);
        return match present().any(serves) {
            true => RolloutStep::Evict(idle.ordinal),
            false => RolloutStep::Replace(first.ordinal),
        };
    }
    let node = outdated.iter().find(|node| !node.is_ready()).unwrap_or(first);
    match nodes.whole(count, Some(node.ordinal)) {
        Err(missing) => RolloutStep::Wait(format!("the next pod is restarted once the cluster is whole: {missing}")),
        Ok(()) if node.is_ready() => RolloutStep::Evict(node.ordinal),
        Ok(()) => RolloutStep::Replace(node.ordinal),
    }
}

/// Returns the name of the newest template, once the StatefulSet's controller has looked at it.
fn newest_revision(set: &StatefulSet) -> Option<&str> {
    let status = set.status.as_ref()?;
    (status.observed_generation >= set.metadata.generation).then_some(status.update_revision.as_deref()?)
}

fn is_outdated(node: &BrokerNode, revision: &str) -> bool {
    let Some(pod) = &node.pod else { return false };
    !node.is_stopping() && pod.labels().get(REVISION).is_some_and(|carried| carried != revision)
}

/// Returns whether a pod runs with another secret of the cluster than the newest template has: then its node cannot be in
/// one cluster with restarted ones, and all have to be restarted at once.
fn has_other_secret(pod: &Pod, set: &StatefulSet) -> bool {
    let template = set.spec.as_ref().and_then(|spec| spec.template.metadata.as_ref());
    let newest = template.and_then(|meta| meta.annotations.as_ref()?.get(SHARED));
    pod.annotations().get(SHARED) != newest
}

/// The label that StatefulSets put on their pods.
const REVISION: &str = "controller-revision-hash";

#[cfg(test)]
#[path = "rollout_tests.rs"]
mod tests;

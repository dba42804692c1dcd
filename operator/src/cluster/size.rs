//! Decides how many pods a Broker has at the moment. Pure.
//!
//! All members have a pod. So a number of replicas that is smaller takes effect only when members have left the cluster
//! (see `departure`), and pods that somebody has scaled away, or a Broker that was created again with fewer replicas than it
//! had, come back until then: otherwise the rest might have no majority.
use super::nodes::BrokerNodes;
use k8s_openapi::api::apps::v1::StatefulSet;

/// Returns how many pods the Broker has now, if it is to have `wanted`.
pub(super) fn pods(wanted: i32, set: Option<&StatefulSet>, nodes: &BrokerNodes) -> i32 {
    let present = match set {
        Some(set) => set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0),
        None => with_volumes(nodes),
    };
    let present = present.max(nodes.needed());
    let top = present - 1;
    if present <= wanted {
        wanted
    } else if nodes.of(top).is_none() || nodes.is_member(top) == Some(false) && has_let_go(nodes, top) {
        top
    } else {
        present
    }
}

/// Returns the number of nodes from the first one on that have a volume.
fn with_volumes(nodes: &BrokerNodes) -> i32 {
    let kept = nodes.0.iter().take_while(|node| node.keeps_claim());
    kept.last().map_or(0, |node| node.ordinal + 1)
}

/// Returns whether the pod of a node that is no member can go: its volume was given up if the node was a member before.
fn has_let_go(nodes: &BrokerNodes, ordinal: i32) -> bool {
    let Some(node) = nodes.of(ordinal) else { return true };
    let Some(cluster) = &node.answer.cluster else { return true };
    let was_member = cluster.removed || !cluster.members.is_empty();
    !was_member || cluster.removed && !node.keeps_claim()
}

#[cfg(test)]
#[path = "size_tests.rs"]
mod tests;

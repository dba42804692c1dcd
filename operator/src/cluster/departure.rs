//! Decides the next step by which members leave the cluster of a Broker, and by which the volume of a node is given up whose
//! data is of no use any more. Pure.
//!
//! A removed member serves nothing with its old volume, and would not join again with it. So its volume is deleted when it
//! has said that it was removed; Kubernetes keeps the volume until the pod is gone. What was done before is seen in the
//! cluster, and nowhere remembered: each step can be taken again.
use super::nodes::{BrokerNode, BrokerNodes};

/// A step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum DepartureStep {
    /// Nobody has to leave.
    Done,
    /// A member has to leave, and cannot yet for this reason.
    Wait(String),
    /// The member with this identity is removed from the cluster, on request of the node `ask`.
    Remove { ordinal: i32, node: String, ask: i32 },
    /// The volume of a removed member is deleted once its pod is gone.
    DeleteClaim(i32),
    /// The volume and the pod of a node are deleted, so that an empty node takes its place, for this reason.
    Renew { ordinal: i32, reason: String },
}

/// Decides the next step for a Broker that has `present` pods and is to have `wanted`.
pub(super) fn next(wanted: i32, present: i32, nodes: &BrokerNodes) -> DepartureStep {
    if present <= wanted {
        return renewal(present, nodes);
    }
    let top = present - 1;
    let Some(node) = nodes.of(top) else { return DepartureStep::Done };
    match (nodes.member(top), nodes.is_member(top)) {
        (Some(member), _) => {
            let rest = nodes.whole(present, Some(top));
            let ask = nodes.0.iter().find(|node| node.ordinal != top && node.is_ready());
            match (rest, ask) {
                (Ok(()), Some(ask)) => {
                    DepartureStep::Remove { ordinal: top, node: member.node.clone(), ask: ask.ordinal }
                }
                (Err(missing), _) => {
                    DepartureStep::Wait(format!("a member leaves once the others are whole: {missing}"))
                }
                (_, None) => DepartureStep::Wait("a member leaves once another one is ready".to_owned()),
            }
        }
        (None, None) => DepartureStep::Wait("a member leaves the groups of the cluster".to_owned()),
        (None, Some(_)) if node.is_removed() && node.keeps_claim() => DepartureStep::DeleteClaim(top),
        (None, Some(_)) => DepartureStep::Wait("the pod of a member that has left is stopped".to_owned()),
    }
}

/// Looks for a node whose volume is lost, or is that of a member which was removed, while all others are whole.
fn renewal(present: i32, nodes: &BrokerNodes) -> DepartureStep {
    let reason = |node: &BrokerNode| {
        let phase =
            node.claim.as_ref().and_then(|claim| claim.status.as_ref()).and_then(|status| status.phase.as_deref());
        if phase == Some("Lost") {
            Some("its volume is lost")
        } else if node.is_removed() && nodes.is_member(node.ordinal) == Some(false) {
            Some("it was removed from the cluster")
        } else {
            None
        }
    };
    // A claim that is being deleted stays as long as its pod, which has to be restarted then.
    let is_open = |node: &&BrokerNode| {
        let is_held = node.pod.is_some() && !node.is_stopping();
        node.ordinal < present && (node.claim.is_none() || node.keeps_claim() || is_held)
    };
    let useless = nodes.0.iter().filter(is_open);
    let Some((node, reason)) = useless.filter_map(|node| Some((node, reason(node)?))).next() else {
        return DepartureStep::Done;
    };
    match nodes.whole(present, Some(node.ordinal)) {
        // Without others, what the volume has is all that there is.
        Ok(()) if present > 1 => DepartureStep::Renew { ordinal: node.ordinal, reason: reason.to_owned() },
        Ok(()) => DepartureStep::Done,
        Err(missing) => DepartureStep::Wait(format!("a node is replaced once the others are whole: {missing}")),
    }
}

#[cfg(test)]
#[path = "departure_tests.rs"]
mod tests;

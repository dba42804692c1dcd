//! What a node does that cannot reach most nodes of its cluster. Nothing can be agreed on there: publishers are held back
//! and told why, requests that need the others are refused, and if it lasts, all clients are sent away, so that they go on
//! at a node that has a majority.
use super::report::MemberStage;
use super::state::Cluster;
use crate::memory::NO_MAJORITY;
use crate::{Broker, Caller};
use leveret_replication::GroupStatus;
use std::time::Duration;
use tokio::time::Instant;

impl Cluster {
    /// Looks whether this node can reach most nodes of its cluster. `lost_at` says since when it cannot.
    pub(super) fn look_for_majority(&self, statuses: &[GroupStatus], lost_at: &mut Option<Instant>) {
        let (Some(node), Some(definitions)) = (self.broker(), statuses.first()) else { return };
        let is_member = self.stage(statuses) == MemberStage::Member && definitions.voters.contains(&self.node);
        let has_lost = is_member && !self.has_quorum(definitions);
        if has_lost != lost_at.is_some() {
            match has_lost {
                true => tracing::warn!("{NO_MAJORITY}: nothing is confirmed until they can"),
                false => tracing::info!("most nodes of the cluster can be reached again"),
            }
            *lost_at = has_lost.then(Instant::now);
        }
        node.memory.set_cluster_alarm(has_lost);
        if lost_at.is_some_and(|at| at.elapsed() >= SEND_AWAY_AFTER) {
            Broker(node).send_all_away(NO_MAJORITY);
        }
    }

    /// Returns the number of groups that would have no majority without this node.
    pub(crate) fn groups_in_need(&self) -> usize {
        let needs = |status: &GroupStatus| {
            let others = status.voters.iter().filter(|voter| **voter != self.node && self.peers.is_connected(**voter));
            status.voters.len() > 1 && status.voters.contains(&self.node) && others.count() * 2 <= status.voters.len()
        };
        self.statuses().into_iter().filter(needs).count()
    }
}

impl Broker {
    /// Closes the connections of all clients, so that they go on at another node.
    pub(super) fn send_all_away(&self, reason: &str) {
        for connection in self.connections() {
            self.close_connection(&Caller::system(), &connection, reason);
        }
    }

    /// Returns the number of Raft groups that would have no majority without this node; 0 if the node is the only one.
    pub fn groups_in_need(&self) -> usize {
        self.node().network.cluster.get().map_or(0, |cluster| cluster.groups_in_need())
    }
}

/// How long a node may be without a majority, or lack entries for which it has no room, before it sends its clients away.
pub(super) const SEND_AWAY_AFTER: Duration = Duration::from_secs(10);

//! The timers of all groups of a node. openraft has a timer of its own for each group, fifty times a second at our
//! settings, which on a dozen groups costs more than everything else that an idle node does. Here one timer sends the
//! heartbeats of all groups that this node leads, together, so that they leave and arrive in one piece. The timer of a
//! group runs only while its leader has not been heard of: to hold an election.
use crate::replica::Group;
use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::MissedTickBehavior;

/// Sends the heartbeats of the groups, and switches openraft's timers on and off.
pub(crate) async fn run(groups: Arc<[Group]>) {
    let mut beat = tokio::time::interval(EVERY);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        beat.tick().await;
        for group in groups.iter() {
            let (leads, has_others) = {
                let metrics = group.raft.server_metrics();
                let now = metrics.borrow_watched();
                (now.state == ServerState::Leader, now.membership_config.membership().nodes().count() > 1)
            };
            group.raft.runtime_config().tick(!leads && !group.heard.is_within(QUIET));
            if leads && has_others {
                let _ = group.raft.trigger().heartbeat().await; // fails if the group stops
            }
        }
    }
}

/// Time between two heartbeats.
const EVERY: Duration = Duration::from_millis(200);
/// A group that has not heard of its leader for this long runs its timer. An election begins after the shortest election
/// timeout behind the lease of the leader, which is longer.
const QUIET: Duration = Duration::from_millis(400);

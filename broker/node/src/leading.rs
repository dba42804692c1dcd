//! Leading a shard: the node that leads the Raft group of a shard serves its queues, for one term after the other. Only
//! that node hands entries to the log of the shard.
use crate::Node;
use crate::agreement;
use crate::delivered::Delivered;
use crate::replica::{Replica, ReplicaQueue};
use crate::shard::Shard;
use crate::shards::Shards;

/// Begins to serve the queues of a shard in `term`. Everything of earlier terms is applied. `delivered` says how far the
/// queues had been delivered when this node led the shard before. Returns how many declarations and deletions of queues the
/// log of the shard lacks and is about to get.
pub(crate) fn begin(
    node: &Node,
    shards: &Shards,
    replica: &Replica,
    shard: &Shard,
    term: u64,
    delivered: &Delivered,
) -> usize {
    let now = node.clock.now();
    shard.outbox.lead(term);
    for ReplicaQueue { queue, .. } in replica.queues() {
        let mut entered = queue.enter();
        if !queue.is_deleted() && !entered.is_led_in(term) {
            entered.lead(delivered.below(queue.id, term), term);
            entered.dispatch(now);
        }
    }
    if let Some(links) = node.links() {
        links.fronts.began(shard.group, term);
    }
    agreement::agree(node, shards, shard, replica)
}

/// Stops serving the queues of a shard: another node leads it, or this node stops.
pub(crate) fn end(shard: &Shard, replica: &Replica) {
    shard.outbox.follow();
    for ReplicaQueue { queue, .. } in replica.queues() {
        let mut entered = queue.enter();
        queue.drop_nodes(&mut entered);
        if entered.is_leading() {
            entered.end(); // otherwise another node is known to lead already
        }
    }
}

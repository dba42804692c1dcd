//! Leading a shard: the node that leads the Raft group of a shard serves its queues, for one term after the other. Only
//! that node hands entries to the log of the shard.
use crate::delivered::Delivered;
use crate::replica::{Replica, ReplicaQueue};
use crate::shard::Shard;

/// Begins to serve the queues of a shard in `term`. Everything of earlier terms is applied. `delivered` says how far the
/// queues had been delivered when this node led the shard before.
/// `now` is in nanoseconds of the node's clock.
pub(crate) fn begin(shard: &Shard, replica: &Replica, term: u64, delivered: &Delivered, now: u64) {
    shard.lead(term);
    for ReplicaQueue { queue, .. } in replica.queues() {
        let mut entered = queue.enter();
        if !queue.is_deleted() && !entered.is_led_in(term) {
            entered.lead(delivered.below(queue.id, term), term);
            entered.dispatch(now);
        }
    }
}

/// Stops serving the queues of a shard: another node leads it, or this node stops.
pub(crate) fn end(shard: &Shard, replica: &Replica) {
    shard.follow();
    for ReplicaQueue { queue, .. } in replica.queues() {
        queue.enter().end();
    }
}

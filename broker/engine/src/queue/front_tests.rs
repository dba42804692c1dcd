//! Messages that are granted to other nodes.
use super::durable_tests::{EPOCH, Log, led};
use super::*;
use std::sync::Arc;

/// Takes one message at a time for the consumers of a node.
struct OneGrant(u64);

impl Sink for OneGrant {
    fn fill(&self, source: &mut dyn Source) -> Fill {
        source.next().map_or(Fill::Exhausted, |_| Fill::Full)
    }

    fn node(&self) -> Option<u64> {
        Some(self.0)
    }
}

#[test]
fn what_is_granted_to_a_node_is_returned_by_that_node_in_that_epoch() {
    let (mut queue, mut log) = (led(None), Log::default());
    log.publish(&mut queue, &[b"1".to_vec()], true);
    // The node has delivered it to a client in an earlier epoch as well, and has it granted again now.
    let subscription = Subscription { sink: Arc::new(OneGrant(3)), exclusive: false, no_ack: false, prefetch: 0 };
    queue.subscribe(subscription).unwrap();
    queue.dispatch(0);
    let depth = |queue: &QueueCore| (queue.depth().ready, queue.depth().unacked);
    assert_eq!(depth(&queue), (0, 1));
    for (epoch, by) in [(EPOCH - 1, 3), (EPOCH, 4)] {
        queue.apply_returned(0, 4, Some(epoch), Some(by));
        queue.apply_released(0, 4, epoch, by);
        assert_eq!(depth(&queue), (0, 1), "epoch {epoch}, node {by}");
    }
    queue.apply_returned(0, 4, Some(EPOCH), Some(3));
    assert_eq!(depth(&queue), (1, 0));
    queue.apply_returned(0, 4, Some(EPOCH), Some(3));
    assert_eq!(depth(&queue), (1, 0), "once");
}

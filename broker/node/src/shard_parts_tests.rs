//! Tests of operations that clients can make very large, which are logged in parts, and of a group that stops, which health
//! reports.
use super::*;
use crate::test_node::{Confirmed, Taker, TestNode, in_paused_time};
use crate::{Caller, StorageTrouble, Subscription};
use bytes::Bytes;
use leveret_journal::faulty::FaultyDisk;

const MESSAGES: u64 = 180_000;

/// Has all messages of `queue` delivered to a consumer, which leaves without settling them. Returns the messages.
async fn deliver_all(node: &TestNode, queue: &Arc<crate::Queue>) -> Vec<crate::DeliveryId> {
    let sink = Arc::new(Taker::default());
    let subscription = Subscription { sink: sink.clone(), exclusive: false, no_ack: false, prefetch: 0 };
    let id = node.broker.subscribe(&Caller::system(), queue, subscription).unwrap();
    node.until("all is delivered", || sink.taken.lock().len() as u64 == MESSAGES).await;
    node.broker.unsubscribe(queue, id);
    let taken = sink.taken.lock();
    taken.iter().map(|(id, _)| *id).collect()
}

/// Restarts the node. Returns the new node and its queue.
async fn restarted(node: TestNode, disk: &FaultyDisk) -> (TestNode, Arc<crate::Queue>) {
    assert_eq!((node.failure.lock().clone(), node.broker.storage_health()), (None, Ok(())));
    node.close().await;
    disk.end_process();
    let node = TestNode::open(Arc::new(disk.clone())).await;
    let queue = node.broker.find_queue(&Caller::system(), "/", "q").unwrap();
    (node, queue)
}

#[test]
fn very_many_unacknowledged_messages_can_be_returned_and_settled() {
    in_paused_time(async {
        let disk = FaultyDisk::new(1);
        let node = TestNode::open(Arc::new(disk.clone())).await;
        let queue = node.declare("q").await;
        let confirmed = Arc::new(Confirmed::default());
        for first in (0..MESSAGES).step_by(1000) {
            node.publish(&[queue.id], first..first + 1000, 8, &confirmed);
        }
        node.until("all is confirmed", || *confirmed.0.lock() == MESSAGES / 1000).await;
        let taken = deliver_all(&node, &queue).await;
        {
            let mut entered = queue.enter();
            taken.iter().for_each(|id| entered.give_back(None, *id));
        }
        node.until("all is ready again", || queue.look(|queue| queue.depth().ready) == MESSAGES).await;
        // Every other message is settled, each as a range of its own.
        let (node, queue) = restarted(node, &disk).await;
        let taken = deliver_all(&node, &queue).await;
        {
            let mut entered = queue.enter();
            taken.iter().step_by(2).for_each(|id| entered.acknowledge(None, id.message.sequence, 1));
        }
        node.until("half of it is settled", || queue.look(|queue| queue.depth().unacked) == MESSAGES / 2).await;
        let (node, queue) = restarted(node, &disk).await;
        assert_eq!(node.drain(&queue).await, (0..MESSAGES).filter(|number| number % 2 == 1).collect::<Vec<_>>());
        node.close().await;
    });
}

#[test]
fn a_message_to_more_queues_of_one_shard_than_an_operation_names_is_confirmed_once() {
    in_paused_time(async {
        let node = TestNode::open(Arc::new(FaultyDisk::new(2))).await;
        let queue = node.declare("q").await;
        let confirmed = Arc::new(Confirmed::default());
        let others = (1..70_000).map(|at| QueueId(1_000_000 + at));
        let queues: Vec<QueueId> = others.chain([queue.id]).collect();
        let shard = node.shards().shard(queue.id).clone();
        node.publish_to(&shard, &queues, 0..3, 100, &confirmed);
        node.until("it is confirmed", || *confirmed.0.lock() > 0).await;
        node.publish(&[queue.id], 3..4, 100, &confirmed);
        node.until("what follows is", || *confirmed.0.lock() == 2).await;
        assert_eq!(node.drain(&queue).await, [0, 1, 2, 3]);
        node.close().await;
    });
}

#[test]
fn health_reports_a_group_that_has_stopped() {
    in_paused_time(async {
        let node = TestNode::open(Arc::new(FaultyDisk::new(3))).await;
        assert_eq!(node.broker.storage_health(), Ok(()));
        let of_a_later_version = Bytes::from_static(&[9; 40]);
        let groups = &node.storage().groups;
        let term = groups.leader(3).unwrap().term;
        groups.submit(3, term, of_a_later_version, Box::new(drop)).await;
        let stopped =
            || matches!(node.broker.storage_health(), Err(StorageTrouble::Stopped(why)) if why.contains("group 3"));
        node.until("health tells", stopped).await;
    });
}

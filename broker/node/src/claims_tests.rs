//! Consumers of other nodes whose claims and wants meet the end of a leader, a refusal, or a leader that is cut off.
use crate::cluster_tests::Cluster;
use crate::test_node::{self, TestNode};
use crate::*;
use leveret_engine::catalog::QueueDeclare;
use std::sync::Arc;

/// Subscribes a consumer that acknowledges nothing, whether it was claimed or not. Returns what it takes.
fn subscribe(node: &TestNode, queue: &Queue, exclusive: bool) -> (ConsumerId, Arc<test_node::Taker>) {
    let sink = Arc::new(test_node::Taker::default());
    let subscription = Subscription { sink: sink.clone(), exclusive, no_ack: false, prefetch: 10 };
    (node.broker.subscribe(&Caller::system(), queue, subscription).unwrap(), sink)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_cut_off_deletes_no_queue_whose_consumers_it_has_lost() {
    let cluster = Cluster::start().await;
    cluster.all_led_by(1).await;
    let [first, second] = [1, 2].map(|node| &cluster.nodes[&node]);
    let declare = QueueDeclare { durable: true, auto_delete: true, ..QueueDeclare::default() };
    let (_, queue) = second.broker.declare_queue(&Caller::system(), "/", "q", declare).await.unwrap();
    first.until("the leader knows the queue", || first.broker.queue(queue.id).is_some()).await;
    let at_first = first.broker.queue(queue.id).unwrap();
    second.broker.claim(&queue, false).await.unwrap();
    let (_, taken) = subscribe(second, &queue, false);
    first.until("the leader knows the consumer", || at_first.depth().consumers == 1).await;
    cluster.cuts[&1].cut();
    second.publish_one_by_one(&queue, 0..5, 100).await;
    second.until("another leader serves the consumer", || taken.taken.lock().len() == 5).await;
    // It gives the other node up after five seconds, and with it the last consumer that it knows.
    first.until("the one before has lost its consumer", || at_first.depth().consumers == 0).await;
    let only = DeleteOnly { if_unused: true, if_empty: true };
    let caller = Caller::system();
    let deletion = first.broker.delete_queue(&caller, "/", "q", only);
    let healed = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        cluster.cuts[&1].heal();
    };
    let (refused, ()) = tokio::join!(deletion, healed);
    assert!(refused.is_err(), "the queue has a consumer, and messages");
    // Commands of one node are carried out in their order: what was asked for before this is over.
    first.declare("later").await;
    assert_eq!(second.broker.catalog().queue_id("/", "q"), Some(queue.id));
    let depth = second.broker.depth(&queue).await.unwrap();
    assert_eq!(depth.ready + depth.unacked, 5);
    cluster.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consumers_of_a_node_that_were_refused_are_served_once_the_exclusive_one_has_left() {
    let cluster = Cluster::start().await;
    cluster.all_led_by(1).await;
    let [first, second, third] = [1, 2, 3].map(|node| &cluster.nodes[&node]);
    let id = first.declare("q").await.id;
    for node in cluster.nodes.values() {
        node.until("all know the queue", || node.broker.queue(id).is_some()).await;
    }
    let [at_first, at_second, at_third] = [first, second, third].map(|node| node.broker.queue(id).unwrap());
    first.publish_one_by_one(&at_first, 0..3, 100).await;
    third.broker.claim(&at_third, true).await.unwrap();
    let (exclusive, only) = subscribe(third, &at_third, true);
    third.until("the exclusive consumer is served", || only.taken.lock().len() == 3).await;
    // A consumer that was there before, of a node that was out of reach for a while, does not ask again.
    let (_, waiting) = subscribe(second, &at_second, false);
    first
        .until("the leader has refused it", || at_first.others.sinks.lock().get(&2).is_some_and(|sink| sink.waits()))
        .await;
    assert_eq!(waiting.taken.lock().len(), 0);
    third.broker.unsubscribe(&at_third, exclusive);
    first.publish_one_by_one(&at_first, 3..6, 100).await;
    second.until("it is served", || waiting.taken.lock().len() >= 3).await;
    cluster.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_does_not_lead_a_queue_takes_no_claim() {
    let cluster = Cluster::start().await;
    cluster.all_led_by(1).await;
    let second = &cluster.nodes[&2];
    let id = cluster.nodes[&1].declare("q").await.id;
    second.until("all know the queue", || second.broker.queue(id).is_some()).await;
    let queue = second.broker.queue(id).unwrap();
    let start = || second.broker.node().network.starts.of(3);
    second.until("the third is heard of", || start().is_some()).await;
    let fronts = &second.broker.node().links().unwrap().fronts;
    assert_eq!(fronts.claim(3, start(), &queue, true, 0), Ok(false));
    assert_eq!((queue.depth().consumers, queue.others.sinks.lock().len()), (0, 0));
    cluster.close().await;
}

//! A consumer ends with its queue while its client gives the consumer's tag to another one.
use super::{Channel, ChannelConsumer, EndedConsumer};
use leveret_node::catalog::QueueDeclare;
use leveret_node::{Broker, Caller, ChannelView, ConsumerId, Options, Queue};
use std::sync::Arc;

async fn declare(broker: &Broker, name: &str) -> Arc<Queue> {
    let declare = QueueDeclare::default();
    broker.declare_queue(&Caller::system(), "/", name, declare).await.unwrap().1
}

#[tokio::test]
async fn a_cancelled_consumer_does_not_end_another_with_the_same_tag() {
    let broker = Broker::start(Options::default());
    let (gone, there) = (declare(&broker, "a").await, declare(&broker, "b").await);
    let mut channel = Channel::new(1, Arc::new(ChannelView::default()), broker.count_opened(1).unwrap());
    // Each of the two is the first consumer of its queue.
    let id = ConsumerId(0);
    channel.consumers.insert(
        "tag".into(),
        ChannelConsumer { queue: there.clone(), id, subscriber: 7, _opened: broker.count_opened(1).unwrap() },
    );
    let ended = |queue: &Queue, id| EndedConsumer { tag: "tag".into(), queue: queue.id, id };
    channel.cancelled.push(ended(&gone, id));
    channel.cancelled.push(ended(&there, ConsumerId(1)));
    assert_eq!(channel.take_cancelled(), [0u32; 0]);
    assert_eq!(channel.consumers["tag"].subscriber, 7);
    channel.cancelled.push(ended(&there, id));
    assert_eq!(channel.take_cancelled(), [7]);
    assert!(channel.consumers.is_empty());
    broker.stop();
}

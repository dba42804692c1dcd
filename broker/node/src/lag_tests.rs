//! Tests of consumers that do not take the messages they are offered, and of publishers that are asked to wait for them.
use crate::{Body, Broker, Caller, Extent, Fill, Options, Queue, RoutedRun, Sink, Source, Subscription};
use leveret_engine::catalog::QueueDeclare;
use std::sync::Arc;
use std::time::Duration;

/// A sink that takes every message, or none if it is stuck.
struct Taker {
    stuck: bool,
}

impl Sink for Taker {
    fn fill(&self, source: &mut dyn Source) -> Fill {
        if self.stuck {
            return Fill::Full;
        }
        while source.next().is_some() {}
        Fill::Exhausted
    }
}

fn subscription(stuck: bool) -> Subscription {
    Subscription { sink: Arc::new(Taker { stuck }), exclusive: false, no_ack: false, prefetch: 0 }
}

/// Publishes a message of 64 KiB. Returns whether the publisher was asked to wait.
fn publish(broker: &Broker, queue: &Queue) -> bool {
    let route = broker.route(&Caller::system(), "/", "", queue.name.as_bytes(), None).unwrap();
    let (bytes, len) = ([0; 64 << 10], 64 << 10);
    let message = Extent { properties_at: 0, properties_len: 0, body: Body::Inline { at: 0, len } };
    broker.publish(&bytes, &[RoutedRun { route: &route, messages: &[message], waiter: None }]).is_some()
}

#[tokio::test]
async fn publishers_do_not_wait_for_a_stuck_consumer() {
    let broker = Broker::start(Options { memory_max: u64::MAX, ..Options::default() });
    let declare = QueueDeclare::default();
    let (_, queue) = broker.declare_queue(&Caller::system(), "/", "q", declare).await.unwrap();
    broker.subscribe(&Caller::system(), &queue, subscription(true)).unwrap();
    let healthy = broker.subscribe(&Caller::system(), &queue, subscription(false)).unwrap();
    for _ in 0..100 {
        assert!(!publish(&broker, &queue), "one consumer takes everything");
    }
    broker.unsubscribe(&queue, healthy);
    // No consumer takes messages, and memory grows: publishers are asked to wait, and told that waiting does not help.
    let asked = (0..100).filter(|_| publish(&broker, &queue)).count();
    assert!(asked > 50, "{asked} of 100 times");
    assert!(!queue.let_consumers_catch_up(Duration::from_millis(50), 1000).await, "the consumer takes nothing");
    // A consumer that takes all messages ends the wait.
    let (waiting, taker) = (queue.clone(), broker.clone());
    let wait = tokio::spawn(async move { waiting.let_consumers_catch_up(Duration::from_secs(60), 1).await });
    tokio::task::yield_now().await;
    taker.subscribe(&Caller::system(), &queue, subscription(false)).unwrap();
    assert!(wait.await.unwrap());
    broker.stop();
}

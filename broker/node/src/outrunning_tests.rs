//! Consumers that do not take what they are offered, and publishers that do not wait for them for ever.
use crate::{Body, Broker, Extent, Fill, Options, Queue, Sink, Source, Subscription};
use leveret_engine::catalog::QueueDeclare;
use leveret_model::table::FieldTable;
use std::sync::Arc;

/// Takes all, or nothing.
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

/// Publishes 64 KiB; whether the publisher was asked to wait.
fn publish(broker: &Broker, queue: &Queue) -> bool {
    let route = broker.route("/", "", queue.name.as_bytes(), None).unwrap();
    let (bytes, len) = ([0; 64 << 10], 64 << 10);
    let message = Extent { properties_at: 0, properties_len: 0, body: Body::Inline { at: 0, len } };
    broker.publish(&route, &bytes, &[message], None).is_some()
}

#[tokio::test]
async fn a_stuck_consumer_costs_only_itself() {
    let broker = Broker::start(Options { memory_max: u64::MAX, ..Options::default() });
    let declare = QueueDeclare {
        durable: false,
        exclusive: None,
        auto_delete: false,
        arguments: FieldTable::default(),
        server_named: false,
        connection: None,
    };
    let (_, queue) = broker.declare_queue("/", "q", declare).await.unwrap();
    let stuck = broker.subscribe(&queue, subscription(true)).unwrap();
    let healthy = broker.subscribe(&queue, subscription(false)).unwrap();
    for _ in 0..100 {
        assert!(!publish(&broker, &queue), "one consumer takes everything");
    }
    broker.unsubscribe(&queue, healthy);
    // Nobody takes, and memory grows: publishers wait, but not for ever for one that takes nothing.
    let mut waits = 0;
    while publish(&broker, &queue) {
        queue.let_consumers_catch_up().await;
        waits += 1;
        assert!(waits < 100, "publishers wait on and on for a consumer that takes nothing");
    }
    assert!(waits > 0);
    // It takes something again, if late: it is waited for again.
    broker.drained(&queue, stuck);
    assert!(publish(&broker, &queue));
    broker.stop();
}

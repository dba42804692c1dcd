//! Tests of runs with several routes that are published together.
use crate::{Body, Broker, Caller, Extent, Fill, Options, Queue, RoutedRun, Sink, Source, Subscription};
use leveret_engine::catalog::{BindingDeclare, Destination, QueueDeclare};
use leveret_model::table::FieldTable;
use parking_lot::Mutex;
use std::sync::Arc;

/// The routing key and the body of a message.
type Message = (Vec<u8>, Vec<u8>);

/// A sink that takes every message, and notes the messages of each call.
#[derive(Default)]
struct Taker(Mutex<Vec<Vec<Message>>>);

impl Sink for Taker {
    fn fill(&self, source: &mut dyn Source) -> Fill {
        let mut taken = Vec::new();
        while let Some(delivery) = source.next() {
            taken.push((delivery.routing_key.to_vec(), delivery.body.to_vec()));
        }
        self.0.lock().push(taken);
        Fill::Exhausted
    }
}

async fn declare(broker: &Broker, name: &str) -> (Arc<Queue>, Arc<Taker>) {
    let (_, queue) = broker.declare_queue(&Caller::system(), "/", name, QueueDeclare::default()).await.unwrap();
    broker
        .bind(
            &Caller::system(),
            "/",
            BindingDeclare::new("amq.fanout", &Destination::Queue(name.into()), b"", &FieldTable::default()),
        )
        .await
        .unwrap();
    let sink = Arc::new(Taker::default());
    let subscription = Subscription { sink: sink.clone(), exclusive: false, no_ack: true, prefetch: 0 };
    broker.subscribe(&Caller::system(), &queue, subscription).unwrap();
    sink.0.lock().clear();
    (queue, sink)
}

#[tokio::test]
async fn a_queue_gets_all_runs_of_one_publish_in_one_visit_and_in_order() {
    let broker = Broker::start(Options { memory_max: u64::MAX, ..Options::default() });
    let (one, to_one) = declare(&broker, "one").await;
    let (_two, to_two) = declare(&broker, "two").await;
    let bytes: Vec<u8> = (0..10).collect();
    let messages: Vec<Extent> =
        (0..10).map(|at| Extent { properties_at: 0, properties_len: 0, body: Body::Inline { at, len: 1 } }).collect();
    let route = |exchange: &str, key: &[u8]| broker.route(&Caller::system(), "/", exchange, key, None).unwrap();
    let (a, b, both) = (route("", b"one"), route("", b"two"), route("amq.fanout", b"k"));
    let runs = [(&a, 0..2), (&b, 2..3), (&a, 3..4), (&both, 4..7), (&b, 7..8), (&a, 8..10)];
    let routed = runs.clone().map(|(route, of)| RoutedRun { route, messages: &messages[of], waiter: None });
    assert!(broker.publish(&bytes, &routed).is_none());
    let expected = |own: &[u8]| -> Vec<Message> {
        let mine = runs.iter().filter(|(route, _)| *route.routing_key == *own || *route.routing_key == *b"k");
        mine.flat_map(|(route, of)| of.clone().map(|at| (route.routing_key.to_vec(), vec![at as u8]))).collect()
    };
    for (sink, name) in [(&to_one, b"one"), (&to_two, b"two")] {
        let calls = sink.0.lock();
        assert_eq!(calls[0], expected(name), "the consumer is served once, with everything");
        assert!(calls[1..].iter().all(Vec::is_empty));
    }
    assert_eq!(one.look(|queue| (queue.depth().ready, queue.counters().published)), (0, 8));
    // A queue that was deleted meanwhile takes no messages; the other queues get theirs.
    broker.delete_queue(&Caller::system(), "/", "one", Default::default()).await.unwrap();
    to_two.0.lock().clear();
    let routed = runs.clone().map(|(route, of)| RoutedRun { route, messages: &messages[of], waiter: None });
    broker.publish(&bytes, &routed);
    assert_eq!(to_two.0.lock()[0], expected(b"two"));
    assert_eq!(one.look(|queue| queue.counters().published), 0, "its contents are gone, and nothing came");
    broker.stop();
}

//! Commands and their results; then random commands, compared with a plain list.
use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

/// Sequence, offset, redelivered, routing key, body.
type Got = (u64, u32, bool, Vec<u8>, Vec<u8>);

/// A sink that records its deliveries and takes at most `room` at a time.
#[derive(Default)]
struct Recorder {
    got: Mutex<Vec<Got>>,
    room: Mutex<usize>,
}

impl Recorder {
    fn with_room(room: usize) -> Arc<Self> {
        Arc::new(Self { room: Mutex::new(room), ..Self::default() })
    }

    fn take(&self) -> Vec<Got> {
        std::mem::take(&mut self.got.lock().unwrap())
    }

    fn bodies(&self) -> Vec<String> {
        self.take().into_iter().map(|(.., body)| String::from_utf8(body).unwrap()).collect()
    }
}

impl Sink for Recorder {
    fn fill(&self, source: &mut dyn Source) -> Fill {
        let mut got = self.got.lock().unwrap();
        while got.len() < *self.room.lock().unwrap() {
            let Some(delivery) = source.next() else { return Fill::Exhausted };
            let Delivery { id, redelivered, routing_key, body, .. } = delivery;
            got.push((id.message.sequence, id.message.offset, redelivered, routing_key.to_vec(), body.to_vec()));
        }
        Fill::Full
    }
}

fn publish(queue: &mut QueueCore, key: &str, bodies: &[&str]) {
    let bytes: Vec<u8> = bodies.concat().into_bytes();
    let mut at = 0;
    let messages: Vec<Extent> = bodies
        .iter()
        .map(|body| {
            let len = body.len() as u32;
            at += len;
            Extent { properties_at: 0, properties_len: 0, body: Body::Inline { at: at - len, len } }
        })
        .collect();
    let publish = Publish { exchange: b"e", routing_key: key.as_bytes(), bytes: &bytes, messages: &messages };
    queue.enqueue(&publish, 0);
}

fn subscribe(queue: &mut QueueCore, sink: &Arc<Recorder>, prefetch: u32, no_ack: bool) -> ConsumerId {
    queue.subscribe(Subscription { sink: sink.clone(), exclusive: false, no_ack, prefetch }).unwrap()
}

fn take_one(queue: &mut QueueCore, sink: &Arc<Recorder>, no_ack: bool) -> bool {
    queue.get(&**sink, no_ack, 0) == super::Got::Message
}

#[test]
fn messages_are_delivered_in_order_and_leave_no_memory_behind() {
    let (mut queue, sink) = (QueueCore::default(), Recorder::with_room(100));
    publish(&mut queue, "a", &["1", "2"]);
    publish(&mut queue, "b", &["3"]);
    let consumer = subscribe(&mut queue, &sink, 0, false);
    queue.dispatch(1_000_000);
    let got = sink.take();
    let seen: Vec<_> =
        got.iter().map(|(sequence, _, again, key, body)| (*sequence, *again, &key[..], &body[..])).collect();
    assert_eq!(seen, [(0, false, &b"a"[..], &b"1"[..]), (1, false, b"a", b"2"), (2, false, b"b", b"3")]);
    assert_eq!(queue.depth(), Depth { ready: 0, unacked: 3, body_bytes: 3, consumers: 1 });
    queue.acknowledge(Some(consumer), 0, 3);
    assert_eq!(queue.depth(), Depth { ready: 0, unacked: 0, body_bytes: 0, consumers: 1 });
    assert_eq!(queue.counters(), Counters { published: 3, delivered: 3, redelivered: 0, acked: 3 });
    assert_eq!(queue.dwell().counts().iter().sum::<u64>(), 3);
    queue.trim();
    assert_eq!(queue.memory_bytes(), 0);
}

#[test]
fn prefetch_holds_deliveries_back_until_an_acknowledgement() {
    let (mut queue, sink) = (QueueCore::default(), Recorder::with_room(100));
    publish(&mut queue, "k", &["1", "2", "3"]);
    let consumer = subscribe(&mut queue, &sink, 2, false);
    queue.dispatch(0);
    assert_eq!(sink.bodies(), ["1", "2"]);
    queue.dispatch(0);
    assert!(sink.take().is_empty());
    queue.acknowledge(Some(consumer), 1, 1);
    queue.dispatch(0);
    assert_eq!(sink.bodies(), ["3"]);
}

#[test]
fn a_purge_in_parts_removes_the_messages_ready_at_its_start() {
    let (mut queue, sink) = (QueueCore::default(), Recorder::with_room(10));
    (0..100).for_each(|at| publish(&mut queue, if at % 2 == 0 { "a" } else { "b" }, &["x"]));
    let consumer = subscribe(&mut queue, &sink, 10, false);
    queue.dispatch(0);
    let out = sink.take();
    queue.unsubscribe(consumer);
    for (sequence, offset, ..) in &out[..2] {
        queue.give_back(None, DeliveryId::new(*sequence, *offset, queue.epoch()));
    }
    let (before, mut parts, mut purged) = (queue.next_sequence(), 0, 0);
    loop {
        let (more, done) = queue.purge_some(before, 7);
        (parts, purged) = (parts + 1, purged + more);
        publish(&mut queue, "late", &["y"]);
        if done {
            break;
        }
    }
    assert_eq!((purged, parts > 10), (92, true));
    assert_eq!((queue.depth().ready, queue.depth().unacked), (parts, 8));
    queue.acknowledge(None, out[2].0, 8);
    assert_eq!(queue.purge(), parts);
    queue.trim();
    assert_eq!(queue.memory_bytes(), 0);
}

#[test]
fn deliveries_of_a_deep_queue_are_made_in_parts() {
    let mut queue = QueueCore::default();
    (0..100_000).for_each(|_| publish(&mut queue, "k", &["x"]));
    for _ in 0..3 {
        subscribe(&mut queue, &Recorder::with_room(1_000_000), 0, true);
    }
    let mut calls = 0;
    loop {
        let before = queue.depth().ready;
        queue.dispatch(0);
        calls += 1;
        assert!(before - queue.depth().ready < 17 << 10);
        if !queue.take_unfinished() {
            break;
        }
    }
    assert_eq!((queue.depth().ready, calls), (0, 7));
}

#[test]
fn few_messages_are_delivered_to_consumers_one_by_one() {
    let mut queue = QueueCore::default();
    let sinks = [Recorder::with_room(100), Recorder::with_room(100)];
    for sink in &sinks {
        subscribe(&mut queue, sink, 0, true);
    }
    publish(&mut queue, "k", &["1", "2", "3", "4"]);
    queue.dispatch(0);
    assert_eq!(sinks[0].bodies(), ["1", "3"]);
    assert_eq!(sinks[1].bodies(), ["2", "4"]);
    assert_eq!(queue.depth(), Depth { ready: 0, unacked: 0, body_bytes: 0, consumers: 2 });
}

#[test]
fn returned_messages_are_delivered_first_and_marked_as_redelivered() {
    let (mut queue, sink) = (QueueCore::default(), Recorder::with_room(100));
    publish(&mut queue, "k", &["1", "2", "3"]);
    let consumer = subscribe(&mut queue, &sink, 2, false);
    queue.dispatch(0);
    let got = sink.take();
    for (sequence, offset, ..) in got.iter().rev() {
        queue.give_back(Some(consumer), DeliveryId::new(*sequence, *offset, queue.epoch()));
    }
    queue.dispatch(0);
    let again: Vec<_> = sink.take().into_iter().map(|(sequence, _, again, ..)| (sequence, again)).collect();
    assert_eq!(again, [(0, true), (1, true)]);
    assert_eq!(queue.counters().redelivered, 2);
}

#[test]
fn a_full_sink_gets_no_deliveries_until_it_has_drained() {
    let (mut queue, sink) = (QueueCore::default(), Recorder::with_room(1));
    let consumer = subscribe(&mut queue, &sink, 0, true);
    publish(&mut queue, "k", &["1", "2"]);
    queue.dispatch(0);
    assert_eq!(sink.bodies(), ["1"]);
    queue.dispatch(0);
    assert!(sink.take().is_empty() && queue.consumers_lag());
    queue.drained(consumer, 0);
    assert_eq!(sink.bodies(), ["2"]);
}

#[test]
fn a_purge_removes_ready_messages_and_keeps_unacknowledged_ones() {
    let (mut queue, sink) = (QueueCore::default(), Recorder::with_room(100));
    publish(&mut queue, "k", &["1", "2", "3", "4"]);
    assert!(take_one(&mut queue, &sink, false) && take_one(&mut queue, &sink, false));
    let got = sink.take();
    queue.give_back(None, DeliveryId::new(got[0].0, got[0].1, queue.epoch()));
    assert_eq!(queue.purge(), 3);
    assert_eq!(queue.depth(), Depth { ready: 0, unacked: 1, body_bytes: 4, consumers: 0 });
    publish(&mut queue, "k", &["5"]);
    queue.give_back(None, DeliveryId::new(got[1].0, got[1].1, queue.epoch()));
    assert!(
        take_one(&mut queue, &sink, true) && take_one(&mut queue, &sink, true) && !take_one(&mut queue, &sink, true)
    );
    assert_eq!(sink.bodies(), ["2", "5"]);
}

#[test]
fn one_unacknowledged_message_holds_its_own_segment_only() {
    let (mut queue, sink) = (QueueCore::default(), Recorder::with_room(1000));
    publish(&mut queue, "k", &["held"]);
    assert!(take_one(&mut queue, &sink, false));
    let big = "x".repeat(500_000);
    for _ in 0..20 {
        publish(&mut queue, "k", &[&big]);
        assert!(take_one(&mut queue, &sink, true));
    }
    assert!(queue.memory_bytes() < 3 << 20, "{}", queue.memory_bytes());
}

#[test]
fn one_unacknowledged_message_holds_its_own_run_only() {
    let (mut queue, sink) = (QueueCore::default(), Recorder::with_room(2_000));
    let bodies = vec!["x"; 1_000];
    publish(&mut queue, "k", &["held"]);
    assert!(take_one(&mut queue, &sink, false));
    let consumer = subscribe(&mut queue, &sink, 0, false);
    sink.take();
    for run in 0..1_000 {
        // One run per message. Every now and then all messages are delivered at once.
        bodies.iter().for_each(|body| publish(&mut queue, "k", &[body]));
        queue.dispatch(0);
        let got = sink.take();
        assert_eq!(got.len(), 1_000);
        match run % 3 {
            0 => queue.acknowledge(Some(consumer), got[0].0, 1_000),
            1 => got.iter().rev().for_each(|message| queue.acknowledge(Some(consumer), message.0, 1)),
            _ => got.iter().for_each(|message| queue.acknowledge(Some(consumer), message.0, 1)),
        }
        assert!(queue.memory_bytes() < 512 << 10, "{} bytes after {run} times 1,000", queue.memory_bytes());
    }
    assert_eq!(queue.depth(), Depth { ready: 0, unacked: 1, body_bytes: 4, consumers: 1 });
    queue.give_back(None, DeliveryId::new(0, 4, queue.epoch()));
    queue.dispatch(0);
    assert_eq!(sink.bodies(), ["held"]);
}

#[test]
fn memory_follows_the_live_messages_in_any_order_of_settling() {
    let count = 1 << 17;
    let (mut queue, sink) = (QueueCore::default(), Recorder::with_room(count as usize));
    let consumer = subscribe(&mut queue, &sink, 0, false);
    (0..count).for_each(|_| publish(&mut queue, "k", &["x"])); // one run per message
    queue.dispatch(0);
    assert_eq!(sink.take().len() as u64, count);
    let mut left = count;
    for step in 0..count {
        let sequence = (step * 0x9e37 + 11) % count;
        // One message in 100 stays unacknowledged. Nearly all segments stay, because each holds some of these messages.
        if sequence % 100 > 0 {
            queue.acknowledge(Some(consumer), sequence, 1);
            left -= 1;
        }
        let index = queue.memory_bytes() - queue.state.segments().bytes();
        assert!(index < left * 220 + 20_000, "{index} for {left}");
    }
    assert_eq!(queue.depth().unacked, left);
    for sequence in (0..count).rev().filter(|sequence| sequence % 100 == 0) {
        queue.acknowledge(Some(consumer), sequence, 1);
    }
    queue.trim();
    assert_eq!((queue.depth().unacked, queue.memory_bytes()), (0, 0));
}

#[test]
fn an_exclusive_consumer_is_the_only_consumer_of_its_queue() {
    let (mut queue, sink) = (QueueCore::default(), Recorder::with_room(1));
    let exclusive =
        |sink: &Arc<Recorder>| Subscription { sink: sink.clone(), exclusive: true, no_ack: true, prefetch: 0 };
    let first = queue.subscribe(exclusive(&sink)).unwrap();
    assert_eq!(queue.subscribe(exclusive(&sink)), Err(ExclusiveUse));
    assert!(queue.unsubscribe(first) && !queue.unsubscribe(first));
    subscribe(&mut queue, &sink, 0, true);
    assert_eq!(queue.subscribe(exclusive(&sink)), Err(ExclusiveUse));
}

#[derive(Clone, Debug)]
enum Command {
    Publish(Vec<usize>, bool),
    Get { no_ack: bool },
    Settle { at: usize, back: bool },
    Purge,
    Trim,
}

fn commands() -> impl Strategy<Value = Vec<Command>> {
    let sizes = prop::collection::vec(prop_oneof![4 => 0..40usize, 1 => 0..300_000usize], 1..6);
    let one = prop_oneof![
        4 => (sizes, any::<bool>()).prop_map(|(sizes, shared)| Command::Publish(sizes, shared)),
        6 => any::<bool>().prop_map(|no_ack| Command::Get { no_ack }),
        5 => (any::<usize>(), any::<bool>()).prop_map(|(at, back)| Command::Settle { at, back }),
        1 => Just(Command::Purge),
        1 => Just(Command::Trim),
    ];
    prop::collection::vec(one, 1..80)
}

/// A queue in its simplest form, as the model to compare with.
#[derive(Default)]
struct Model {
    ready: VecDeque<(u64, bool, Vec<u8>)>,
    out: BTreeMap<u64, (u32, Vec<u8>)>,
    next: u64,
}

fn publish_sizes(queue: &mut QueueCore, model: &mut Model, sizes: &[usize], shared: bool) {
    let bodies: Vec<Vec<u8>> =
        sizes.iter().enumerate().map(|(at, &size)| vec![(model.next as usize + at) as u8; size]).collect();
    let bytes = bodies.concat();
    let mut at = 0;
    let mut messages = Vec::new();
    for (index, body) in bodies.into_iter().enumerate() {
        let len = body.len() as u32;
        let place = Body::Inline { at, len };
        at += len;
        let body_place = if shared && index % 2 == 0 { Body::Shared(body.clone().into()) } else { place };
        messages.push(Extent { properties_at: 0, properties_len: 0, body: body_place });
        model.ready.push_back((model.next, false, body));
        model.next += 1;
    }
    queue.enqueue(&Publish { exchange: b"", routing_key: b"q", bytes: &bytes, messages: &messages }, 0);
}

proptest! {
    #[test]
    fn a_queue_behaves_like_a_plain_list(commands in commands()) {
        let (mut queue, mut model, sink) = (QueueCore::default(), Model::default(), Recorder::with_room(10));
        for command in commands {
            match command {
                Command::Publish(sizes, shared) => publish_sizes(&mut queue, &mut model, &sizes, shared),
                Command::Get { no_ack } => {
                    let expected = model.ready.pop_front();
                    prop_assert_eq!(take_one(&mut queue, &sink, no_ack), expected.is_some());
                    if let Some((sequence, again, body)) = expected {
                        let (got_sequence, offset, got_again, _, got_body) = sink.take().remove(0);
                        prop_assert_eq!((got_sequence, got_again, &got_body), (sequence, again, &body));
                        if !no_ack { model.out.insert(sequence, (offset, body)); }
                    }
                }
                Command::Settle { at, back } => {
                    if model.out.is_empty() { continue }
                    let sequence = *model.out.keys().nth(at % model.out.len()).unwrap();
                    let (offset, body) = model.out.remove(&sequence).unwrap();
                    if back {
                        queue.give_back(None, DeliveryId::new(sequence, offset, queue.epoch()));
                        let place = model.ready.partition_point(|(other, ..)| *other < sequence);
                        model.ready.insert(place, (sequence, true, body));
                    } else {
                        queue.acknowledge(None, sequence, 1);
                    }
                }
                Command::Purge => prop_assert_eq!(queue.purge(), std::mem::take(&mut model.ready).len() as u64),
                Command::Trim => queue.trim(),
            }
            let depth = queue.depth();
            prop_assert_eq!((depth.ready, depth.unacked), (model.ready.len() as u64, model.out.len() as u64));
        }
        while take_one(&mut queue, &sink, true) { sink.take(); }
        for (sequence, _) in std::mem::take(&mut model.out) { queue.acknowledge(None, sequence, 1); }
        queue.trim();
        prop_assert_eq!(queue.memory_bytes(), 0);
    }
}

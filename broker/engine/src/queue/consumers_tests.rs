//! Turns of consumers: they are served in order, those that cannot take messages are passed over, and none is forgotten.
use super::*;
use proptest::prelude::*;
use std::sync::{Arc, Mutex};

/// A sink that takes messages while it has room and its channel is not at its limit.
#[derive(Default)]
struct Taker(Mutex<Taken>);

#[derive(Default)]
struct Taken {
    room: usize,
    blocked: bool,
    /// The number of calls of `fill`.
    asked: usize,
    got: Vec<u64>,
}

impl Taker {
    fn with_room(room: usize) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Taken { room, ..Taken::default() })))
    }

    fn with<T>(&self, work: impl FnOnce(&mut Taken) -> T) -> T {
        work(&mut self.0.lock().unwrap())
    }
}

impl Sink for Taker {
    fn fill(&self, source: &mut dyn Source) -> Fill {
        self.with(|taken| {
            taken.asked += 1;
            loop {
                match taken {
                    Taken { blocked: true, .. } => return Fill::Blocked,
                    Taken { room: 0, .. } => return Fill::Full,
                    _ => {}
                }
                let Some(delivery) = source.next() else { return Fill::Exhausted };
                taken.room -= 1;
                taken.got.push(delivery.id.message.sequence);
            }
        })
    }
}

fn publish(queue: &mut QueueCore, messages: usize) {
    let message = Extent { properties_at: 0, properties_len: 0, body: Body::Inline { at: 0, len: 1 } };
    let messages = vec![message; messages];
    queue.enqueue(&Publish { exchange: b"", routing_key: b"q", bytes: b"x", messages: &messages }, 0);
}

fn subscribe(queue: &mut QueueCore, sink: &Arc<Taker>, prefetch: u32) -> ConsumerId {
    queue.subscribe(Subscription { sink: sink.clone(), exclusive: false, no_ack: false, prefetch }).unwrap()
}

#[test]
fn stuck_consumers_are_visited_once_and_slow_no_dispatch_down() {
    let mut queue = QueueCore::default();
    let stuck = Taker::with_room(0);
    let names: Vec<_> = (0..1_000).map(|_| subscribe(&mut queue, &stuck, 0)).collect();
    publish(&mut queue, 1);
    queue.dispatch(0);
    assert!(queue.consumers_lag());
    let healthy = Taker::with_room(usize::MAX);
    let last = subscribe(&mut queue, &healthy, 1);
    for sequence in 0..100 {
        queue.dispatch(0);
        assert_eq!(healthy.with(|taken| std::mem::take(&mut taken.got)), [sequence]);
        assert_eq!(queue.lead.consumers.takers(), 0);
        queue.acknowledge(Some(last), sequence, 1);
        assert_eq!(queue.lead.consumers.takers(), 1);
        publish(&mut queue, 1);
    }
    assert_eq!(stuck.with(|taken| taken.asked), 1_000);
    assert!(!queue.consumers_lag(), "one consumer takes");
    queue.unsubscribe(last);
    assert!(queue.consumers_lag());
    stuck.with(|taken| taken.room = 1);
    queue.drained(names[500], 0);
    assert_eq!(stuck.with(|taken| (taken.asked, taken.got.len())), (1_001, 1));
}

#[test]
fn consumers_that_left_take_no_memory() {
    let mut queue = QueueCore::default();
    let sink = Taker::with_room(usize::MAX);
    let names: Vec<_> = (0..10_000).map(|_| subscribe(&mut queue, &sink, 0)).collect();
    for (left, id) in names.iter().enumerate() {
        assert!(queue.unsubscribe(*id) && !queue.unsubscribe(*id));
        assert_eq!(queue.consumers().len(), 9_999 - left);
        assert_eq!(queue.lead.consumers.takers(), 9_999 - left);
    }
    for _ in 0..10_000 {
        let id = subscribe(&mut queue, &sink, 0);
        assert!(queue.unsubscribe(id));
    }
    assert!(queue.lead.consumers.turns() < 100, "{}", queue.lead.consumers.turns());
    assert_eq!(queue.lead.consumers.takers(), 0);
    subscribe(&mut queue, &sink, 0);
    publish(&mut queue, 1);
    queue.dispatch(0);
    assert_eq!(sink.with(|taken| taken.got.len()), 1);
}

#[test]
fn consumers_blocked_by_their_channel_take_turns() {
    let mut queue = QueueCore::default();
    let sinks = [Taker::with_room(usize::MAX), Taker::with_room(usize::MAX), Taker::with_room(usize::MAX)];
    let names: Vec<_> = sinks.iter().map(|sink| subscribe(&mut queue, sink, 0)).collect();
    sinks.iter().for_each(|sink| sink.with(|taken| taken.blocked = true));
    publish(&mut queue, 1);
    queue.dispatch(0);
    queue.dispatch(0);
    assert_eq!(sinks.each_ref().map(|sink| sink.with(|taken| taken.asked)), [1, 1, 1]);
    sinks[1].with(|taken| taken.blocked = false);
    queue.dispatch(0);
    assert_eq!(queue.depth().ready, 1, "nobody said that there is room");
    queue.unblocked(names[1], 0);
    assert_eq!(sinks[1].with(|taken| taken.got.len()), 1);
    assert_eq!(queue.depth().ready, 0);
}

#[derive(Clone, Debug)]
enum Step {
    Publish(usize),
    Subscribe { prefetch: u32, room: usize },
    Leave(usize),
    Settle { at: usize, back: bool },
    Drain(usize, usize),
    Block(usize),
    Unblock(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let at = any::<usize>;
    let one = prop_oneof![
        4 => (1..9usize).prop_map(Step::Publish),
        2 => (0..3u32, 0..5usize).prop_map(|(prefetch, room)| Step::Subscribe { prefetch, room }),
        1 => at().prop_map(Step::Leave),
        5 => (at(), any::<bool>()).prop_map(|(at, back)| Step::Settle { at, back }),
        3 => (at(), 1..5usize).prop_map(|(at, room)| Step::Drain(at, room)),
        1 => at().prop_map(Step::Block),
        2 => at().prop_map(Step::Unblock),
    ];
    prop::collection::vec(one, 1..120)
}

struct Member {
    id: ConsumerId,
    sink: Arc<Taker>,
    prefetch: u32,
    out: Vec<u64>,
}

impl Member {
    fn can_take(&self) -> bool {
        let credit = self.prefetch == 0 || self.out.len() < self.prefetch as usize;
        credit && self.sink.with(|taken| taken.room > 0 && !taken.blocked)
    }
}

proptest! {
    #[test]
    fn no_message_waits_while_a_consumer_can_take_it(steps in steps()) {
        let (mut queue, mut members) = (QueueCore::default(), Vec::<Member>::new());
        for step in steps {
            let count = members.len().max(1);
            match step {
                Step::Publish(messages) => publish(&mut queue, messages),
                Step::Subscribe { prefetch, room } => {
                    let sink = Taker::with_room(room);
                    let id = subscribe(&mut queue, &sink, prefetch);
                    members.push(Member { id, sink, prefetch, out: Vec::new() });
                }
                _ if members.is_empty() => {}
                Step::Leave(at) => {
                    let member = members.remove(at % count);
                    prop_assert!(queue.unsubscribe(member.id));
                    member.out.iter().for_each(|&sequence| queue.acknowledge(Some(member.id), sequence, 1));
                }
                Step::Settle { at, back } => {
                    let member = &mut members[at % count];
                    if let Some(sequence) = (!member.out.is_empty()).then(|| member.out.remove(at % member.out.len())) {
                        // The offset of a message does not matter here: all messages are alike.
                        let offset = 3;
                        match back {
                            true => queue.give_back(Some(member.id), DeliveryId::new(sequence, offset, queue.epoch())),
                            false => queue.acknowledge(Some(member.id), sequence, 1),
                        }
                    }
                }
                Step::Drain(at, room) => {
                    members[at % count].sink.with(|taken| taken.room = room);
                    queue.drained(members[at % count].id, 0);
                }
                Step::Block(at) => members[at % count].sink.with(|taken| taken.blocked = true),
                Step::Unblock(at) => {
                    members[at % count].sink.with(|taken| taken.blocked = false);
                    queue.unblocked(members[at % count].id, 0);
                }
            }
            queue.dispatch(0);
            for member in &mut members {
                member.out.extend(member.sink.with(|taken| std::mem::take(&mut taken.got)));
            }
            let out: usize = members.iter().map(|member| member.out.len()).sum();
            prop_assert_eq!(queue.depth().unacked, out as u64);
            prop_assert!(queue.depth().ready == 0 || !members.iter().any(Member::can_take), "{:?}", queue.depth());
            let all_stuck = !members.is_empty() && members.iter().all(|member| member.sink.with(|taken| taken.room == 0));
            prop_assert!(!queue.consumers_lag() || all_stuck);
        }
    }
}

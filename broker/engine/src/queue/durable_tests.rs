//! Durable queues: deliveries become facts, and the state that follows from the facts survives a change of the leader.
//! Then random commands, with a new leader now and then, compared with a plain list.
use super::*;
use crate::catalog::{DeliveryLimit, QueueType};
use bytes::Bytes;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

type Message = (u64, u32, bool, Vec<u8>);

/// The epoch in which the tests serve queues.
pub(super) const EPOCH: u64 = 7;

#[derive(Default)]
struct Recorder(Mutex<Vec<Message>>);

impl Sink for Recorder {
    fn fill(&self, source: &mut dyn Source) -> Fill {
        while let Some(Delivery { id, redelivered, body, .. }) = source.next() {
            self.0.lock().unwrap().push((id.message.sequence, id.message.offset, redelivered, body.to_vec()));
        }
        Fill::Exhausted
    }
}

/// The log: its runs by the number of their file.
#[derive(Default)]
pub(super) struct Log(Vec<Bytes>);

impl Log {
    pub(super) fn publish(&mut self, queue: &mut QueueCore, bodies: &[Vec<u8>], warm: bool) {
        let mut run = vec![1, 1, b'e', b'k'];
        for body in bodies {
            run.extend_from_slice(&0u32.to_le_bytes());
            run.extend_from_slice(&(body.len() as u32).to_le_bytes());
            run.extend_from_slice(body);
        }
        let run = Bytes::from(run);
        let name = RunName { entry: self.0.len() as u64, at: 0, len: run.len() as u32 };
        let body_bytes = bodies.iter().map(|body| body.len() as u64).sum();
        queue.apply_logged(&LoggedRun { run: &run, name, count: bodies.len() as u32, body_bytes, warm }, 0);
        self.0.push(run);
    }

    fn read(&self, queue: &mut QueueCore) {
        if let Some(fetch) = queue.take_read(false) {
            let runs = fetch.iter().map(|(segment, name)| (*segment, self.0[name.entry as usize].clone())).collect();
            queue.read_done(runs);
        }
    }

    fn get(&self, queue: &mut QueueCore, no_ack: bool) -> Option<Message> {
        let sink = Recorder::default();
        let mut got = queue.get(&sink, no_ack, 0);
        if got == Got::Cold {
            self.read(queue);
            got = queue.get(&sink, no_ack, 0);
        }
        assert_ne!(got, Got::Cold);
        sink.0.into_inner().unwrap().pop()
    }
}

fn apply_changes(queue: &mut QueueCore) {
    let Some(changes) = queue.take_changes() else { return };
    for (first, count) in changes.settled {
        queue.apply_settled(first, count);
    }
    for DeliveryId { message: MessageId { sequence, offset }, epoch } in changes.returned {
        queue.apply_returned(sequence, offset, Some(epoch), None);
    }
}

/// Returns a queue without a leader whose messages may be returned `limit` times.
fn durable(limit: Option<u32>) -> QueueCore {
    let queue_type = if limit.is_some() { QueueType::Quorum } else { QueueType::Classic };
    QueueCore::new(&QueueSettings { queue_type, delivery_limit: limit.map(DeliveryLimit::Times) }, true)
}

/// Returns the queue as after a restart: only its index is kept.
fn restarted(queue: &QueueCore, limit: Option<u32>) -> QueueCore {
    let mut snapshot = Vec::new();
    queue.snapshot(&mut snapshot);
    let mut next = durable(limit);
    let mut rest = &snapshot[..];
    next.restore(&mut rest, 0, &mut renamed).unwrap();
    assert!(rest.is_empty());
    next.lead(u64::MAX, EPOCH);
    next
}

pub(super) fn led(limit: Option<u32>) -> QueueCore {
    let mut queue = durable(limit);
    queue.lead(u64::MAX, EPOCH);
    queue
}

#[test]
fn an_acknowledgement_takes_effect_once_it_is_logged() {
    let (mut queue, mut log) = (led(None), Log::default());
    log.publish(&mut queue, &[b"1".to_vec(), b"2".to_vec()], true);
    let (sequence, ..) = log.get(&mut queue, false).unwrap();
    queue.acknowledge(None, sequence, 1);
    assert_eq!(queue.depth().unacked, 1);
    assert_eq!(queue.take_changes(), Some(DeliveryChanges { settled: vec![(0, 1)], ..DeliveryChanges::default() }));
    assert_eq!(queue.take_changes(), None);
    queue.apply_settled(0, 1);
    assert_eq!((queue.depth().ready, queue.depth().unacked), (1, 0));
}

#[test]
fn unacknowledged_messages_are_ready_and_redelivered_under_the_next_leader() {
    let (mut queue, mut log) = (led(None), Log::default());
    log.publish(&mut queue, &[b"1".to_vec(), b"2".to_vec(), b"3".to_vec()], false);
    log.get(&mut queue, false).unwrap();
    log.get(&mut queue, true).unwrap();
    apply_changes(&mut queue);
    let mut queue = restarted(&queue, None);
    assert_eq!(queue.depth().ready, 2);
    log.publish(&mut queue, &[b"4".to_vec()], true);
    let seen: Vec<_> = std::iter::from_fn(|| log.get(&mut queue, false)).map(|got| (got.0, got.2)).collect();
    assert_eq!(seen, [(0, true), (2, true), (3, false)]);
}

#[test]
fn messages_known_to_be_undelivered_are_not_marked_as_redelivered() {
    let (mut queue, mut log) = (led(None), Log::default());
    log.publish(&mut queue, &[b"1".to_vec(), b"2".to_vec(), b"3".to_vec()], false);
    log.get(&mut queue, false).unwrap();
    assert_eq!(queue.delivered_below(), 1);
    for below in [1, 2] {
        let mut snapshot = Vec::new();
        queue.snapshot(&mut snapshot);
        let mut next = durable(None);
        next.restore(&mut &snapshot[..], 0, &mut renamed).unwrap();
        next.lead(queue.delivered_below(), EPOCH);
        assert_eq!(next.delivered_below(), below, "also where nothing was delivered since");
        let (sequence, _, redelivered, _) = log.get(&mut next, false).unwrap();
        assert_eq!((sequence, redelivered), (0, true));
        let (sequence, _, redelivered, _) = log.get(&mut next, false).unwrap();
        assert_eq!((sequence, redelivered), (1, below > 1));
        queue = next;
    }
}

#[test]
fn a_message_returned_too_often_is_dropped() {
    let (mut queue, mut log) = (led(Some(2)), Log::default());
    log.publish(&mut queue, &[b"1".to_vec()], true);
    for round in 0..3 {
        let (sequence, offset, redelivered, _) = log.get(&mut queue, false).unwrap();
        assert_eq!(redelivered, round > 0);
        queue.give_back(None, DeliveryId::new(sequence, offset, queue.epoch()));
        apply_changes(&mut queue);
        queue = restarted(&queue, Some(2));
    }
    assert_eq!(log.get(&mut queue, false), None);
    assert_eq!(queue.depth().ready + queue.depth().unacked, 0);
}

#[test]
fn a_snapshot_with_a_wrong_digest_is_refused() {
    let (mut queue, mut log) = (led(None), Log::default());
    log.publish(&mut queue, &[b"1".to_vec()], true);
    let mut snapshot = Vec::new();
    queue.snapshot(&mut snapshot);
    snapshot[9] ^= 1;
    assert!(durable(None).restore(&mut &snapshot[..], 0, &mut renamed).unwrap_err().0.starts_with("digest"));
    snapshot[0] = 9;
    assert!(durable(None).restore(&mut &snapshot[..], 0, &mut renamed).unwrap_err().0.starts_with("version 9"));
    assert!(durable(None).restore(&mut &snapshot[..0], 0, &mut renamed).is_err());
}

#[test]
fn one_unacknowledged_message_holds_its_own_run_only() {
    let (mut queue, mut log) = (led(None), Log::default());
    log.publish(&mut queue, &[b"held".to_vec()], true);
    log.get(&mut queue, false).unwrap();
    for run in 0..200_000 {
        log.0.clear(); // runs that were read stay in the queue's memory
        log.publish(&mut queue, &[b"x".to_vec()], true);
        let (sequence, ..) = log.get(&mut queue, false).unwrap();
        queue.acknowledge(None, sequence, 1);
        apply_changes(&mut queue);
        queue.take_freed();
        assert!(queue.memory_bytes() < 16 << 10, "{} bytes after {run}", queue.memory_bytes());
    }
    log.publish(&mut queue, &[b"last".to_vec()], true);
    let mut snapshot = Vec::new();
    queue.snapshot(&mut snapshot);
    assert!(snapshot.len() < 256, "{} bytes", snapshot.len());
    let mut queue = restarted(&queue, None);
    assert_eq!(queue.depth(), Depth { ready: 2, unacked: 0, body_bytes: 8, consumers: 0 });
    // A fact that is applied again changes nothing: neither for messages whose run was removed nor for those that are
    // there.
    let digest = queue.digest();
    queue.apply_settled(1, 200_000);
    queue.apply_returned(100, 4, Some(EPOCH), None);
    assert_eq!((queue.digest(), queue.depth().ready), (digest, 2));
    assert!(log.get(&mut queue, true).is_some() && log.get(&mut queue, true).is_some());
    apply_changes(&mut queue);
    assert_eq!((queue.digest(), queue.runs().count()), (0, 0));
}

#[test]
fn an_index_without_a_run_between_others_is_refused() {
    let (mut queue, mut log) = (led(None), Log::default());
    for body in [b"1", b"2", b"3"] {
        log.publish(&mut queue, &[body.to_vec()], true);
    }
    let mut snapshot = Vec::new();
    queue.snapshot(&mut snapshot);
    let runs_at = 1 + 8 + 8;
    snapshot[runs_at] = 2;
    let run_bytes = 8 + 4 + 4 + 8 + 8 + 4 * 2;
    snapshot.drain(runs_at + 8 + run_bytes..runs_at + 8 + 2 * run_bytes);
    assert!(durable(None).restore(&mut &snapshot[..], 0, &mut renamed).unwrap_err().0.starts_with("digest"));
}

#[test]
fn runs_ahead_of_the_cursor_are_searched_only_now_and_then() {
    let (mut queue, mut log) = (led(None), Log::default());
    for at in 0..10_000 {
        log.publish(&mut queue, &[vec![0; 1000]], at != 9_999);
    }
    let subscription =
        Subscription { sink: Arc::new(Recorder::default()), exclusive: false, no_ack: false, prefetch: 1 };
    let consumer = queue.subscribe(subscription).unwrap();
    let mut looks = 0;
    for sequence in 0..9_999 {
        queue.dispatch(0);
        if queue.may_need_read() {
            looks += 1;
            log.read(&mut queue);
        }
        queue.acknowledge(Some(consumer), sequence, 1);
        apply_changes(&mut queue);
    }
    assert!(looks > 2 && looks < 12, "{looks}");
    queue.dispatch(0);
    assert_eq!((queue.depth().unacked, queue.standstill()), (1, None), "it was read in time");
}

/// Returns a queue of runs of 4 KiB, none of which is in memory.
fn cold(runs: u64) -> QueueCore {
    let mut queue = led(None);
    for entry in 0..runs {
        let name = RunName { entry, at: 17, len: 4 << 10 };
        queue.apply_logged(&LoggedRun { run: &Bytes::new(), name, count: 1, body_bytes: 4000, warm: false }, 0);
    }
    queue
}

#[test]
fn a_read_is_bounded_by_the_bytes_of_its_runs() {
    for (tight, runs) in [(false, 1024), (true, 64)] {
        let mut queue = cold(2000);
        assert_eq!(queue.get(&Recorder::default(), false, 0), Got::Cold);
        assert_eq!(queue.take_read(tight).unwrap().len(), runs);
    }
}

#[test]
fn an_unreadable_run_stops_deliveries_and_is_not_read_again() {
    let (mut queue, mut log) = (led(None), Log::default());
    (0..10).for_each(|at| log.publish(&mut queue, &[vec![at]], false));
    assert_eq!(queue.get(&Recorder::default(), true, 0), Got::Cold);
    let fetch = queue.take_read(false).unwrap();
    queue.set_unreadable(fetch[3].0, "a bit is another");
    queue.read_done(fetch[..3].iter().map(|(at, name)| (*at, log.0[name.entry as usize].clone())).collect());
    assert_eq!((queue.unreadable(), queue.standstill()), (Some("a bit is another"), None));
    for _ in 0..3 {
        assert_eq!(queue.get(&Recorder::default(), true, 0), Got::Message);
    }
    assert_eq!(queue.get(&Recorder::default(), true, 0), Got::Cold);
    assert_eq!((queue.standstill(), queue.may_need_read()), (Some("a bit is another"), false));
    assert_eq!(queue.take_read(false), None);
    assert_eq!(queue.purge(), 7);
    apply_changes(&mut queue);
    assert_eq!((queue.unreadable(), queue.depth().ready), (None, 0));
    log.publish(&mut queue, &[b"on".to_vec()], false);
    assert!(log.get(&mut queue, true).is_some());
}

#[test]
fn a_purge_of_returned_messages_has_parts_of_few_ranges() {
    let (mut queue, mut log) = (led(None), Log::default());
    (0..200).for_each(|_| log.publish(&mut queue, &vec![b"x".to_vec(); 100], true));
    let out: Vec<_> = (0..19_000).map(|_| log.get(&mut queue, false).unwrap()).collect();
    for &(sequence, offset, ..) in &out[10..] {
        queue.give_back(None, DeliveryId::new(sequence, offset, queue.epoch()));
    }
    apply_changes(&mut queue);
    let (before, mut purged, mut parts, mut ranges) = (queue.next_sequence(), 0, 0, Vec::new());
    loop {
        let (more, done) = queue.purge_some(before, 1_000);
        (purged, parts) = (purged + more, parts + 1);
        ranges.extend(queue.take_changes().map(|changes| changes.settled).unwrap_or_default());
        log.publish(&mut queue, &[b"late".to_vec()], true);
        if done {
            break;
        }
    }
    assert_eq!((purged, queue.depth().ready), (19_990, parts));
    assert!(parts >= 19 && ranges.len() <= parts as usize + 1, "{parts} parts, {} ranges", ranges.len());
    ranges.into_iter().for_each(|(first, count)| queue.apply_settled(first, count));
    assert_eq!(queue.depth().unacked, 10);
    assert_eq!(log.get(&mut queue, false).unwrap().3, b"late");
}

#[derive(Clone, Debug)]
enum Command {
    Publish(Vec<usize>, bool),
    Get { no_ack: bool },
    Settle { at: usize, back: bool },
    Purge,
    Restart,
}

fn commands() -> impl Strategy<Value = Vec<Command>> {
    let one = prop_oneof![
        4 => (prop::collection::vec(0..40usize, 1..6), any::<bool>()).prop_map(|(sizes, warm)| Command::Publish(sizes, warm)),
        6 => any::<bool>().prop_map(|no_ack| Command::Get { no_ack }),
        5 => (any::<usize>(), any::<bool>()).prop_map(|(at, back)| Command::Settle { at, back }),
        1 => Just(Command::Purge),
        1 => Just(Command::Restart),
    ];
    prop::collection::vec(one, 1..80)
}

proptest! {
    #[test]
    fn a_durable_queue_behaves_like_a_plain_list(commands in commands()) {
        let (mut queue, mut log) = (led(None), Log::default());
        let mut ready: BTreeMap<u64, (bool, Vec<u8>)> = BTreeMap::new();
        let mut out: BTreeMap<u64, (u32, Vec<u8>)> = BTreeMap::new();
        // Returned messages come before messages that were never delivered, each group in order. A restart merges the
        // two.
        let mut returned: BTreeMap<u64, (bool, Vec<u8>)> = BTreeMap::new();
        let mut next = 0;
        for command in commands {
            match command {
                Command::Publish(sizes, warm) => {
                    let bodies: Vec<Vec<u8>> = sizes.iter().enumerate().map(|(at, &size)| vec![(next as usize + at) as u8; size]).collect();
                    log.publish(&mut queue, &bodies, warm);
                    for body in bodies { ready.insert(next, (false, body)); next += 1; }
                }
                Command::Get { no_ack } => {
                    let expected = returned.pop_first().or_else(|| ready.pop_first());
                    let got = log.get(&mut queue, no_ack);
                    prop_assert_eq!(got.is_some(), expected.is_some());
                    if let (Some((sequence, offset, again, body)), Some((expected, (was_out, content)))) = (got, expected) {
                        prop_assert_eq!((sequence, again, &body), (expected, was_out, &content));
                        if !no_ack { out.insert(sequence, (offset, body)); }
                    }
                }
                Command::Settle { at, back } => {
                    if out.is_empty() { continue }
                    let sequence = *out.keys().nth(at % out.len()).unwrap();
                    let (offset, body) = out.remove(&sequence).unwrap();
                    if back {
                        queue.give_back(None, DeliveryId::new(sequence, offset, queue.epoch()));
                        returned.insert(sequence, (true, body));
                    } else {
                        queue.acknowledge(None, sequence, 1);
                    }
                }
                Command::Purge => {
                    prop_assert_eq!(queue.purge(), (ready.len() + returned.len()) as u64);
                    (ready, returned) = Default::default();
                }
                Command::Restart => {
                    apply_changes(&mut queue);
                    let digest = queue.digest();
                    queue = restarted(&queue, None);
                    prop_assert_eq!(queue.digest(), digest);
                    ready.extend(std::mem::take(&mut returned));
                    ready.extend(std::mem::take(&mut out).into_iter().map(|(sequence, (_, body))| (sequence, (true, body))));
                    ready.values_mut().for_each(|message| message.0 = true);
                }
            }
            apply_changes(&mut queue);
            let depth = queue.depth();
            prop_assert_eq!((depth.ready, depth.unacked), ((ready.len() + returned.len()) as u64, out.len() as u64));
        }
        while log.get(&mut queue, true).is_some() {}
        for (sequence, _) in out { queue.acknowledge(None, sequence, 1); }
        apply_changes(&mut queue);
        prop_assert_eq!((queue.digest(), queue.runs().count()), (0, 0));
    }
}

#[test]
fn settling_neighbouring_runs_together_keeps_all_other_runs() {
    let mut queue = led(None);
    for entry in 0..1_000 {
        let name = RunName { entry, at: 0, len: 20 };
        queue.apply_logged(&LoggedRun { run: &Bytes::new(), name, count: 1, body_bytes: 1, warm: false }, 0);
    }
    (0..1_000).step_by(7).for_each(|sequence| queue.apply_settled(sequence, 1));
    queue.apply_settled(100, 800);
    let mut freed: Vec<u64> = queue.take_freed().into_iter().map(|name| name.entry).collect();
    freed.sort_unstable();
    let is_gone = |entry: &u64| entry.is_multiple_of(7) || (100..900).contains(entry);
    assert_eq!(freed, (0..1_000).filter(is_gone).collect::<Vec<_>>());
    let left: Vec<u64> = queue.runs().map(|(_, name)| name.entry).collect();
    assert_eq!(left, (0..1_000).filter(|entry| !is_gone(entry)).collect::<Vec<_>>());
    assert_eq!(queue.depth().body_bytes, left.len() as u64);
}

#[test]
fn an_index_written_in_parts_is_restored_as_a_whole() {
    let mut queue = led(None);
    for entry in 0..200_000 {
        let name = RunName { entry, at: 0, len: 20 };
        queue.apply_logged(&LoggedRun { run: &Bytes::new(), name, count: 2, body_bytes: 2, warm: false }, 0);
    }
    (1..400_000).step_by(4).for_each(|sequence| queue.apply_settled(sequence, 1));
    (0..400_000).step_by(8).for_each(|sequence| queue.apply_returned(sequence, 0, Some(EPOCH), None));
    let (mut parts, mut next, mut index) = (0, Some(Part::default()), Vec::new());
    while let Some(part) = next {
        let before = index.len();
        next = queue.snapshot_part(&mut index, part);
        assert!(index.len() - before < 2 << 20, "a part of {} bytes", index.len() - before);
        parts += 1;
    }
    assert!(parts > 10, "{parts}");
    let mut restored = durable(None);
    restored.restore(&mut &index[..], 0, &mut renamed).unwrap();
    assert_eq!((restored.digest(), restored.depth().body_bytes), (queue.digest(), queue.depth().body_bytes));
    assert!(restored.runs().map(|(_, name)| name).eq(queue.runs().map(|(_, name)| name)));
}

/// Names the run of an index of version 1.
fn renamed(OldPlace { file, offset, at, run_len, .. }: OldPlace) -> RunName {
    RunName { entry: file << 32 | u64::from(offset), at, len: run_len }
}

#[test]
fn an_index_of_version_1_is_restored_with_names_for_its_runs() {
    let mut index = vec![1];
    let mut put = |values: &[u64], words: &[u32]| {
        values.iter().for_each(|value| index.extend_from_slice(&value.to_le_bytes()));
        words.iter().for_each(|word| index.extend_from_slice(&word.to_le_bytes()));
    };
    let digest = logged::Durable::range_digest(4, 1);
    put(&[5, digest, 1], &[]); // next sequence, digest, runs
    put(&[3], &[2, 1]); // first, count, live
    put(&[10, 7], &[64, 200, 17, 30]); // body bytes, file, offset, length, at, run length
    put(&[1, 3, 4], &[]); // settled: 3..4
    put(&[1, 4], &[6]); // returned six times
    let mut restored = durable(None);
    let mut rest = &index[..];
    restored.restore(&mut rest, 0, &mut renamed).unwrap();
    assert!(rest.is_empty());
    assert_eq!(
        restored.runs().map(|(_, name)| name).collect::<Vec<_>>(),
        [RunName { entry: 7 << 32 | 64, at: 17, len: 30 }]
    );
    restored.lead(0, EPOCH);
    assert_eq!((restored.depth().ready, restored.digest()), (1, digest));
}

#[test]
fn a_return_from_an_earlier_epoch_counts_and_makes_no_message_ready_twice() {
    let (mut queue, mut log) = (led(Some(1)), Log::default());
    log.publish(&mut queue, &[b"1".to_vec()], true);
    let (sequence, offset, ..) = log.get(&mut queue, false).unwrap();
    queue.lead(u64::MAX, EPOCH + 1);
    queue.apply_returned(sequence, offset, Some(EPOCH), None);
    assert_eq!(queue.depth().ready, 1);
    assert!(log.get(&mut queue, false).is_some_and(|(.., redelivered, _)| redelivered));
    // Another consumer has it by now.
    queue.give_back(None, DeliveryId::new(sequence, offset, EPOCH));
    apply_changes(&mut queue);
    assert_eq!((queue.depth().ready, queue.depth().unacked), (0, 1));
    queue.give_back(None, DeliveryId::new(sequence, offset, queue.epoch()));
    let limit_is_met = queue.take_changes().unwrap();
    assert_eq!((limit_is_met.settled.len(), limit_is_met.returned.len()), (1, 0), "it was returned often enough");
}

#[test]
fn what_a_consumer_of_an_earlier_epoch_settles_or_returns_counts_once() {
    let (mut queue, mut log) = (durable(None), Log::default());
    log.publish(&mut queue, &[b"1".to_vec(), b"2".to_vec(), b"3".to_vec(), b"4".to_vec()], true);
    queue.lead(u64::MAX, EPOCH);
    // Nothing is delivered in this epoch yet: the first two were delivered in an earlier one.
    queue.apply_settled(0, 1);
    queue.apply_returned(1, 9, Some(EPOCH), None);
    assert_eq!((queue.depth().ready, queue.depth().unacked), (3, 0));
    let [first, second] = [0, 1].map(|_| log.get(&mut queue, false).unwrap().0);
    assert_eq!([first, second], [1, 2]);
    queue.give_back(None, DeliveryId::new(1, 0, queue.epoch()));
    apply_changes(&mut queue);
    assert_eq!((queue.depth().ready, queue.depth().unacked), (2, 1));
    // It is settled while it is ready again.
    queue.apply_settled(1, 1);
    assert_eq!((queue.depth().ready, queue.depth().unacked), (1, 1));
}

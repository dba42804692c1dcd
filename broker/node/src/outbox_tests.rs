//! Tests of the order in which operations are handed in, while there is no room for publishes and when they are handed in
//! again.
use super::*;
use crate::entry::Operation;
use crate::shard::Shard;
use leveret_engine::catalog::QueueId;
use leveret_engine::queue::{Body, DeliveryChanges, DeliveryId, Extent, Publish};

const OF: NodeRun = NodeRun { node: 6, incarnation: 7 };

fn publish(shard: &Shard, bytes: usize) {
    let body = vec![b'x'; bytes + 2];
    let messages = [Extent { properties_at: 0, properties_len: 2, body: Body::Inline { at: 2, len: bytes as u32 } }];
    let publish = Publish { exchange: b"", routing_key: b"q", bytes: &body, messages: &messages };
    shard.publish(&[QueueId(1)], &publish, None);
}

fn settle(shard: &Shard, first: u64, returned: bool) {
    let returned = if returned { vec![DeliveryId::new(first, 0, 8)] } else { Vec::new() };
    shard.changes(QueueId(1), &DeliveryChanges { settled: vec![(first, 1)], returned, released: Vec::new() });
}

/// Returns the operations of an entry as text: publishes as `p`, settlements by number, returns as `r`.
fn says(bytes: &Bytes) -> String {
    let mut said = String::new();
    for batch in &entry::batches(bytes).unwrap() {
        entry::operations(bytes, batch, |operation| match operation {
            Operation::Enqueue { .. } => said.push('p'),
            Operation::Settle { first, .. } => said.push_str(&first.to_string()),
            Operation::Return { .. } | Operation::Release { .. } => said.push('r'),
            Operation::Declare { .. } | Operation::Delete { .. } | Operation::Command { .. } => said.push('d'),
        })
        .unwrap();
    }
    said
}

/// Returns the row and the number of each batch of an entry.
fn numbers(entry: &[u8]) -> Vec<(Row, u64)> {
    entry::batches(entry).unwrap().iter().map(|batch| batch.id.unwrap()).map(|id| (Row::of(id), id.number)).collect()
}

fn applied(shard: &Shard, entry: &[u8]) {
    numbers(entry).into_iter().for_each(|(row, number)| shard.outbox.applied(row, number));
}

/// Hands in the next entry. Returns it, or `None` if there is none to hand in.
fn hand_in(shard: &Shard, has_room: impl Fn(usize, bool) -> bool) -> Option<Bytes> {
    match shard.outbox.next(OF, has_room) {
        Next::Entry(bytes) => Some(bytes),
        Next::Later(_) | Next::Nothing => None,
    }
}

fn next(shard: &Shard, has_room: impl Fn(usize, bool) -> bool) -> String {
    match shard.outbox.next(OF, has_room) {
        Next::Entry(bytes) => {
            applied(shard, &bytes);
            says(&bytes)
        }
        Next::Later(_) => "later".to_owned(),
        Next::Nothing => "nothing".to_owned(),
    }
}

/// Returns whether a caller would wait.
fn is_pending(waits: impl Future<Output = ()>) -> bool {
    let mut waits = std::pin::pin!(waits);
    waits.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop())).is_pending()
}

const ALL: fn(usize, bool) -> bool = |_, _| true;
const ONLY_CONTROL: fn(usize, bool) -> bool = |_, control| control;
const NOTHING: fn(usize, bool) -> bool = |_, _| false;

#[tokio::test]
async fn settlements_overtake_publishes_that_have_no_room() {
    let shard = Shard::new(1);
    publish(&shard, 10);
    settle(&shard, 1, false);
    publish(&shard, 300_000);
    settle(&shard, 2, true);
    publish(&shard, 10);
    settle(&shard, 3, false);
    assert_eq!(next(&shard, ONLY_CONTROL), "12r3");
    assert_eq!(next(&shard, ONLY_CONTROL), "later");
    settle(&shard, 4, false);
    assert_eq!(next(&shard, NOTHING), "later", "nothing is handed in without room");
    assert_eq!(next(&shard, ONLY_CONTROL), "4");
    assert!(!is_pending(shard.outbox.until_visible()), "a caller does not wait for publishes that are held");
    assert_eq!(next(&shard, ALL), "pp");
    assert!(!shard.outbox.is_idle());
    assert!(is_pending(shard.outbox.until_visible()), "publishes that are not held any more are waited for");
    assert_eq!(next(&shard, ALL), "p");
    assert!(!is_pending(shard.outbox.until_visible()));
    assert_eq!(next(&shard, ALL), "nothing");
    assert!(shard.outbox.is_idle());
}

#[tokio::test]
async fn publishes_and_settlements_share_an_entry() {
    let shard = Shard::new(1);
    publish(&shard, 10);
    settle(&shard, 1, false);
    publish(&shard, 20);
    let entry = hand_in(&shard, ALL).unwrap();
    assert_eq!((says(&entry), numbers(&entry)), ("pp1".to_owned(), vec![(Row::Publishes, 0), (Row::Others, 0)]));
    settle(&shard, 2, false);
    assert_eq!(hand_in(&shard, ALL), None, "it waits for company");
    publish(&shard, 10);
    let entry = hand_in(&shard, ALL).unwrap();
    assert_eq!((says(&entry), numbers(&entry)), ("p2".to_owned(), vec![(Row::Publishes, 1), (Row::Others, 1)]));
}

#[tokio::test]
async fn what_is_not_applied_is_handed_in_again_in_order_and_before_anything_new() {
    let shard = Shard::new(1);
    publish(&shard, 10);
    settle(&shard, 1, true);
    let first = hand_in(&shard, ALL).unwrap();
    publish(&shard, 20);
    settle(&shard, 2, true);
    hand_in(&shard, ALL).unwrap();
    publish(&shard, 30);
    assert!(hand_in(&shard, ALL).is_some());
    settle(&shard, 3, true);
    shard.outbox.applied(Row::Publishes, 0);
    shard.outbox.rewind();
    let again = |has_room: fn(usize, bool) -> bool| {
        let entry = hand_in(&shard, has_room)?;
        Some((says(&entry), numbers(&entry)))
    };
    assert_eq!(again(NOTHING), None);
    assert_eq!(again(ONLY_CONTROL), Some(("1r".to_owned(), vec![(Row::Others, 0)])));
    assert_eq!(again(ONLY_CONTROL), Some(("2r".to_owned(), vec![(Row::Others, 1)])));
    assert_eq!(again(ONLY_CONTROL), Some(("3r".to_owned(), vec![(Row::Others, 2)])), "publishes have no room");
    assert_eq!(again(ALL), Some(("p".to_owned(), vec![(Row::Publishes, 1)])));
    assert_eq!(again(ALL), Some(("p".to_owned(), vec![(Row::Publishes, 2)])));
    assert_eq!(again(ALL), None);
    assert_eq!(shard.outbox.unapplied(), [Some(1), Some(0)]);
    let entry = first.slice(..1);
    assert_eq!(entry[0], first[0], "all have the same version");
    for number in 0..3 {
        shard.outbox.applied(Row::Others, number);
    }
    for number in 1..3 {
        shard.outbox.applied(Row::Publishes, number);
    }
    assert!(shard.outbox.is_idle());
    publish(&shard, 10);
    assert_eq!(again(ALL), Some(("p".to_owned(), vec![(Row::Publishes, 3)])));
}

#[tokio::test]
async fn large_entries_do_not_wait_for_those_on_their_way() {
    let shard = Shard::new(1);
    let hand_in = || std::iter::from_fn(|| hand_in(&shard, ALL)).collect::<Vec<_>>();
    for _ in 0..16 {
        publish(&shard, 1 << 20);
    }
    let first = hand_in();
    assert_eq!(first.len(), 8, "as many as {IN_FLIGHT_BYTES_MAX} bytes let");
    first.iter().for_each(|entry| applied(&shard, entry));
    publish(&shard, 10);
    let more = hand_in();
    assert_eq!(more.len(), IN_FLIGHT_MAX, "a small one gathers company while so many are on their way");
    applied(&shard, &more[0]);
    assert_eq!(hand_in().iter().map(|entry| numbers(entry)).collect::<Vec<_>>(), [[(Row::Publishes, 16)]]);
}

#[tokio::test]
async fn returns_are_waited_for_while_publishes_have_no_room() {
    let shard = Shard::new(1);
    publish(&shard, 10);
    assert_eq!(hand_in(&shard, ONLY_CONTROL), None);
    assert!(!is_pending(shard.outbox.until_visible()), "publishes are held");
    settle(&shard, 1, true);
    assert!(is_pending(shard.outbox.until_visible()), "it is not handed in");
    let first = hand_in(&shard, ONLY_CONTROL).unwrap();
    assert!(is_pending(shard.outbox.until_visible()), "it is on its way");
    settle(&shard, 2, true);
    applied(&shard, &first);
    assert!(is_pending(shard.outbox.until_visible()), "only the first one is applied");
    assert_eq!(hand_in(&shard, NOTHING), None);
    assert!(!is_pending(shard.outbox.until_visible()), "it has no room either");
    applied(&shard, &hand_in(&shard, ONLY_CONTROL).unwrap());
    settle(&shard, 3, false);
    assert!(!is_pending(shard.outbox.until_visible()), "what is gone for good can be seen at once");
}

#[tokio::test]
async fn settlements_that_someone_waits_for_are_handed_in_at_once() {
    let shard = Shard::new(1);
    publish(&shard, 10);
    let first = hand_in(&shard, ALL).unwrap();
    settle(&shard, 1, false);
    let mut waits = std::pin::pin!(shard.outbox.until_settled());
    assert!(is_pending(waits.as_mut()));
    let second = hand_in(&shard, ALL).expect("it does not wait for company");
    applied(&shard, &first);
    assert!(is_pending(waits.as_mut()), "only the publish is applied");
    applied(&shard, &second);
    assert!(!is_pending(waits));
}

#[tokio::test]
async fn the_bytes_that_wait_include_the_headers_of_the_entries() {
    let shard = Shard::new(1);
    for _ in 0..5 {
        publish(&shard, BATCH_BYTES);
        settle(&shard, 1, true);
    }
    let pending = || {
        let state = shard.outbox.state.lock();
        let drafts = state.publishes.iter().chain(&state.others);
        (state.bytes, drafts.map(|draft| draft.bytes.len()).sum::<usize>())
    };
    for _ in 0..2 {
        let (counted, there) = pending();
        assert_eq!(counted, there);
        applied(&shard, &hand_in(&shard, ALL).unwrap());
    }
}

//! Tests of the order in which a shard hands in its operations while there is no room for publishes.
use super::*;
use leveret_engine::queue::{Body, Extent};

const ORIGIN: BatchId = BatchId { origin: 6, incarnation: 7, number: 0 };

fn publish(shard: &Shard, bytes: usize) {
    let body = vec![b'x'; bytes + 2];
    let messages = [Extent { properties_at: 0, properties_len: 2, body: Body::Inline { at: 2, len: bytes as u32 } }];
    let publish = Publish { exchange: b"", routing_key: b"q", bytes: &body, messages: &messages };
    shard.publish(&[QueueId(1)], &publish, None);
}

fn settle(shard: &Shard, first: u64, returned: bool) {
    let returned = if returned { vec![(first, 0)] } else { Vec::new() };
    shard.changes(QueueId(1), 8, &DeliveryChanges { settled: vec![(first, 1)], returned });
}

/// Returns the operations of an entry as text: publishes as `p`, settlements by number, returns as `r`.
fn says(bytes: Bytes) -> String {
    let mut said = String::new();
    let batch = &entry::batches(&bytes).unwrap()[0];
    entry::operations(&bytes, batch, |operation| match operation {
        entry::Operation::Enqueue { .. } => said.push('p'),
        entry::Operation::Settle { first, .. } => said.push_str(&first.to_string()),
        entry::Operation::Return { .. } => said.push('r'),
        entry::Operation::Declare(_) | entry::Operation::Delete(_) => said.push('d'),
    })
    .unwrap();
    said
}

/// Returns the number of an entry's batch.
fn number(entry: &[u8]) -> u64 {
    entry::batches(entry).unwrap()[0].id.unwrap().number
}

/// Hands in the next entry. Returns its number, or `None` if there is none to hand in.
fn hand_in(shard: &Shard, has_room: impl Fn(usize, bool) -> bool) -> Option<u64> {
    match shard.next(ORIGIN, has_room) {
        Next::Entry(bytes) => Some(number(&bytes)),
        Next::Later(_) | Next::Nothing => None,
    }
}

fn next(shard: &Shard, has_room: impl Fn(usize, bool) -> bool) -> String {
    match shard.next(ORIGIN, has_room) {
        Next::Entry(bytes) => {
            shard.applied(number(&bytes));
            says(bytes)
        }
        Next::Later(_) => "later".to_owned(),
        Next::Nothing => "nothing".to_owned(),
    }
}

#[tokio::test]
async fn settlements_overtake_publishes_that_have_no_room() {
    let shard = Shard::new(1);
    let only_control = |_: usize, control: bool| control;
    publish(&shard, 10);
    settle(&shard, 1, false);
    publish(&shard, 300_000);
    settle(&shard, 2, true);
    publish(&shard, 10);
    settle(&shard, 3, false);
    assert_eq!(next(&shard, only_control), "12r3");
    assert_eq!(next(&shard, only_control), "later");
    settle(&shard, 4, false);
    assert_eq!(next(&shard, |_, _| false), "later", "nothing is handed in without room");
    assert_eq!(next(&shard, only_control), "4");
    // A caller does not wait for publishes that are held.
    tokio::time::timeout(Duration::from_secs(10), shard.until_visible()).await.unwrap();
    let all = |_: usize, _: bool| true;
    assert_eq!(next(&shard, all), "pp");
    assert!(!shard.is_idle());
    assert!(futures_pending(&shard), "publishes that are not held any more are waited for");
    assert_eq!(next(&shard, all), "p");
    tokio::time::timeout(Duration::from_secs(10), shard.until_visible()).await.unwrap();
    assert_eq!(next(&shard, all), "nothing");
    assert!(shard.is_idle());
}

/// Returns whether `until_visible` would wait.
fn futures_pending(shard: &Shard) -> bool {
    let mut waits = std::pin::pin!(shard.until_visible());
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    waits.as_mut().poll(&mut context).is_pending()
}

#[tokio::test]
async fn an_entry_is_split_at_its_operations() {
    let shard = Shard::new(1);
    for at in 0..50 {
        publish(&shard, 1 + at as usize * 7);
        settle(&shard, at % 10, at % 3 == 0);
    }
    let Next::Entry(whole) = shard.next(ORIGIN, |_, _| true) else { panic!("there is one") };
    let mut settled = entry::begin(0);
    let mut left = entry::split(&whole, &mut settled);
    [&mut left, &mut settled].into_iter().for_each(|entry| entry::seal(entry, ORIGIN));
    assert_eq!(says(left.into()), "p".repeat(50));
    assert_eq!(says(settled.into()), says(whole).replace('p', ""));
}

#[tokio::test]
async fn large_entries_do_not_wait_for_those_on_their_way() {
    let shard = Shard::new(1);
    let hand_in = || std::iter::from_fn(|| hand_in(&shard, |_, _| true)).collect::<Vec<u64>>();
    for _ in 0..16 {
        publish(&shard, 1 << 20);
    }
    let first = hand_in();
    assert_eq!(first.len(), 8, "as many as {IN_FLIGHT_BYTES_MAX} bytes let");
    first.iter().for_each(|number| shard.applied(*number));
    publish(&shard, 10);
    let more = hand_in();
    assert_eq!(more.len(), IN_FLIGHT_MAX, "a small one gathers company while so many are on their way");
    shard.applied(more[0]);
    assert_eq!(hand_in(), [16]);
}

#[tokio::test]
async fn returns_are_waited_for_while_publishes_have_no_room() {
    let shard = Shard::new(1);
    let hand_in = |room: bool| hand_in(&shard, |_, control| room && control);
    publish(&shard, 10);
    assert_eq!(hand_in(true), None);
    assert!(!futures_pending(&shard), "publishes are held");
    settle(&shard, 1, true);
    assert!(futures_pending(&shard), "it is not handed in");
    let first = hand_in(true).unwrap();
    assert!(futures_pending(&shard), "it is on its way");
    settle(&shard, 2, true);
    shard.applied(first);
    assert!(futures_pending(&shard), "only the first one is applied");
    assert_eq!(hand_in(false), None);
    assert!(!futures_pending(&shard), "it has no room either");
    shard.applied(hand_in(true).unwrap());
    settle(&shard, 3, false);
    assert!(!futures_pending(&shard), "what is gone for good can be seen at once");
}

#[tokio::test]
async fn settlements_that_someone_waits_for_are_handed_in_at_once() {
    let shard = Shard::new(1);
    publish(&shard, 10);
    let first = hand_in(&shard, |_, _| true).unwrap();
    settle(&shard, 1, false);
    let mut waits = std::pin::pin!(shard.until_settled());
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(waits.as_mut().poll(&mut context).is_pending());
    let second = hand_in(&shard, |_, _| true).expect("it does not wait for company");
    shard.applied(first);
    assert!(waits.as_mut().poll(&mut context).is_pending(), "only the publish is applied");
    shard.applied(second);
    tokio::time::timeout(Duration::from_secs(10), waits).await.unwrap();
}

#[tokio::test]
async fn the_bytes_that_wait_include_the_headers_of_the_entries() {
    let shard = Shard::new(1);
    for _ in 0..5 {
        publish(&shard, ENTRY_BYTES);
    }
    let pending = |shard: &Shard| {
        let state = shard.pending.lock();
        (state.bytes, state.entries.iter().map(|entry| entry.bytes.len()).sum::<usize>())
    };
    let (counted, there) = pending(&shard);
    assert_eq!(counted, there);
    shard.applied(hand_in(&shard, |_, _| true).unwrap());
    let (counted, there) = pending(&shard);
    assert_eq!(counted, there);
}

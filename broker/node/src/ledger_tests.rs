//! Tests of the ledger, some of which compare it with a plain map.
use super::*;
use crate::memory::Memory;
use crate::queue::QueueContext;
use leveret_engine::catalog::{Catalog, NodeRun, Origin, Purpose, QueueDeclare};
use proptest::prelude::*;
use std::collections::BTreeMap;

fn ledger() -> (Ledger, Arc<ChannelView>, Arc<Queue>) {
    let view = Arc::new(ChannelView::default());
    let mut catalog = Catalog::default();
    let declare = QueueDeclare::default();
    let _ = catalog.declare_queue(NodeRun::default(), "/", "q", declare, Origin::System).unwrap();
    let declared = catalog.queue("/", "q", Origin::System, Purpose::Use).unwrap();
    let context =
        QueueContext { memory: Arc::new(Memory::new(u64::MAX)), unfinished: Arc::default(), shards: None, node: 0 };
    let queue = Queue::new(declared, "/".into(), "q".into(), context);
    (Ledger::new(view.clone()), view, Arc::new(queue))
}

fn taken(ledger: &mut Ledger, tag: u64, multiple: bool) -> Result<Vec<u64>, UnknownTag> {
    let mut sequences = Vec::new();
    if multiple {
        let last = ledger.last_of(tag)?;
        while ledger.take_up_to(last, |_, id| sequences.push(id.message.sequence)) {}
    } else {
        ledger.take(tag, |_, id| sequences.push(id.message.sequence))?;
    }
    Ok(sequences)
}

#[test]
fn tags_are_settled_once() {
    let (mut ledger, view, queue) = ledger();
    let account = ledger.open(queue);
    let tags: Vec<u64> = (10..15).map(|sequence| ledger.deliver(account, message(sequence))).collect();
    assert_eq!(tags, [1, 2, 3, 4, 5]);
    assert_eq!(taken(&mut ledger, 2, false), Ok(vec![11]));
    assert_eq!(taken(&mut ledger, 2, false), Err(UnknownTag));
    assert_eq!(taken(&mut ledger, 2, true), Err(UnknownTag));
    assert_eq!(taken(&mut ledger, 3, true), Ok(vec![10, 12]));
    assert_eq!((ledger.outstanding(), view.unacked.load(Relaxed)), (2, 2));
    for tag in [0, 1, 6, u64::MAX] {
        assert_eq!(taken(&mut ledger, tag, false), Err(UnknownTag), "{tag}");
    }
    assert_eq!(taken(&mut ledger, 0, true), Ok(vec![13, 14]));
    assert_eq!(taken(&mut ledger, 0, true), Ok(vec![]));
    assert_eq!(ledger.deliver_settled(), 6);
    assert_eq!(ledger.deliver(account, message(20)), 7);
}

#[test]
fn very_many_deliveries_are_taken_in_parts_without_those_made_meanwhile() {
    let (mut ledger, _, queue) = ledger();
    let account = ledger.open(queue);
    for sequence in 0..100_000 {
        ledger.deliver(account, message(sequence));
    }
    let (last, mut sequences, mut parts) = (ledger.last_of(0).unwrap(), Vec::new(), 0);
    while ledger.take_up_to(last, |_, id| sequences.push(id.message.sequence)) {
        parts += 1;
        assert!(sequences.len() < parts * 9_000);
        ledger.deliver(account, message(1_000_000));
    }
    assert!(parts > 10 && sequences.iter().copied().eq(0..100_000));
    assert_eq!(ledger.outstanding(), parts as u64);
}

fn message(sequence: u64) -> DeliveryId {
    DeliveryId::new(sequence, 0, 1)
}

#[test]
fn an_account_that_ended_is_removed_with_its_last_delivery() {
    let (mut ledger, _, queue) = ledger();
    let (_, _, other) = self::ledger();
    let account = ledger.open(queue.clone());
    ledger.deliver(account, message(1));
    assert!(
        ledger.is_open(account, &queue) && !ledger.is_open(account, &other) && !ledger.is_open(account + 1, &queue)
    );
    ledger.end(account);
    assert!(!ledger.is_open(account, &queue));
    assert_eq!(Arc::strong_count(&queue), 2);
    assert_eq!(taken(&mut ledger, 1, true), Ok(vec![1]));
    assert_eq!(Arc::strong_count(&queue), 1);
    // A late end of the old account does not affect the new account that has its number by now.
    let again = ledger.open(other.clone());
    assert_eq!(again, account);
    assert!(!ledger.is_open(again, &queue) && ledger.is_open(again, &other));
    ledger.end(again);
    ledger.end(again);
    ledger.set_consumer(again, ConsumerId(1));
}

#[test]
fn gets_from_a_queue_share_an_account_and_many_accounts_count_as_memory() {
    let (mut ledger, _, queue) = ledger();
    for sequence in 0..10 {
        let account = ledger.open_for_gets(queue.clone());
        ledger.deliver(account, message(sequence));
        ledger.end(account);
    }
    assert_eq!(ledger.subscribers.len(), 1);
    assert_eq!(taken(&mut ledger, 0, true).unwrap().len(), 10);
    assert_eq!((ledger.subscribers.len(), ledger.gets.len(), Arc::strong_count(&queue)), (0, 0, 1));
    let memory = queue.memory.clone();
    for sequence in 0..10_000 {
        let account = ledger.open(queue.clone());
        ledger.deliver(account, message(sequence));
        ledger.end(account);
    }
    assert!(memory.contents() > 10_000 * size_of::<Subscriber>() as u64, "{}", memory.contents());
    assert_eq!(taken(&mut ledger, 0, true).unwrap().len(), 10_000);
    assert_eq!(memory.contents(), 0);
}

/// Returns the order of turns: each account takes as many deliveries as its turn allows, and all are settled before the
/// next round.
fn turns(ledger: &mut Ledger, accounts: &[u32], rounds: usize) -> Vec<u64> {
    let mut order = Vec::new();
    for _ in 0..rounds {
        assert!(taken(ledger, 0, true).is_ok());
        let mut served = 0;
        while let Some((_, id)) = ledger.next_turn() {
            let account = accounts[id.0 as usize];
            for &other in accounts.iter().filter(|other| **other != account) {
                assert!(ledger.must_wait(other), "it is not its turn");
            }
            while !ledger.must_wait(account) {
                ledger.deliver(account, message(0));
                order.push(id.0);
                served += 1;
            }
        }
        assert!(served > 0);
    }
    order
}

#[test]
fn accounts_take_turns_under_a_limit() {
    let (mut ledger, _, queue) = ledger();
    let accounts: Vec<u32> = (0..3).map(|_| ledger.open(queue.clone())).collect();
    for (at, &account) in accounts.iter().enumerate() {
        ledger.set_consumer(account, ConsumerId(at as u64));
        assert!(!ledger.must_wait(account), "there is no limit");
    }
    ledger.set_limit(1);
    assert!(!ledger.must_wait(accounts[0]));
    ledger.deliver(accounts[0], message(0));
    for &account in &accounts {
        assert!(ledger.must_wait(account) && ledger.must_wait(account));
    }
    assert!(ledger.has_waiting() && ledger.next_turn().is_none(), "there is no room");
    // The account that was served is behind those that were not, although it joined the line before them.
    assert_eq!(turns(&mut ledger, &accounts, 7), [1, 2, 0, 1, 2, 0, 1]);
    // An account that ends is skipped, and the others do not wait for it.
    ledger.end(accounts[2]);
    assert_eq!(turns(&mut ledger, &[accounts[0], accounts[1], u32::MAX], 3), [0, 1, 0]);
    ledger.set_limit(0);
    while ledger.next_turn().is_some() {}
    assert!(!ledger.has_waiting() && !ledger.must_wait(accounts[0]));
}

#[test]
fn gets_do_not_count_against_the_limit() {
    let (mut ledger, view, queue) = ledger();
    let (consumer, gets) = (ledger.open(queue.clone()), ledger.open_for_gets(queue));
    ledger.set_consumer(consumer, ConsumerId(0));
    ledger.set_limit(1);
    for sequence in 0..3 {
        ledger.deliver(gets, message(sequence));
    }
    assert!(ledger.has_room() && !ledger.must_wait(consumer));
    let tag = ledger.deliver(consumer, message(3));
    assert!(!ledger.has_room() && ledger.must_wait(consumer));
    ledger.end(gets);
    assert_eq!((taken(&mut ledger, 3, true), view.unacked.load(Relaxed)), (Ok(vec![0, 1, 2]), 1));
    assert!(!ledger.has_room() && ledger.next_turn().is_none(), "what was got makes no room");
    assert_eq!(taken(&mut ledger, tag, false), Ok(vec![3]));
    assert!(ledger.has_room() && ledger.next_turn().is_some());
}

#[test]
fn a_turn_is_for_an_equal_share_of_the_room() {
    let (mut ledger, _, queue) = ledger();
    let accounts: Vec<u32> = (0..3).map(|_| ledger.open(queue.clone())).collect();
    accounts.iter().for_each(|&account| ledger.set_consumer(account, ConsumerId(account.into())));
    ledger.set_limit(9);
    while !ledger.must_wait(accounts[0]) {
        ledger.deliver(accounts[0], message(0));
    }
    assert_eq!(ledger.outstanding(), 9, "it is alone");
    assert!(ledger.must_wait(accounts[1]) && ledger.must_wait(accounts[2]));
    assert_eq!(turns(&mut ledger, &accounts, 1), [1, 1, 1, 2, 2, 2, 0, 0, 0]);
    assert_eq!(turns(&mut ledger, &accounts, 1), [1, 1, 1, 2, 2, 2, 0, 0, 0]);
}

#[test]
fn turns_end_when_nobody_takes_anything() {
    let (mut ledger, _, queue) = ledger();
    let accounts: Vec<u32> = (0..3).map(|_| ledger.open(queue.clone())).collect();
    accounts.iter().for_each(|&account| ledger.set_consumer(account, ConsumerId(account.into())));
    ledger.set_limit(1);
    ledger.deliver(accounts[0], message(0));
    assert!(accounts.iter().all(|&account| ledger.must_wait(account)));
    assert_eq!(taken(&mut ledger, 0, true), Ok(vec![0]));
    let mut turns = 0;
    while let Some((_, ConsumerId(id))) = ledger.next_turn() {
        turns += 1;
        assert!(turns < 20, "they wait for one another on and on");
        // The next message has to be read from the disk: the account takes nothing, and the queue asks the others.
        accounts.iter().filter(|&&account| u64::from(account) != id).for_each(|&account| {
            ledger.must_wait(account);
        });
    }
    assert!(turns >= 4, "all had a turn, and then were told that they need not wait for one another");
    assert!(!ledger.has_waiting() && !ledger.must_wait(accounts[1]), "who asks first may take it");
}

#[test]
fn an_account_that_does_not_use_its_turn_does_not_delay_the_others() {
    let (mut ledger, _, queue) = ledger();
    let accounts: Vec<u32> = (0..2).map(|_| ledger.open(queue.clone())).collect();
    accounts.iter().for_each(|&account| ledger.set_consumer(account, ConsumerId(account.into())));
    ledger.set_limit(1);
    ledger.deliver(accounts[0], message(0));
    assert!(ledger.must_wait(accounts[0]) && ledger.must_wait(accounts[1]));
    assert_eq!(taken(&mut ledger, 0, true), Ok(vec![0]));
    assert_eq!(ledger.next_turn().map(|turn| turn.1), Some(ConsumerId(1)));
    assert_eq!(ledger.next_turn().map(|turn| turn.1), Some(ConsumerId(0)));
    assert!(ledger.next_turn().is_none() && !ledger.has_waiting());
    assert!(!ledger.must_wait(accounts[0]), "nobody waits, and there is room");
}

#[test]
fn one_delivery_that_is_never_settled_takes_the_memory_of_one_entry() {
    let (mut ledger, _, queue) = ledger();
    let account = ledger.open(queue);
    ledger.deliver(account, message(0));
    for sequence in 1..1_000_000 {
        // Some deliveries need no acknowledgement, some are settled at once, some a hundred at a time.
        match sequence % 1_000 {
            0..300 => drop(ledger.deliver_settled()),
            300..600 => {
                let tag = ledger.deliver(account, message(sequence));
                assert_eq!(taken(&mut ledger, tag, false), Ok(vec![sequence]));
            }
            _ => {
                let tag = ledger.deliver(account, message(sequence));
                if sequence % 100 == 99 {
                    (tag - 99..=tag).for_each(|tag| assert!(taken(&mut ledger, tag, false).is_ok()));
                }
            }
        }
        assert!(ledger.blocks.bytes() < 1024, "{} bytes", ledger.blocks.bytes());
    }
    assert_eq!(ledger.outstanding(), 1);
    assert_eq!(taken(&mut ledger, 0, true), Ok(vec![0]));
    assert_eq!(ledger.blocks.bytes(), 0);
}

#[test]
fn memory_follows_the_number_of_outstanding_deliveries_in_any_order_of_settlement() {
    let (mut ledger, _, queue) = ledger();
    let memory = queue.memory.clone();
    let account = ledger.open(queue);
    let count = 1 << 18;
    (1..=count).for_each(|tag| assert_eq!(ledger.deliver(account, message(tag)), tag));
    assert!(ledger.blocks.bytes() < count * 19, "{}", ledger.blocks.bytes());
    assert!(memory.contents() == ledger.blocks.bytes(), "accounted to the budget");
    // Settles in an order unrelated to that of the tags; one in a thousand deliveries stays.
    let mut left = count;
    for step in 1..=count {
        let tag = (step * 0x9e37 + 11) % count + 1;
        if tag % 1_000 != 0 {
            assert_eq!(taken(&mut ledger, tag, false), Ok(vec![tag]));
            left -= 1;
            assert!(ledger.blocks.bytes() < left * 256 + 20_000, "{} for {left}", ledger.blocks.bytes());
        }
    }
    assert_eq!((left, ledger.outstanding()), (262, 262));
    let rest: Vec<u64> = (1..=262).map(|at| at * 1_000).collect();
    assert_eq!(taken(&mut ledger, 262_000, true), Ok(rest));
    for sequence in 0..2_000 {
        ledger.deliver(account, message(sequence));
    }
    assert!(memory.contents() > 0);
    drop(ledger);
    assert_eq!(memory.contents(), 0);
}

proptest! {
    #[test]
    fn the_ledger_agrees_with_a_map(steps in prop::collection::vec((0..6u8, 0..1_000u64), 1..200)) {
        let (mut ledger, view, queue) = ledger();
        let account = ledger.open(queue);
        let (mut model, mut next) = (BTreeMap::new(), 1u64);
        for (step, size) in steps {
            let tag = next.saturating_sub(size);
            match step {
                0 => for _ in 0..size {
                    prop_assert_eq!(ledger.deliver(account, message(next * 3)), next);
                    model.insert(next, next * 3);
                    next += 1;
                },
                1 => for _ in 0..size * (size % 100) {
                    prop_assert_eq!(ledger.deliver_settled(), next);
                    next += 1;
                },
                2 => {
                    let expected = model.remove(&tag).map(|sequence| vec![sequence]).ok_or(UnknownTag);
                    prop_assert_eq!(taken(&mut ledger, tag, false), expected);
                }
                3 => {
                    // Settles some of the outstanding deliveries, from one end or the other.
                    let mut tags: Vec<u64> = model.keys().copied().step_by(1 + size as usize % 7).take(size as usize).collect();
                    if size % 2 == 0 { tags.reverse() }
                    for tag in tags {
                        let expected = model.remove(&tag).map(|sequence| vec![sequence]).ok_or(UnknownTag);
                        prop_assert_eq!(taken(&mut ledger, tag, false), expected);
                    }
                }
                4 if size > 50 => {
                    let Some(tag) = model.keys().copied().nth(model.len() * size as usize / 2_000) else { continue };
                    let kept = model.split_off(&(tag + 1));
                    let expected = std::mem::replace(&mut model, kept).into_values().collect::<Vec<_>>();
                    prop_assert_eq!(taken(&mut ledger, tag, true), Ok(expected));
                }
                5 if size < 50 => {
                    let expected = std::mem::take(&mut model).into_values().collect::<Vec<_>>();
                    prop_assert_eq!(taken(&mut ledger, 0, true), Ok(expected));
                }
                _ if !model.contains_key(&tag) && tag > 0 => prop_assert_eq!(taken(&mut ledger, tag, true), Err(UnknownTag)),
                _ => {}
            }
            let left = model.len() as u64;
            prop_assert_eq!((ledger.outstanding(), view.unacked.load(Relaxed)), (left, left));
            prop_assert!(ledger.blocks.bytes() <= left * 300, "{} bytes for {left}", ledger.blocks.bytes());
        }
    }
}

#[test]
fn a_delivery_is_taken_with_the_epoch_in_which_it_was_made_if_that_is_the_last_one() {
    let (mut ledger, _, queue) = ledger();
    let (one, other) = (ledger.open(queue.clone()), ledger.open(queue));
    let made = [(one, 4), (other, 4), (one, 4), (one, 7), (other, 4), (one, 7)];
    for (at, (account, epoch)) in made.into_iter().enumerate() {
        ledger.deliver(account, DeliveryId::new(at as u64, 0, epoch));
    }
    let mut epochs = Vec::new();
    ledger.take(2, |_, id| epochs.push(id.epoch)).unwrap();
    ledger.take_up_to(6, |_, id| epochs.push(id.epoch));
    assert_eq!(epochs, [4, 0, 0, 7, 4, 7], "0 for an epoch that is over");
}

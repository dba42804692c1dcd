//! The ledger against a plain map.
use super::*;
use crate::memory::Memory;
use leveret_engine::catalog::{Catalog, QueueDeclare};
use leveret_model::table::FieldTable;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn ledger() -> (Ledger, Arc<ChannelView>, Arc<Queue>) {
    let view = Arc::new(ChannelView::default());
    let mut catalog = Catalog::default();
    let declare = QueueDeclare {
        durable: false,
        exclusive: None,
        auto_delete: false,
        arguments: FieldTable::default(),
        server_named: false,
        connection: None,
    };
    catalog.declare_queue("/", "q", declare).unwrap();
    let declared = catalog.queue("/", "q", None).unwrap();
    let queue = Queue::new(declared, ("/".into(), "q".into()), Arc::new(Memory::new(u64::MAX)), None);
    (Ledger::new(view.clone()), view, Arc::new(queue))
}

fn taken(ledger: &mut Ledger, tag: u64, multiple: bool) -> Result<Vec<u64>, UnknownTag> {
    let mut sequences = Vec::new();
    ledger.take(tag, multiple, |_, id| sequences.push(id.sequence)).map(|()| sequences)
}

#[test]
fn tags_are_settled_once() {
    let (mut ledger, view, queue) = ledger();
    let account = ledger.open(queue);
    let tags: Vec<u64> = (10..15).map(|sequence| ledger.deliver(account, MessageId { sequence, offset: 0 })).collect();
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
    assert_eq!(ledger.deliver(account, MessageId { sequence: 20, offset: 0 }), 7);
}

#[test]
fn a_limit_and_an_ended_account() {
    let (mut ledger, _, queue) = ledger();
    ledger.set_limit(2);
    let account = ledger.open(queue.clone());
    ledger.deliver(account, MessageId { sequence: 1, offset: 0 });
    assert!(!ledger.is_at_limit());
    ledger.deliver(account, MessageId { sequence: 2, offset: 0 });
    assert!(ledger.is_at_limit() && ledger.has_limit());
    ledger.end(account);
    assert_eq!(ledger.queues().count(), 1);
    assert_eq!(taken(&mut ledger, 2, true), Ok(vec![1, 2]));
    assert_eq!(ledger.queues().count(), 0);
    assert_eq!(Arc::strong_count(&queue), 1);
}

proptest! {
    #[test]
    fn it_does_what_a_map_does(steps in prop::collection::vec((0..4u8, 0..12u64), 1..200)) {
        let (mut ledger, view, queue) = ledger();
        let account = ledger.open(queue);
        let (mut model, mut next) = (BTreeMap::new(), 1u64);
        for (step, near) in steps {
            let tag = next.saturating_sub(near);
            match step {
                0 => {
                    prop_assert_eq!(ledger.deliver(account, MessageId { sequence: next * 3, offset: 0 }), next);
                    model.insert(next, next * 3);
                    next += 1;
                }
                1 => {
                    prop_assert_eq!(ledger.deliver_settled(), next);
                    next += 1;
                }
                2 => {
                    let expected = model.remove(&tag).map(|sequence| vec![sequence]).ok_or(UnknownTag);
                    prop_assert_eq!(taken(&mut ledger, tag, false), expected);
                }
                _ if tag == 0 || model.contains_key(&tag) => {
                    let last = if tag == 0 { u64::MAX } else { tag };
                    let expected: Vec<u64> = model.range(..=last).map(|(_, sequence)| *sequence).collect();
                    model.retain(|tag, _| *tag > last);
                    prop_assert_eq!(taken(&mut ledger, tag, true), Ok(expected));
                }
                _ => prop_assert_eq!(taken(&mut ledger, tag, true), Err(UnknownTag)),
            }
            prop_assert_eq!((ledger.outstanding(), view.unacked.load(Relaxed)), (model.len() as u64, model.len() as u64));
        }
    }
}

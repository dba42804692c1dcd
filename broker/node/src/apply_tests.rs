//! Tests of snapshots of a shard (of this version, of the one before, and of later ones) and of entries that cannot be
//! applied.
use super::*;
use crate::contents::Contents;
use crate::test_node::{TestNode, in_paused_time};
use bytes::Buf;
use leveret_engine::catalog::QueueSettings;
use leveret_engine::queue::QueueCore;
use leveret_journal::faulty::FaultyDisk;

/// Returns a node with a queue of twenty messages in group 1, and the node's applier.
async fn node() -> (TestNode, Arc<Queue>, Applier) {
    let node = TestNode::open(Arc::new(FaultyDisk::new(1))).await;
    let queue = node.declare_in_one_shard(1).await.remove(0);
    node.publish_one_by_one(&queue, 0..20, 100).await;
    let applier = Applier::new(&node.broker.0, node.shards().clone(), node.storage().replicas.clone());
    (node, queue, applier)
}

/// Restores the queue from a snapshot alone. Returns the number of ready messages.
fn restored(queue: &Queue, applier: &Applier, snapshot: &GroupSnapshot) -> Result<u64, String> {
    let before = std::mem::replace(&mut *queue.enter(), QueueCore::new(&QueueSettings::default(), true));
    applier.shards.contents_of(1).free(before.runs().map(|(_, name)| name));
    applier.restore(1, snapshot)?;
    let mut entered = queue.enter();
    entered.lead(u64::MAX, 1);
    Ok(entered.depth().ready)
}

/// Returns the index of a queue as version 1 had it: with the places of the runs instead of their names.
fn of_version_1(index: &[u8], contents: &Contents) -> Vec<u8> {
    let (head, mut rest) = index.split_at(25);
    let mut older = [&[1], &head[1..]].concat();
    for _ in 0..u64::from_le_bytes(head[17..].try_into().unwrap()) {
        let (run, after) = rest.split_at(40);
        older.extend_from_slice(&run[..24]);
        let mut name = &run[24..];
        let name = RunName { entry: name.get_u64_le(), at: name.get_u32_le(), len: name.get_u32_le() };
        let place = contents.place(&name).unwrap();
        older.put_u64_le(place.file);
        [place.offset, place.len, place.at, place.run_len].into_iter().for_each(|value| older.put_u32_le(value));
        rest = after;
    }
    [&older, rest].concat()
}

#[test]
fn snapshots_of_this_version_and_the_one_before_are_restored() {
    in_paused_time(async {
        let (node, queue, applier) = node().await;
        let snapshot = applier.snapshot(1).unwrap();
        let mut index = Vec::new();
        queue.look(|state| state.snapshot(&mut index));
        assert_eq!(restored(&queue, &applier, &snapshot), Ok(20));
        let mut older = queue.id.0.to_le_bytes().to_vec();
        let index = of_version_1(&index, applier.shards.contents_of(1));
        older.extend_from_slice(&(index.len() as u32).to_le_bytes());
        older.extend_from_slice(&index);
        let older = GroupSnapshot { state: older, local: Vec::new() };
        assert_eq!(restored(&queue, &applier, &older), Ok(20));
        assert!(queue.look(|state| state.runs().all(|(_, name)| name.entry > u64::MAX / 2)), "the runs got names");
        let again = applier.snapshot(1).unwrap();
        assert_eq!(restored(&queue, &applier, &again), Ok(20));
        assert_eq!(node.drain(&queue).await, (0..20).collect::<Vec<_>>());
        let without_places = restored(&queue, &applier, &GroupSnapshot { local: Vec::new(), ..snapshot }).unwrap_err();
        assert!(without_places.contains("where all of its contents lie"), "{without_places}");
        assert_eq!(restored(&queue, &applier, &GroupSnapshot::default()), Ok(0));
        node.close().await;
    });
}

#[test]
fn a_snapshot_of_a_later_version_or_cut_short_is_refused() {
    in_paused_time(async {
        let (node, queue, applier) = node().await;
        let mut snapshot = applier.snapshot(1).unwrap();
        let state = snapshot.state[..snapshot.state.len() - 1].to_vec();
        assert!(restored(&queue, &applier, &GroupSnapshot { state, ..snapshot.clone() }).is_err());
        snapshot.state[8] = SNAPSHOT_VERSION + 1;
        assert!(restored(&queue, &applier, &snapshot).unwrap_err().contains("version"));
        node.close().await;
    });
}

#[test]
fn an_entry_that_cannot_be_applied_returns_an_error_and_does_not_panic() {
    in_paused_time(async {
        let (node, _, applier) = node().await;
        let bytes = Bytes::from_static(&[9; 40]);
        let later = AppliedEntry { index: 1, term: 1, bytes, place: leveret_journal::RecordPlace::default() };
        for group in [0, 1] {
            let refused = applier.apply(group, &later).unwrap_err();
            assert!(refused.contains("version is 9"), "{refused}");
        }
        node.close().await;
    });
}

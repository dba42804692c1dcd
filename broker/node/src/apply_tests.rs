//! Tests of snapshots of a shard (of this version, of the one before, and of later ones) and of entries that cannot be
//! applied.
use super::*;
use crate::test_node::{TestNode, in_paused_time};
use leveret_engine::catalog::QueueSettings;
use leveret_journal::faulty::FaultyDisk;

/// Returns a node with a queue of twenty messages in group 1, and the node's applier.
async fn node() -> (TestNode, Arc<Queue>, Applier) {
    let node = TestNode::open(Arc::new(FaultyDisk::new(1))).await;
    let queue = node.declare_in_one_shard(1).await.remove(0);
    node.publish_one_by_one(&queue, 0..20, 100).await;
    let applier = Applier::new(&node.broker.0, node.shards().clone());
    applier.declared.get_or_init(|| ());
    (node, queue, applier)
}

/// Restores the queue from a snapshot alone. Returns the number of ready messages.
fn restored(queue: &Queue, applier: &Applier, snapshot: &[u8]) -> Result<u64, String> {
    *queue.enter() = leveret_engine::queue::QueueCore::new(&QueueSettings::default(), true);
    applier.restore(1, snapshot)?;
    let mut entered = queue.enter();
    entered.lead(u64::MAX);
    Ok(entered.depth().ready)
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
        older.extend_from_slice(&(index.len() as u32).to_le_bytes());
        older.extend_from_slice(&index);
        assert_eq!(restored(&queue, &applier, &older), Ok(20));
        assert_eq!(restored(&queue, &applier, &[]), Ok(0));
        node.close().await;
    });
}

#[test]
fn a_snapshot_of_a_later_version_or_cut_short_is_refused() {
    in_paused_time(async {
        let (node, queue, applier) = node().await;
        let mut snapshot = applier.snapshot(1).unwrap();
        assert!(restored(&queue, &applier, &snapshot[..snapshot.len() - 1]).is_err());
        snapshot[8] = SNAPSHOT_VERSION + 1;
        assert!(restored(&queue, &applier, &snapshot).unwrap_err().contains("version"));
        node.close().await;
    });
}

#[test]
fn an_entry_that_cannot_be_applied_returns_an_error_and_does_not_panic() {
    in_paused_time(async {
        let (node, _, applier) = node().await;
        let later = Bytes::from_static(&[9; 40]);
        for group in [0, 1] {
            let refused = applier.apply(group, &later, journal::RecordPlace::default()).unwrap_err();
            assert!(refused.contains("version is 9"), "{refused}");
        }
        node.close().await;
    });
}

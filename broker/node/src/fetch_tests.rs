//! Tests of reads that fail for a while, and of clients that wait for such a read.
use super::*;
use crate::test_node::{Refuses, Refusing, Taker, TestNode, in_paused_time};
use crate::{Caller, DeleteOnly, StorageTrouble, Subscription};
use leveret_journal::faulty::FaultyDisk;

/// Returns a node whose disk refuses reads, and a queue with messages that are not in memory.
async fn refused() -> (TestNode, Arc<Queue>, Arc<Refuses>) {
    let refuses = Arc::new(Refuses::default());
    let disk = Refusing { disk: FaultyDisk::new(1), refuses: refuses.clone() };
    let node = TestNode::open(Arc::new(disk)).await;
    let queue = node.declare("q").await;
    node.publish_one_by_one(&queue, 0..100, 40_000).await;
    let all: Vec<_> = queue.look(|state| state.runs().collect());
    assert!(queue.look(|state| state.memory_bytes()) < 2 << 20 && all.len() == 100, "most of it is not in memory");
    refuses.now.store(true, Relaxed);
    (node, queue, refuses)
}

#[test]
fn a_read_that_fails_for_lack_of_descriptors_is_tried_again() {
    in_paused_time(async {
        let (node, queue, refuses) = refused().await;
        let sink = Arc::new(Taker::default());
        let subscription = Subscription { sink: sink.clone(), exclusive: false, no_ack: true, prefetch: 0 };
        node.broker.subscribe(&Caller::system(), &queue, subscription).unwrap();
        node.until("the failures are said", || matches!(queue.trouble(), Some(Trouble::Retrying(_)))).await;
        assert!(matches!(node.broker.storage_health(), Err(StorageTrouble::Unreadable { queues: 1, .. })));
        assert!(node.broker.unreadable().is_empty(), "nothing is damaged");
        tokio::time::sleep(Duration::from_secs(3600)).await;
        let reads = refuses.reads.load(Relaxed);
        assert!((600..2000).contains(&reads), "an hour of retries are {reads} reads");
        refuses.now.store(false, Relaxed);
        node.until("all is delivered", || sink.taken.lock().len() == 100).await;
        assert_eq!((queue.trouble(), node.broker.storage_health()), (None, Ok(())));
        node.close().await;
    });
}

#[test]
fn a_get_is_refused_while_the_disk_cannot_be_read_and_works_again_afterwards() {
    in_paused_time(async {
        let (node, queue, refuses) = refused().await;
        let sink = Taker::default();
        let get = || async {
            let got = async {
                while node.broker.get(&Caller::system(), &queue, &sink, true).await? {}
                Ok::<_, leveret_model::refusal::Refusal>(())
            };
            tokio::time::timeout(Duration::from_secs(2), got).await.expect("an answer comes soon")
        };
        let refusal = get().await.unwrap_err();
        assert!(refusal.text.contains("'q'") && refusal.text.contains("wal/"), "{}", refusal.text);
        refuses.now.store(false, Relaxed);
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(get().await, Ok(()));
        assert_eq!(sink.taken.lock().len(), 100);
        node.close().await;
    });
}

#[test]
fn a_waiting_get_ends_when_the_queue_is_deleted() {
    in_paused_time(async {
        let (node, queue, _) = refused().await;
        let sink = Arc::new(Taker::default());
        let (broker, waits_for, takes) = (node.broker.clone(), queue.clone(), sink.clone());
        let get = tokio::spawn(async move {
            loop {
                match broker.get(&Caller::system(), &waits_for, &*takes, true).await {
                    Ok(true) => {}
                    other => return other,
                }
            }
        });
        tokio::time::sleep(Duration::from_millis(1)).await;
        node.broker.delete_queue(&Caller::system(), "/", "q", DeleteOnly::default()).await.unwrap();
        let answer = tokio::time::timeout(Duration::from_secs(2), get).await.expect("an answer comes soon").unwrap();
        assert!(answer.is_err());
        node.close().await;
    });
}

#[test]
fn a_node_that_cannot_list_its_archive_does_not_start() {
    in_paused_time(async {
        let refuses = Arc::new(Refuses { archive: true, ..Refuses::default() });
        let disk = Refusing { disk: FaultyDisk::new(2), refuses };
        let refused = TestNode::try_open(Arc::new(disk)).await.err().map(|error| error.to_string());
        assert_eq!(refused.as_deref(), Some("archive: permission denied"));
    });
}

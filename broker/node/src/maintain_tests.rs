//! Tests of contents that are moved or settled while they are being read or about to be, of files that are removed once
//! nothing needs them, and of reads and memory for many queues that share records.
use super::*;
use crate::place::Place;
use crate::queue::Queue;
use crate::read::RunReader;
use crate::test_node::{Confirmed, Refuses, Refusing, TestNode, in_paused_time};
use crate::upkeep::SNAPSHOT_AGAIN_ROUNDS;
use crate::{Caller, DeleteOnly, Trouble};
use leveret_journal::Disk;
use leveret_journal::faulty::FaultyDisk;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// The number of messages that fills the log so far that its oldest segments are relocated.
const MESSAGES: u64 = 300;
const SIZE: usize = 40_000;

/// Returns where the runs of a queue lie.
fn located(node: &TestNode, queue: &Queue) -> Vec<Place> {
    let contents = node.shards().contents(queue.id);
    queue.look(|state| state.runs().map(|(_, name)| contents.place(&name).unwrap()).collect())
}

/// Begins a read as the fetch task does: returns where the first runs lie, and keeps their files.
fn begin(node: &TestNode, queue: &Queue) -> (Vec<Place>, crate::files::FilePin) {
    let wanted = queue.look(|state| state.runs().take(20).collect());
    let (runs, reading) = node.shards().contents(queue.id).locate(wanted, u64::MAX);
    (runs.into_iter().map(|run| run.place.unwrap()).collect(), reading)
}

#[test]
fn files_stay_while_their_contents_are_about_to_be_read() {
    in_paused_time(async {
        let mut node = TestNode::open(Arc::new(FaultyDisk::new(1))).await;
        let queue = node.declare("q").await;
        node.publish_one_by_one(&queue, 0..20, SIZE).await;
        let (runs, reading) = begin(&node, &queue);
        node.publish_one_by_one(&queue, 20..MESSAGES, SIZE).await;
        node.keep_in_bounds().await;
        let now = located(&node, &queue);
        assert!(now.iter().zip(&runs).all(|(now, before)| now.file & ARCHIVE != 0 && before.file & ARCHIVE == 0));
        let journal = node.storage().groups.journal().clone();
        let read_all = |runs: &[Place]| {
            let mut reader = RunReader::new(&journal);
            runs.iter().map(|place| reader.read(place).map_err(|failure| failure.to_string())).collect()
        };
        let read: Result<Vec<_>, String> = read_all(&runs);
        assert_eq!(read.map(|runs| runs.len()), Ok(20));
        drop(reading);
        node.keep_in_bounds().await;
        let gone = read_all(&runs).unwrap_err();
        assert!(gone.contains("is not in the log any more"), "nobody reads it: its segment is used again, {gone}");
        assert_eq!(node.drain(&queue).await, (0..MESSAGES).collect::<Vec<_>>());
        node.close().await;
    });
}

#[test]
fn a_read_of_contents_that_were_relocated_and_purged_meanwhile_succeeds() {
    in_paused_time(async {
        let mut node = TestNode::open(Arc::new(FaultyDisk::new(2))).await;
        let queue = node.declare("q").await;
        node.publish_one_by_one(&queue, 0..MESSAGES, SIZE).await;
        for round in 0..6 {
            node.keep_in_bounds().await;
            let (runs, reading) = begin(&node, &queue);
            if round == 3 {
                node.broker.purge_queue(&Caller::system(), "/", "q").await.unwrap();
                node.until("the purge is logged", || queue.look(|queue| queue.depth().unacked) == 0).await;
                node.publish_one_by_one(&queue, 0..MESSAGES, SIZE).await;
            }
            node.keep_in_bounds().await;
            let journal = node.storage().groups.journal().clone();
            let mut reader = RunReader::new(&journal);
            assert!(runs.iter().all(|place| reader.read(place).is_ok()), "round {round}");
            drop(reading);
        }
        assert_eq!(node.drain(&queue).await, (0..MESSAGES).collect::<Vec<_>>());
        assert_eq!(node.broker.storage_health(), Ok(()));
        node.close().await;
    });
}

/// Returns the numbers of the archive's files, and how many segments of the log are in use.
fn files(node: &TestNode) -> (Vec<u64>, u32) {
    let journal = node.storage().groups.journal();
    (archive::list(&**journal.disk()).unwrap(), journal.usage().used)
}

#[test]
fn a_file_of_the_archive_that_is_mostly_dead_is_compacted_and_removed() {
    in_paused_time(async {
        let disk = FaultyDisk::new(3);
        let mut node = TestNode::open(Arc::new(disk.clone())).await;
        let (queue, other) = (node.declare("q").await, node.declare("other").await);
        // One message in forty-one goes to a queue that nobody consumes from.
        for at in 0..10 {
            node.publish_one_by_one(&other, at..at + 1, SIZE).await;
            node.publish_one_by_one(&queue, at * 40..at * 40 + 40, SIZE).await;
        }
        node.keep_in_bounds().await;
        let relocated = node.shards().files.now().range(ARCHIVE..).map(|(_, needed)| needed.size).sum::<u64>();
        assert!(relocated > 4 << 20, "{relocated}");
        assert_eq!(node.drain(&queue).await.len(), 400);
        for _ in 0..2 * COMPACT_EVERY_ROUNDS {
            node.keep_in_bounds().await;
        }
        let left = node.shards().files.now().range(ARCHIVE..).map(|(_, needed)| needed.size).sum::<u64>();
        assert!(left < 1 << 20, "{left} of {relocated}");
        assert_eq!(files(&node).0.len(), node.shards().files.now().range(ARCHIVE..).count());
        node.close().await;
        disk.end_process();
        let node = TestNode::open(Arc::new(disk.clone())).await;
        let other = node.broker.find_queue(&Caller::system(), "/", "other").unwrap();
        assert_eq!(node.drain(&other).await, (0..10).collect::<Vec<_>>());
        node.close().await;
    });
}

#[test]
fn an_unknown_file_in_the_archive_is_not_overwritten() {
    in_paused_time(async {
        let disk = FaultyDisk::new(4);
        let mut node = TestNode::open(Arc::new(disk.clone())).await;
        let queue = node.declare("q").await;
        disk.create("archive/0000000000000000", 5, false).unwrap();
        node.publish_one_by_one(&queue, 0..MESSAGES, SIZE).await;
        node.keep_in_bounds().await;
        assert_eq!(disk.open("archive/0000000000000000").unwrap().len().unwrap(), 5);
        assert!(files(&node).0.len() > 1);
        assert_eq!(node.drain(&queue).await, (0..MESSAGES).collect::<Vec<_>>());
        node.close().await;
    });
}

#[test]
fn a_deleted_queue_keeps_its_files_until_the_log_has_the_deletion() {
    in_paused_time(async {
        let mut node = TestNode::open(Arc::new(FaultyDisk::new(5))).await;
        let queue = node.declare("q").await;
        node.publish_one_by_one(&queue, 0..20, SIZE).await;
        let file = located(&node, &queue)[0].file;
        // The queue takes nothing any more, but the log does not have the deletion yet.
        queue.seal(|_| Ok(())).unwrap();
        node.keep_in_bounds().await;
        assert!(node.shards().files.now()[&file].is_needed());
        node.broker.delete_queue(&Caller::system(), "/", "q", DeleteOnly::default()).await.unwrap();
        node.until("its shard has the deletion", || node.shards().shard(queue.id).outbox.is_idle()).await;
        node.keep_in_bounds().await;
        assert!(node.shards().files.now().get(&file).is_none_or(|needed| !needed.is_needed()));
        node.close().await;
    });
}

#[test]
fn a_queue_whose_deletion_is_not_durable_is_complete_after_a_crash() {
    in_paused_time(async {
        let disk = FaultyDisk::new(12);
        let node = TestNode::open(Arc::new(disk.clone())).await;
        let queue = node.declare("q").await;
        node.publish_one_by_one(&queue, 0..20, SIZE).await;
        queue.seal(|_| Ok(())).unwrap();
        node.storage().groups.snapshot(node.shards().shard(queue.id).group).await.unwrap();
        disk.crash();
        node.broker.stop();
        let node = TestNode::open(Arc::new(disk.clone())).await;
        let queue = node.broker.find_queue(&Caller::system(), "/", "q").unwrap();
        assert_eq!(node.drain(&queue).await, (0..20).collect::<Vec<_>>());
        node.close().await;
    });
}

#[test]
fn records_that_many_queues_share_are_read_once_and_not_kept() {
    const QUEUES: u64 = 256;
    in_paused_time(async {
        let refuses = Arc::new(Refuses::default());
        let disk = Refusing { disk: FaultyDisk::new(6), refuses: refuses.clone() };
        let node = TestNode::open(Arc::new(disk)).await;
        let queues = node.declare_in_one_shard(QUEUES as usize).await;
        assert_eq!(queues.len() as u64, QUEUES);
        let confirmed = Arc::new(Confirmed::default());
        for round in 0..10 {
            for queue in &queues {
                node.publish(&[queue.id], round..round + 1, 1000, &confirmed);
            }
            node.until("it is confirmed", || *confirmed.0.lock() == (round + 1) * QUEUES).await;
        }
        let places: Vec<_> = queues.iter().flat_map(|queue| located(&node, queue)).collect();
        let records: BTreeMap<_, _> = places.iter().map(|place| ((place.file, place.offset), place.len)).collect();
        assert!(places.len() == 2560 && records.len() < 40, "{} records hold {} runs", records.len(), places.len());
        // A run that was read keeps only its own bytes in memory, not its whole record.
        let journal = node.storage().groups.journal().clone();
        let mut reader = RunReader::new(&journal);
        let (first, second) = (reader.read(&places[0]).unwrap(), reader.read(&places[1]).unwrap());
        drop(reader);
        let kept = |run: bytes::Bytes| run.try_into_mut().map(|run| run.capacity()).ok();
        assert!(kept(first).is_some_and(|bytes| bytes < 4096) && kept(second).is_some_and(|bytes| bytes < 4096));
        // A relocation reads each record once, not once for each queue.
        let before = refuses.reads.load(Relaxed);
        let files = places.iter().map(|place| place.file).collect();
        node.broker.relocate(node.storage(), &files, &mut Upkeep::default()).await.unwrap();
        let reads = refuses.reads.load(Relaxed) - before;
        assert!(reads <= records.len() as u64, "{reads} reads of {} records", records.len());
        assert!(queues.iter().flat_map(|queue| located(&node, queue)).all(|place| place.file & ARCHIVE != 0));
        assert_eq!(node.drain(&queues[200]).await, (0..10).collect::<Vec<_>>());
        node.close().await;
    });
}

#[test]
fn the_warm_contents_of_all_queues_together_are_bounded() {
    in_paused_time(async {
        let mut node = TestNode::open_with(Arc::new(FaultyDisk::new(10)), 8 << 20).await.unwrap();
        let mut sinks = Vec::new();
        for number in 0..100 {
            let queue = node.declare(&format!("q{number}")).await;
            node.publish_one_by_one(&queue, 0..5, SIZE).await;
            let sink = Arc::new(crate::test_node::Taker::default());
            let subscription = crate::Subscription { sink: sink.clone(), exclusive: false, no_ack: false, prefetch: 1 };
            sinks.push((queue.clone(), node.broker.subscribe(&Caller::system(), &queue, subscription).unwrap(), sink));
        }
        node.until("each has a message", || sinks.iter().all(|(.., sink)| sink.taken.lock().len() == 1)).await;
        node.keep_in_bounds().await;
        assert!(node.broker.memory().warm() < 2 << 20, "{} bytes", node.broker.memory().warm());
        for (queue, id, sink) in &sinks {
            let (first, _) = sink.taken.lock()[0];
            queue.enter().acknowledge(Some(*id), first.message.sequence, 1);
            node.broker.unsubscribe(queue, *id);
            assert_eq!(node.drain(queue).await, [1, 2, 3, 4]);
        }
        node.close().await;
    });
}

#[test]
fn runs_that_queues_share_are_copied_to_the_archive_once() {
    in_paused_time(async {
        let mut node = TestNode::open(Arc::new(FaultyDisk::new(11))).await;
        let queues = node.declare_in_one_shard(24).await;
        let ids: Vec<_> = queues.iter().map(|queue| queue.id).collect();
        let confirmed = Arc::new(Confirmed::default());
        (0..80).for_each(|number| node.publish(&ids, number..number + 1, SIZE, &confirmed));
        node.until("all is confirmed", || *confirmed.0.lock() == 80).await;
        let all = node.shards().files.now().into_keys().collect();
        let mut upkeep = Upkeep::default();
        node.broker.relocate(node.storage(), &all, &mut upkeep).await.unwrap();
        let copies = || node.shards().files.now().range(ARCHIVE..).filter(|(_, needed)| needed.is_needed()).count();
        assert_eq!(copies(), 1, "3 MB, although 24 queues have it");
        node.broker.compact(node.storage(), &mut upkeep).await.unwrap();
        assert_eq!(copies(), 1);
        assert_eq!(node.drain(&queues[20]).await, (0..80).collect::<Vec<_>>());
        node.keep_in_bounds().await;
        node.close().await;
    });
}

#[test]
fn an_unreadable_spot_of_the_disk_does_not_delay_other_relocations() {
    in_paused_time(async {
        let refuses = Arc::new(Refuses::default());
        let disk = FaultyDisk::new(8);
        let mut node = TestNode::open(Arc::new(Refusing { disk: disk.clone(), refuses: refuses.clone() })).await;
        let queue = node.declare("q").await;
        node.publish_one_by_one(&queue, 0..1, SIZE).await;
        let place = located(&node, &queue)[0];
        *refuses.spot.lock() = Some((segment_name(&disk, place.file), u64::from(place.offset)));
        // Publish more than the log holds.
        for part in 0..4 {
            node.publish_one_by_one(&queue, 1 + part * MESSAGES..1 + (part + 1) * MESSAGES, SIZE).await;
            node.keep_in_bounds().await;
        }
        let places = located(&node, &queue);
        assert_eq!(places[0], place, "it stays where it is");
        assert!(places[1..].iter().filter(|place| place.file & ARCHIVE != 0).count() > 3 * MESSAGES as usize / 2);
        // Now the disk can read it again.
        refuses.spot.lock().take();
        assert_eq!(node.drain(&queue).await, (0..1 + 4 * MESSAGES).collect::<Vec<_>>());
        node.close().await;
    });
}

#[test]
fn files_are_released_even_if_a_snapshot_finds_no_space() {
    in_paused_time(async {
        let disk = FaultyDisk::new(9);
        let mut node = TestNode::open(Arc::new(disk.clone())).await;
        let queue = node.declare("q").await;
        node.publish_one_by_one(&queue, 0..MESSAGES, SIZE).await;
        node.keep_in_bounds().await;
        assert!(!files(&node).0.is_empty(), "there is an archive");
        // The log of a group reaches back too far, and the disk has no free space.
        node.publish_one_by_one(&queue, MESSAGES..MESSAGES + 100, SIZE).await;
        disk.leave_free(0);
        assert_eq!(node.drain(&queue).await.len() as u64, MESSAGES + 100);
        let round = node.try_to_keep_in_bounds().await;
        assert!(round.is_err_and(|error| journal::is_passing(&error)), "no snapshot was written");
        assert_eq!(files(&node).0, [0; 0], "what nobody needs goes all the same");
        assert!(disk.list("groups").unwrap().iter().all(|name| !name.ends_with(".new")));
        for _ in 0..=SNAPSHOT_AGAIN_ROUNDS {
            node.keep_in_bounds().await;
        }
        assert_eq!(files(&node).1, 1, "the log is cut with the space that was made");
        node.close().await;
    });
}

/// Returns the name of the file that holds a segment of the log.
fn segment_name(disk: &FaultyDisk, segment: u64) -> String {
    let has_it = |name: &String| {
        let mut header = vec![0; 64];
        disk.open(&format!("wal/{name}")).and_then(|file| file.read_at(&mut header, 0)).ok()?;
        header.windows(8).any(|eight| eight == segment.to_le_bytes()).then(|| format!("wal/{name}"))
    };
    disk.list("wal").unwrap().iter().find_map(has_it).unwrap()
}

/// Flips a bit of message `at` of a queue. Returns the name of the file in which it lies, and how many messages lie before
/// its entry.
fn flip(disk: &FaultyDisk, node: &TestNode, queue: &Queue, at: usize) -> (String, usize) {
    let places = located(node, queue);
    let place = places[at];
    let name = segment_name(disk, place.file);
    disk.flip(&name, u64::from(place.offset + place.at) + 100);
    let of_one_entry = |other: &&Place| (other.file, other.offset) == (place.file, place.offset);
    (name, places.iter().take_while(|other| !of_one_entry(other)).count())
}

#[test]
fn damage_stops_one_queue_at_the_message_and_is_reported() {
    in_paused_time(async {
        let disk = FaultyDisk::new(7);
        let node = TestNode::open(Arc::new(disk.clone())).await;
        let (queue, other) = (node.declare("q").await, node.declare("other").await);
        node.publish_one_by_one(&queue, 0..50, SIZE).await;
        node.publish_one_by_one(&other, 0..50, SIZE).await;
        let (name, whole) = flip(&disk, &node, &queue, 30);
        let sink = Arc::new(crate::test_node::Taker::default());
        let subscription = crate::Subscription { sink: sink.clone(), exclusive: false, no_ack: true, prefetch: 0 };
        let id = node.broker.subscribe(&Caller::system(), &queue, subscription).unwrap();
        node.until("the damage is said", || queue.trouble().is_some()).await;
        node.until("what lies before it is delivered", || sink.taken.lock().len() == whole).await;
        assert!(matches!(queue.trouble(), Some(Trouble::Unreadable(reason)) if reason.contains(&name)));
        assert_eq!(node.broker.storage_usage().unwrap().unreadable, 1);
        let health = node.broker.storage_health().unwrap_err().to_string();
        assert!(health.contains("'q'") && health.contains(&name) && health.contains("offset"), "{health}");
        node.broker.unsubscribe(&queue, id);
        let refused = node.broker.get(&Caller::system(), &queue, &*sink, true).await.unwrap_err();
        assert!(refused.text.contains(&name), "{}", refused.text);
        assert_eq!(node.drain(&other).await, (0..50).collect::<Vec<_>>());
        // A purge removes the message that cannot be read, and the queue goes on.
        assert_eq!(node.broker.purge_queue(&Caller::system(), "/", "q").await.unwrap(), 50 - whole as u64);
        node.publish_one_by_one(&queue, 60..70, SIZE).await;
        assert_eq!(node.drain(&queue).await, (60..70).collect::<Vec<_>>());
        assert_eq!((queue.trouble(), node.broker.storage_health()), (None, Ok(())));
        node.close().await;
    });
}

#[test]
fn the_log_is_cut_soon_unless_the_snapshot_is_large() {
    let behind = |segments_max, snapshot_bytes| {
        let usage = journal::LogUsage { segments_max, ..journal::LogUsage::default() };
        behind_max(&usage, 64 << 20, snapshot_bytes)
    };
    assert_eq!([behind(64, 0), behind(64, 32 << 20), behind(64, 40 << 20), behind(64, 1 << 40)], [2, 2, 3, 4]);
    assert_eq!([behind(8, 0), behind(8, 1 << 30), behind(4, 0), behind(2, 1 << 30)], [2, 2, 1, 1]);
}

#[test]
fn missing_archive_contents_are_reported_at_the_start() {
    in_paused_time(async {
        for (what, says) in [("lost", "is missing"), ("emptied", "is damaged: it has 0 bytes")] {
            let disk = FaultyDisk::new(6);
            let mut node = TestNode::open(Arc::new(disk.clone())).await;
            let queue = node.declare("q").await;
            node.publish_one_by_one(&queue, 0..MESSAGES, SIZE).await;
            node.keep_in_bounds().await;
            let name = archive::name(*files(&node).0.last().unwrap());
            node.close().await;
            match what {
                "lost" => disk.lose(&name),
                _ => disk.truncate(&name, 0),
            }
            let node = TestNode::open(Arc::new(disk.clone())).await;
            let said = node.broker.unreadable();
            assert!(said.len() == 1 && said[0].starts_with(&format!("{name} {says}")), "{what}: {said:?}");
            assert!(node.broker.storage_health().is_err());
            node.close().await;
        }
    });
}

#[test]
fn compaction_of_the_archive_is_completed_even_on_an_idle_node() {
    in_paused_time(async {
        let node = TestNode::open(Arc::new(FaultyDisk::new(3))).await;
        let (queue, other) = (node.declare("q").await, node.declare("other").await);
        // One message in five goes to a queue that nobody consumes from: more than is compacted in one round.
        for at in 0..300 {
            node.publish_one_by_one(&other, at..at + 1, 60_000).await;
            node.publish_one_by_one(&queue, at * 4..at * 4 + 4, 60_000).await;
        }
        assert_eq!(node.drain(&queue).await.len(), 1200);
        let size = || node.shards().files.now().range(ARCHIVE..).map(|(_, needed)| needed.size).sum::<u64>();
        let before = size();
        assert!(before > 64 << 20, "{before}");
        tokio::time::sleep(Duration::from_secs(600)).await;
        assert!(size() < 30 << 20, "{} of {before} bytes are left", size());
        node.close().await;
    });
}

#[test]
fn purged_messages_do_not_come_back_after_a_crash() {
    in_paused_time(async {
        for seed in 0..5 {
            let disk = FaultyDisk::new(seed);
            let node = TestNode::open(Arc::new(disk.clone())).await;
            let queue = node.declare("q").await;
            node.publish_one_by_one(&queue, 0..30, 1_000).await;
            assert_eq!(node.broker.purge_queue(&Caller::system(), "/", "q").await.unwrap(), 30);
            disk.crash();
            node.broker.stop();
            let node = TestNode::open(Arc::new(disk.clone())).await;
            let queue = node.broker.find_queue(&Caller::system(), "/", "q").unwrap();
            assert_eq!(queue.look(|state| state.depth().body_bytes), 0, "seed {seed}");
            node.close().await;
        }
    });
}

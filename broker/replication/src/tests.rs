//! Tests of the log store with openraft's own suite, and of groups that are stopped, crashed and opened again.
mod attacks;
pub(crate) mod cluster;
mod disk;
pub(crate) mod net;
mod replicas;

use crate::leadership::Leadership;
use crate::log_store::{LogStore, RecoveredLog};
use crate::state_machine::Machine;
use crate::types::{StoredMembership, TypeConfig};
use crate::*;
use leveret_journal::faulty::FaultyDisk;
use leveret_journal::{Disk, Journal, JournalOptions};
use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

/// A state that is a list of entries per group.
#[derive(Default)]
struct Lists(Mutex<BTreeMap<GroupId, Vec<Vec<u8>>>>);

impl GroupStates for Lists {
    fn apply(&self, group: GroupId, entry: &AppliedEntry) -> Result<(), String> {
        assert_eq!(entry.place.len as usize, entry.bytes.len());
        self.0.lock().entry(group).or_default().push(entry.bytes.to_vec());
        Ok(())
    }

    fn follow_up(&self, _: GroupId) {}

    fn snapshot(&self, group: GroupId) -> Result<GroupSnapshot, String> {
        let lists = self.0.lock();
        let entries = lists.get(&group).into_iter().flatten();
        let state = entries.flat_map(|entry| [&[entry.len() as u8], &entry[..]].concat()).collect();
        Ok(GroupSnapshot { state, local: vec![7; usize::from(group)] })
    }

    fn restore(&self, group: GroupId, snapshot: &GroupSnapshot) -> Result<(), String> {
        assert!(snapshot.local.is_empty() || snapshot.local == vec![7; usize::from(group)]);
        let (mut entries, mut snapshot) = (Vec::new(), &snapshot.state[..]);
        while let Some((&len, rest)) = snapshot.split_first() {
            let (entry, rest) = rest.split_at(usize::from(len));
            entries.push(entry.to_vec());
            snapshot = rest;
        }
        self.0.lock().insert(group, entries);
        Ok(())
    }
}

fn journal_options() -> JournalOptions {
    JournalOptions {
        node: 1,
        segment_bytes: 64 << 10,
        segments_max: 16,
        segments_reserved: 2,
        made: false,
        on_failure: Arc::new(|_| ()),
        driver: None,
    }
}

fn log_store(journal: Journal, log: RecoveredLog) -> LogStore {
    LogStore::new(journal, log, Leadership::new(0, 1, Arc::<Lists>::default(), None))
}

struct Builder;

impl StoreBuilder<TypeConfig, LogStore, Machine> for Builder {
    async fn build(&self) -> Result<((), LogStore, Machine), StorageError<TypeConfig>> {
        let disk: Arc<dyn Disk> = Arc::new(FaultyDisk::new(1));
        let journal = Journal::open(disk.clone(), journal_options(), &mut |_| ()).unwrap();
        let log = log_store(journal, RecoveredLog::read(&*disk, 0).unwrap());
        let machine = Machine {
            group: 0,
            disk,
            applied: Arc::new(Lists::default()),
            log: log.clone(),
            last: None,
            membership: StoredMembership::default(),
            builds: Arc::default(),
            threads: false,
        };
        Ok(((), log, machine))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_log_store_passes_the_suite_of_openraft() {
    Suite::test_all(Builder).await.unwrap();
}

async fn open(disk: &FaultyDisk) -> (Groups, Arc<Lists>) {
    let lists = Arc::new(Lists::default());
    let options = GroupsOptions { node: 1, groups: 3 };
    let groups = Groups::open(Arc::new(disk.clone()), journal_options(), options, lists.clone(), None).await;
    (groups.unwrap(), lists)
}

fn entries(of: &Lists, group: GroupId) -> Vec<Vec<u8>> {
    of.0.lock().get(&group).cloned().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn applied_entries_survive_a_crash() {
    for seed in 0..20 {
        let disk = FaultyDisk::new(seed);
        let mut expected: BTreeMap<GroupId, Vec<Vec<u8>>> = BTreeMap::new();
        for round in 0..4u8 {
            let (groups, lists) = open(&disk).await;
            for group in 0..3 {
                assert_eq!(entries(&lists, group), expected.get(&group).cloned().unwrap_or_default());
            }
            for at in 0..10u8 {
                let group = u16::from(at % 3);
                let entry = vec![round, at, 7];
                groups.write(group, entry.clone().into()).await.unwrap();
                expected.entry(group).or_default().push(entry);
                if seed % 2 == 0 && at == 5 {
                    groups.snapshot(group).await.unwrap();
                }
            }
            if seed % 3 == 0 {
                groups.stop().await;
            }
            disk.crash();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_purges_the_log() {
    let disk = FaultyDisk::new(3);
    let (groups, lists) = open(&disk).await;
    for at in 0..200u8 {
        let term = groups.leader(1).unwrap().term;
        groups.submit(1, term, vec![at; 200].into(), Box::new(|outcome| assert!(outcome.is_ok()))).await;
    }
    groups.write(1, vec![1].into()).await.unwrap();
    assert_eq!(entries(&lists, 1).len(), 201);
    let before = groups.log_len(1);
    groups.snapshot(1).await.unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while groups.log_len(1) > 1 {
        assert!(std::time::Instant::now() < deadline, "{} of {before} entries are left", groups.log_len(1));
        tokio::task::yield_now().await;
    }
    groups.stop().await;
    let (_, again) = open(&disk).await;
    assert_eq!(entries(&again, 1), entries(&lists, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_without_its_snapshot_does_not_start_and_names_the_file() {
    let disk = FaultyDisk::new(4);
    let (groups, _) = open(&disk).await;
    groups.write(1, vec![1].into()).await.unwrap();
    groups.snapshot(1).await.unwrap();
    groups.write(1, vec![2].into()).await.unwrap();
    groups.stop().await; // the purged index is in the journal then
    disk.lose("groups/1.snapshot");
    let options = GroupsOptions { node: 1, groups: 3 };
    let opened =
        Groups::open(Arc::new(disk.clone()), journal_options(), options, Arc::new(Lists::default()), None).await;
    let refused = opened.err().unwrap().to_string();
    assert!(refused.contains("groups/1.snapshot is missing"), "{refused}");
}

/// Appends nine entries, truncates the log to five and stops it. Returns how many entries the log has when it is opened
/// again.
async fn truncate_and_reopen() -> usize {
    use openraft::RaftLogReader;
    use openraft::storage::{RaftLogStorage, RaftLogStorageExt};
    let disk = FaultyDisk::new(1);
    let (_, mut log, _) = Builder::on(&disk);
    let blank = |index| types::entry(types::log_id(1, index), openraft::EntryPayload::Blank);
    log.blocking_append((0..9).map(blank)).await.unwrap();
    log.truncate_after(Some(types::log_id(1, 4))).await.unwrap();
    log.journal.stop();
    let (_, mut log, _) = Builder::on(&disk);
    log.try_get_log_entries(0..100).await.unwrap().len()
}

impl Builder {
    fn on(disk: &FaultyDisk) -> ((), LogStore, ()) {
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let mut log = RecoveredLog::read(&*shared, 0).unwrap();
        let journal = Journal::open(shared, journal_options(), &mut |recovered| log.add(recovered));
        ((), log_store(journal.unwrap(), log), ())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn entries_are_read_piece_by_piece_while_they_are_applied() {
    use futures::StreamExt;
    use leveret_journal::faulty::{Call, DiskTrouble, Errno};
    use openraft::RaftLogReader;
    use openraft::storage::RaftLogStorageExt;
    let disk = FaultyDisk::new(1);
    let options = JournalOptions { segment_bytes: 1 << 20, ..journal_options() };
    let journal = Journal::open(Arc::new(disk.clone()), options, &mut |_| ()).unwrap();
    let mut log = log_store(journal, RecoveredLog::default());
    let entry = |index| {
        let command = types::Command::new(vec![7; 100_000].into());
        types::entry(types::log_id(1, index), openraft::EntryPayload::Normal(command))
    };
    log.blocking_append((0..40).map(entry)).await.unwrap();
    log.table.lock().applied(39); // so that their bytes are only in the journal
    disk.expect(DiskTrouble { calls: vec![Call::Read], error: Errno::Io, after: 20, times: 1 });
    let entries: Vec<_> = Box::pin(log.entries_stream(0..40).await).collect().await;
    let read = entries.iter().take_while(|entry| entry.is_ok()).count();
    assert!((1..=20).contains(&read) && entries.len() == read + 1, "{read} of {}", entries.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn truncated_entries_do_not_come_back() {
    assert_eq!(truncate_and_reopen().await, 5);
    mutants::TRUNCATE_SKIPPED.store(true, SeqCst);
    let entries = truncate_and_reopen().await;
    mutants::TRUNCATE_SKIPPED.store(false, SeqCst);
    assert_eq!(entries, 9, "the check above must fail if the truncation is not in the journal");
}

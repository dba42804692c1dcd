//! Tests of groups on a disk that is full, slow, out of file descriptors, or has lost or damaged files.
use super::*;
use crate::log_table::{BLANK, Hole, LogTable, PURGED};
use crate::snapshot_data::{SnapshotData, WholeSnapshot};
use crate::{snapshot, types};
use leveret_journal::{DiskFile, Head, is_passing, write_whole};
use openraft::alias::SnapshotMetaOf;
use openraft::storage::{RaftLogReader, RaftLogStorage, RaftSnapshotBuilder, RaftStateMachine};
use parking_lot::Condvar;
use std::io;
use std::sync::atomic::AtomicBool;

/// A disk on which creating files can fail or wait, and opening them can fail.
struct HinderedDisk {
    disk: FaultyDisk,
    no_descriptors: AtomicBool,
    slow: Mutex<bool>,
    /// True once a thread has waited to create a file.
    waits: AtomicBool,
    /// Wakes the threads that wait to create a file.
    resume: Condvar,
}

impl HinderedDisk {
    fn new(disk: FaultyDisk) -> Arc<Self> {
        let (no_descriptors, waits) = (AtomicBool::new(false), AtomicBool::new(false));
        Arc::new(Self { disk, no_descriptors, slow: Mutex::new(false), waits, resume: Condvar::new() })
    }

    fn descriptor(&self) -> io::Result<()> {
        if self.no_descriptors.load(SeqCst) { Err(io::Error::from_raw_os_error(24)) } else { Ok(()) }
    }
}

impl Disk for HinderedDisk {
    fn create(&self, name: &str, len: u64, zeroed: bool) -> io::Result<Arc<dyn DiskFile>> {
        self.descriptor()?;
        let mut slow = self.slow.lock();
        while *slow {
            self.waits.store(true, SeqCst);
            self.resume.wait(&mut slow);
        }
        drop(slow);
        self.disk.create(name, len, zeroed)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.descriptor()?;
        self.disk.open(name)
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        self.descriptor()?;
        self.disk.list(folder)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn sync_folder(&self, folder: &str) -> io::Result<()> {
        self.descriptor()?;
        self.disk.sync_folder(folder)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.disk.free_bytes()
    }

    fn total_bytes(&self) -> io::Result<u64> {
        self.disk.total_bytes()
    }
}

async fn open_on(disk: Arc<dyn Disk>, applied: Arc<dyn GroupStates>) -> Result<Groups, GroupsOpenError> {
    Groups::open(disk, journal_options(), GroupsOptions { node: 1, groups: 3 }, applied, None).await
}

async fn refused(disk: &FaultyDisk) -> String {
    open_on(Arc::new(disk.clone()), Arc::<Lists>::default()).await.err().unwrap().to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_with_a_missing_or_old_snapshot_is_refused_and_names_the_file() {
    let disk = FaultyDisk::new(1);
    let (groups, _) = open(&disk).await;
    let mut older = None;
    for round in 0..2u8 {
        older = disk.open("groups/1.snapshot").ok().map(|file| {
            let mut bytes = vec![0; file.len().unwrap() as usize];
            file.read_at(&mut bytes, 0).unwrap();
            bytes
        });
        for _ in 0..3 {
            groups.write(1, vec![round].into()).await.unwrap();
        }
        groups.snapshot(1).await.unwrap();
    }
    let cut = async {
        while groups.log_len(1) > 1 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), cut).await.unwrap();
    groups.stop().await;
    let removed = disk.fork();
    removed.remove("groups/1.snapshot").unwrap();
    let said = refused(&removed).await;
    assert!(said.starts_with("groups/1.snapshot is missing: the log of group 1 was cut at entry"), "{said}");
    let old = disk.fork();
    let older = older.unwrap();
    write_whole(&old, "groups/1.snapshot", &[&older[..older.len() - 4]]).unwrap();
    let said = refused(&old).await;
    assert!(said.starts_with("groups/1.snapshot is older than the log"), "{said}");
    open(&disk).await.0.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_with_an_unreadable_entry_is_refused_and_names_file_and_offset() {
    let disk = FaultyDisk::new(1);
    let (groups, _) = open(&disk).await;
    for at in 0..9u8 {
        groups.write(u16::from(at % 3), vec![at; 50].into()).await.unwrap();
    }
    let place = groups.group(1).log.table.lock().find(3).unwrap().slot.place;
    assert_eq!((place.segment, place.len), (1, 50));
    groups.stop().await;
    disk.flip("wal/000", u64::from(place.offset));
    let said = tokio::time::timeout(std::time::Duration::from_secs(10), refused(&disk)).await.unwrap();
    assert!(said.contains(&format!("wal/000 is damaged at offset {}", place.offset - 72)), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_start_and_take_entries_on_a_full_disk() {
    let disk = FaultyDisk::new(1);
    let (groups, lists) = open(&disk).await;
    groups.write(1, vec![1].into()).await.unwrap();
    groups.stop().await;
    for _ in 0..20 {
        disk.end_process();
        let next = disk.clone();
        next.set_full(true);
        let (groups, again) = open(&next).await;
        assert_eq!(entries(&again, 1)[..1], entries(&lists, 1)[..1]);
        groups.write(1, vec![2].into()).await.unwrap();
        let refused = groups.snapshot(1).await.unwrap_err();
        assert!(is_passing(&refused), "{refused}");
        next.set_full(false);
        groups.snapshot(1).await.unwrap();
        groups.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_fails_for_want_of_descriptors_can_be_repeated_later() {
    let disk = HinderedDisk::new(FaultyDisk::new(1));
    let groups = open_on(disk.clone(), Arc::<Lists>::default()).await.unwrap();
    groups.write(1, vec![1].into()).await.unwrap();
    disk.no_descriptors.store(true, SeqCst);
    for _ in 0..3 {
        let refused = groups.snapshot(1).await.unwrap_err();
        assert!(is_passing(&refused), "{refused}");
        groups.write(1, vec![2].into()).await.unwrap();
    }
    disk.no_descriptors.store(false, SeqCst);
    groups.snapshot(1).await.unwrap();
    groups.write(1, vec![3].into()).await.unwrap();
    groups.stop().await;
}

#[tokio::test]
async fn a_snapshot_may_take_long() {
    let disk = HinderedDisk::new(FaultyDisk::new(1));
    let groups = open_on(disk.clone(), Arc::<Lists>::default()).await.unwrap();
    groups.write(1, vec![1].into()).await.unwrap();
    *disk.slow.lock() = true;
    let snapshot = tokio::spawn({
        let groups = groups.clone();
        async move { groups.snapshot(1).await }
    });
    while !disk.waits.load(SeqCst) {
        tokio::task::yield_now().await;
    }
    // Many times `CHECK_EVERY`.
    let begun = std::time::Instant::now();
    while begun.elapsed() < std::time::Duration::from_millis(200) {
        tokio::task::yield_now().await;
    }
    groups.write(1, vec![2].into()).await.unwrap();
    assert!(!snapshot.is_finished());
    *disk.slow.lock() = false;
    disk.resume.notify_all();
    snapshot.await.unwrap().unwrap();
    groups.stop().await;
}

/// A node that does not exist any more, so that it can neither apply entries nor return a state.
struct GoneNode;

impl GroupStates for GoneNode {
    fn apply(&self, _: GroupId, _: &AppliedEntry) -> Result<(), String> {
        Err("nobody is there".to_owned())
    }

    fn follow_up(&self, _: GroupId) {}

    fn snapshot(&self, _: GroupId) -> Result<GroupSnapshot, String> {
        Err("nobody is there".to_owned())
    }

    fn restore(&self, _: GroupId, _: &GroupSnapshot) -> Result<(), String> {
        Err("nobody is there".to_owned())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_gone_writes_no_empty_snapshot_and_skips_no_entry() {
    let disk = FaultyDisk::new(1);
    let groups = open_on(Arc::new(disk.clone()), Arc::new(GoneNode)).await.unwrap();
    assert!(groups.write(1, vec![1].into()).await.is_err(), "the entry must not count as applied");
    let refused = groups.snapshot(2).await.unwrap_err();
    assert_eq!(refused.to_string(), "nobody is there");
    assert!(disk.open("groups/2.snapshot").is_err(), "no snapshot should be written");
    groups.stop().await;
    let (_, lists) = open(&disk).await;
    assert_eq!(entries(&lists, 1), [[1]], "the entry should be in the log nevertheless");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn votes_in_the_file_of_the_previous_version_are_taken_over() {
    use openraft::storage::RaftLogStorageExt;
    let disk = FaultyDisk::new(1);
    let (_, mut log, _) = Builder::on(&disk);
    let members = openraft::Membership::new(vec![[1].into()], BTreeMap::from([(1, GroupMember::default())])).unwrap();
    let payloads = [openraft::EntryPayload::Membership(members), openraft::EntryPayload::Blank];
    let entries = (0..).zip(payloads).map(|(index, payload)| types::entry(types::log_id(1, index), payload));
    log.blocking_append(entries).await.unwrap();
    log.journal.stop();
    let mut file = vec![1, 1];
    for long in [70u64, 1] {
        file.extend_from_slice(&long.to_le_bytes());
    }
    file.push(1);
    file.extend_from_slice(&[0; 24]);
    write_whole(&disk, "groups/0.state", &[&file]).unwrap();
    let (groups, _) = open(&disk).await;
    let term = |groups: &Groups| {
        use openraft::async_runtime::watch::WatchReceiver;
        groups.group(0).raft.metrics().borrow_watched().current_term
    };
    let first = term(&groups);
    assert!(first >= 70, "{first}");
    groups.stop().await;
    assert!(disk.open("groups/0.state").is_err(), "the file should be removed, since the journal has a newer vote");
    let (groups, _) = open(&disk).await;
    assert!(term(&groups) > first);
    groups.stop().await;
}

#[test]
fn missing_entries_are_a_hole_unless_they_were_purged() {
    let record = |kind, index| (Head { group: 1, kind, index, term: 1, note: 0 }, RecordPlace::default());
    let read = |records: &[(Head, RecordPlace)]| {
        let mut table = LogTable::default();
        records.iter().for_each(|(head, place)| table.recovered(*head, *place));
        (table.hole(), table.first(), table.next())
    };
    assert_eq!(read(&[record(BLANK, 0), record(BLANK, 1)]), (None, 0, 2));
    assert_eq!(read(&[record(BLANK, 5)]).0, Some(Hole { expected: 0, found: 5 }));
    assert_eq!(read(&[record(PURGED, 4), record(BLANK, 5)]), (None, 5, 6));
    assert_eq!(read(&[record(PURGED, 3), record(BLANK, 5)]).0, Some(Hole { expected: 4, found: 5 }));
    assert_eq!(read(&[record(PURGED, 1), record(BLANK, 5), record(BLANK, 6), record(PURGED, 5)]), (None, 6, 7));
    assert_eq!(read(&[record(PURGED, 1), record(BLANK, 5), record(PURGED, 3)]).0, Some(Hole { expected: 2, found: 5 }));
    assert_eq!(read(&[record(PURGED, 9), record(BLANK, 3), record(BLANK, 10)]), (None, 10, 11));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_is_being_written_does_not_replace_a_newer_one_of_another_node() {
    let disk = HinderedDisk::new(FaultyDisk::new(1));
    let journal = Journal::open(disk.clone(), journal_options(), &mut |_| ()).unwrap();
    let log = log_store(journal, RecoveredLog::read(&*disk, 0).unwrap());
    let mut machine = Machine {
        group: 0,
        disk: disk.clone(),
        applied: Arc::new(Lists::default()),
        log,
        last: Some(types::log_id(1, 3)),
        membership: StoredMembership::default(),
        builds: Arc::default(),
        threads: true,
    };
    let newer = types::log_id(1, 9);
    for build_is_first in [true, false] {
        machine.last = Some(types::log_id(1, 3));
        let mut builder = machine.get_snapshot_builder().await;
        *disk.slow.lock() = true;
        disk.waits.store(false, SeqCst);
        let build = async move { builder.build_snapshot().await.map(|built| built.meta.last_log_id) };
        let whole =
            WholeSnapshot { last: newer, membership: StoredMembership::default(), state: vec![1, 7], chain: Some(5) };
        let meta = SnapshotMetaOf::<TypeConfig> { last_log_id: Some(newer), ..SnapshotMetaOf::<TypeConfig>::default() };
        let mut installing = machine.clone();
        let install = async move { installing.install_snapshot(&meta, SnapshotData::Received(whole)).await };
        let waits = async || {
            while !disk.waits.load(SeqCst) {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
        };
        let (built, installed) = if build_is_first {
            let build = tokio::spawn(build);
            waits().await;
            let install = tokio::spawn(install);
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            *disk.slow.lock() = false;
            disk.resume.notify_all();
            (build.await.unwrap(), install.await.unwrap())
        } else {
            let install = tokio::spawn(install);
            waits().await;
            let build = tokio::spawn(build);
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            *disk.slow.lock() = false;
            disk.resume.notify_all();
            let installed = install.await.unwrap();
            (build.await.unwrap(), installed)
        };
        installed.unwrap();
        assert!(built.unwrap() >= Some(types::log_id(1, 3)));
        let stored = snapshot::read(&*disk, 0).unwrap().unwrap();
        assert_eq!(stored.last, Some(newer), "build first: {build_is_first}");
        disk.remove("groups/0.snapshot").unwrap();
        machine.builds = Arc::default();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_read_of_entries_for_a_peer_has_no_more_bytes_than_it_may_unless_the_first_entry_has() {
    let disk: Arc<dyn Disk> = Arc::new(FaultyDisk::new(1));
    let options = JournalOptions { segment_bytes: 8 << 20, ..journal_options() };
    let journal = Journal::open(disk.clone(), options, &mut |_| ()).unwrap();
    let mut log = log_store(journal, RecoveredLog::read(&*disk, 0).unwrap());
    let sizes = [100, 700 << 10, 700 << 10, 2 << 20, 100];
    let entry = |(index, size): (u64, usize)| {
        let command = types::Command::new(vec![7; size].into());
        types::entry(types::log_id(1, index), openraft::EntryPayload::Normal(command))
    };
    let entries: Vec<_> = (0..).zip(sizes).map(entry).collect();
    log.append(entries, openraft::storage::IOFlushed::noop()).await.unwrap();
    let mut read = Vec::new();
    let mut from = 0;
    while from < sizes.len() as u64 {
        let some = log.limited_get_log_entries(from, sizes.len() as u64).await.unwrap();
        read.push(some.len());
        from += some.len() as u64;
    }
    assert_eq!(read, [2, 1, 1, 1]);
}

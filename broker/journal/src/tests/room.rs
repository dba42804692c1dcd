//! Tests of room in the log: promises of room, room after a restart and on a full disk, files that are swept or removed.
use super::*;

fn large(index: u64) -> (Head, Bytes) {
    (head(index), Bytes::from(vec![0; 4000]))
}

/// Ends a promise of room, and appends the record that it was given for.
fn redeem(journal: &Journal, index: u64) {
    let (head, body) = large(index);
    journal.redeem(body.len());
    journal.append(head, body, true, None).unwrap();
}

#[test]
fn a_record_with_a_promise_finds_room_however_late_it_is_appended() {
    let _one_at_a_time = MUTANT.lock();
    let (disk, failures) = (FaultyDisk::new(1), Arc::<AtomicUsize>::default());
    let journal = Journal::open(Arc::new(disk), options(&failures), &mut |_| ()).unwrap();
    let (mut promised, mut index) = (0, 0);
    append(&journal, 1..2, 1);
    until(&journal, |usage| {
        while journal.promise(4000, false) {
            promised += 1;
        }
        while promised > 0 && usage.used < 6 {
            promised -= 1;
            index += 1;
            redeem(&journal, index);
        }
        usage.used >= 6
    });
    assert!(!journal.promise(4000, false), "publishes must leave half of the reserve: {:?}", journal.usage());
    assert!(!journal.has_room());
    let mut settled = 0;
    until(&journal, |usage| {
        while journal.promise(4000, true) {
            settled += 1;
        }
        usage.used + settled >= 7
    });
    for _ in 0..promised + settled {
        index += 1;
        redeem(&journal, index);
    }
    journal.append(head(0), Bytes::new(), true, None).unwrap();
    journal.flush().unwrap();
    journal.release(journal.usage().current, &|_| false);
    until(&journal, |_| journal.promise(4000, false));
    assert_eq!(failures.load(SeqCst), 0);
}

#[test]
fn room_is_promised_only_in_files_that_exist() {
    let _one_at_a_time = MUTANT.lock();
    let disk = FaultyDisk::new(1);
    let (journal, _) = open(&disk).unwrap();
    append(&journal, 1..3, 1);
    until(&journal, |_| disk.list("wal").unwrap().len() >= 4);
    let files = disk.list("wal").unwrap().len() as u32;
    disk.set_full(true);
    let mut index = 3;
    while journal.promise(4000, true) {
        index += 1;
        redeem(&journal, index);
        // Lets the log try again to create a file. That still fails, as it does for want of file descriptors.
        journal.look_for_space();
    }
    assert!(journal.usage().used >= 3 && disk.list("wal").unwrap().len() as u32 == files, "{:?}", journal.usage());
    disk.set_full(false);
    until(&journal, |_| {
        journal.look_for_space();
        journal.promise(4000, true)
    });
}

#[test]
fn control_records_get_a_file_beyond_segments_max_if_necessary() {
    let _one_at_a_time = MUTANT.lock();
    let disk = FaultyDisk::new(1);
    let (journal, _) = open(&disk).unwrap();
    for index in 1..9 {
        let (head, body) = large(index);
        journal.append(head, body, true, None).unwrap();
        journal.append(head, Bytes::from(vec![0; 3000]), true, None).unwrap();
    }
    journal.flush().unwrap();
    assert_eq!(journal.usage().available, 0, "{:?}", journal.usage());
    assert!(!journal.promise(4000, false));
    until(&journal, |_| journal.promise(4000, true));
    assert!((9..=10).contains(&disk.list("wal").unwrap().len()));
}

/// Waits until `done` returns true of the journal's usage, while the journal does its idle work.
fn until(journal: &Journal, mut done: impl FnMut(LogUsage) -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while !done(journal.usage()) {
        assert!(std::time::Instant::now() < deadline, "{:?}", journal.usage());
        std::thread::yield_now();
    }
}

/// Returns whether exactly one file has a segment header, so all others were swept.
fn swept(disk: &FaultyDisk) -> bool {
    let names = disk.list("wal").unwrap();
    let mut headers = 0;
    for name in names {
        let mut bytes = [0; format::SEGMENT_HEAD];
        disk.open(&format!("wal/{name}")).unwrap().read_at(&mut bytes, 0).unwrap();
        headers += usize::from(format::SegmentHeader::decode(&bytes).is_some());
    }
    headers == 1
}

#[test]
fn freed_segments_are_free_after_a_restart_on_a_full_disk() {
    let _one_at_a_time = MUTANT.lock();
    let disk = FaultyDisk::new(1);
    let (journal, _) = open(&disk).unwrap();
    let mut index = 0;
    while journal.has_room() {
        index += 1;
        let (head, body) = large(index);
        journal.append(head, body, false, None).unwrap();
    }
    journal.flush().unwrap();
    journal.release(journal.usage().current, &|_| false);
    until(&journal, |_| swept(&disk));
    journal.stop();
    disk.set_full(true);
    let (journal, _) = open(&disk).unwrap();
    let usage = journal.usage();
    assert_eq!(usage.used, 1, "{usage:?}");
    while journal.promise(4000, true) {
        index += 1;
        redeem(&journal, index);
    }
    assert!(journal.usage().used > 2, "the free files should be used: {:?}", journal.usage());
}

#[test]
fn a_file_that_a_promise_needs_is_not_swept_meanwhile() {
    let _one_at_a_time = MUTANT.lock();
    let (disk, failures) = (FaultyDisk::new(1), Arc::<AtomicUsize>::default());
    let journal = Journal::open(Arc::new(disk.clone()), options(&failures), &mut |_| ()).unwrap();
    let mut index = 0;
    until(&journal, |usage| {
        while journal.promise(4000, true) {
            index += 1;
            redeem(&journal, index);
        }
        usage.used >= usage.segments_max
    });
    disk.leave_free(0);
    journal.flush().unwrap();
    disk.set_slow(std::time::Duration::from_millis(2));
    for _ in 0..200 {
        journal.release(journal.usage().first + 1, &|_| false);
        let mut promised = 0;
        while promised == 0 || journal.usage().available > 0 && journal.promise(4000, true) {
            promised += u32::from(promised > 0 || journal.promise(4000, true));
        }
        for _ in 0..promised {
            index += 1;
            redeem(&journal, index); // has to find room whether or not a file is being swept
        }
        journal.flush().unwrap();
    }
    assert_eq!(failures.load(SeqCst), 0);
}

#[test]
fn files_beyond_segments_max_are_removed_once_they_are_free() {
    let _one_at_a_time = MUTANT.lock();
    let disk = FaultyDisk::new(1);
    let (journal, _) = open(&disk).unwrap();
    for index in 1..14 {
        let (head, body) = large(index);
        journal.append(head, body, true, None).unwrap();
    }
    journal.flush().unwrap();
    assert!(journal.usage().used > 8);
    journal.release(journal.usage().current, &|_| false);
    until(&journal, |_| disk.list("wal").unwrap().len() == 8 && swept(&disk));
    journal.stop();
    assert_eq!(open(&disk).unwrap().0.usage().used, 1);
}

#[test]
fn a_log_whose_files_were_removed_fails_and_names_the_file() {
    let _one_at_a_time = MUTANT.lock();
    for name in ["wal/000", "wal.proof"] {
        let root = std::env::temp_dir().join(format!("leveret-removed-{}", std::process::id()));
        std::fs::create_dir_all(&root).unwrap();
        let said: Arc<Mutex<Vec<String>>> = Arc::default();
        let told = said.clone();
        let on_failure = Arc::new(move |reason| told.lock().push(reason));
        let options = JournalOptions { on_failure, segments_max: 1, segments_reserved: 0, ..options(&Arc::default()) };
        let journal = Journal::open(Arc::new(RealDisk::new(root.clone())), options, &mut |_| ()).unwrap();
        append(&journal, 1..3, 1);
        journal.look_for_space();
        assert!(said.lock().is_empty());
        std::fs::remove_file(root.join(name)).unwrap();
        journal.look_for_space();
        journal.look_for_space();
        assert_eq!(*said.lock(), [format!("the log cannot be written: {name} was removed from the data folder")]);
        assert!(journal.flush().is_err() || append(&journal, 3..4, 1).lock().is_empty(), "nothing may be durable");
        std::fs::remove_dir_all(&root).unwrap();
        let disk = RealDisk::new(root.clone());
        let removed = format!("the data folder {} was removed", root.display());
        assert_eq!(disk.create("wal/001", 10, false).err().unwrap().to_string(), removed);
        assert_eq!(disk.create("node", 10, false).err().unwrap().to_string(), removed, "the root must not be created");
        assert_eq!(disk.free_bytes().unwrap_err().to_string(), removed);
    }
}

#[test]
fn passing_errors_are_distinguished_from_those_of_a_failed_disk() {
    let os = std::io::Error::from_raw_os_error;
    for passing in [4, 11, 12, 23, 24, 28, 122] {
        assert!(is_passing(&os(passing)), "{}", os(passing));
    }
    for failed in [5, 30, 2, 13] {
        assert!(!is_passing(&os(failed)), "{}", os(failed));
    }
}

#[test]
fn after_a_torn_tail_the_log_goes_on_in_the_same_segment_even_on_a_full_disk() {
    let _one_at_a_time = MUTANT.lock();
    let mut torn = 0;
    for seed in 0..40 {
        let disk = FaultyDisk::new(seed);
        let (journal, _) = open(&disk).unwrap();
        append(&journal, 1..6, 1);
        disk.power_off_at_write(0);
        append(&journal, 6..7, 1);
        disk.crash();
        for name in disk.clone().list("wal").unwrap().iter().filter(|name| *name != "000") {
            disk.lose(&format!("wal/{name}"));
        }
        disk.set_full(true);
        disk.power_off_at_write(seed % 3);
        drop(open(&disk)); // a start that crashes, perhaps while it removes the torn tail
        disk.crash();
        let (journal, found) = open(&disk).unwrap();
        let last = found.len() as u64;
        torn += usize::from(last < 6);
        assert_eq!(append(&journal, last + 1..last + 2, 1).lock().len(), 1, "seed {seed}: {last} records were found");
        journal.stop();
        let (journal, again) = open(&disk).unwrap();
        check(&journal, &again, &[]);
        assert_eq!(again.len(), found.len() + 1, "seed {seed}");
    }
    assert!(torn > 20);
}

#[test]
fn a_log_whose_folder_was_replaced_by_another_fails_and_says_so() {
    let _one_at_a_time = MUTANT.lock();
    let root = std::env::temp_dir().join(format!("leveret-replaced-{}", std::process::id()));
    std::fs::create_dir_all(root.join("data")).unwrap();
    let said: Arc<Mutex<Vec<String>>> = Arc::default();
    let told = said.clone();
    let on_failure = Arc::new(move |reason| told.lock().push(reason));
    let options = JournalOptions { on_failure, ..options(&Arc::default()) };
    let journal = Journal::open(Arc::new(RealDisk::new(root.join("data"))), options, &mut |_| ()).unwrap();
    append(&journal, 1..3, 1);
    std::fs::rename(root.join("data"), root.join("moved")).unwrap();
    std::fs::create_dir(root.join("data")).unwrap();
    journal.look_for_space();
    assert_eq!(*said.lock(), ["the log cannot be written: the data folder was replaced by another"]);
    assert!(journal.flush().is_err() || append(&journal, 3..4, 1).lock().is_empty(), "nothing may be durable");
    std::fs::remove_dir_all(&root).unwrap();
}

//! Tests of the journal on a disk that loses unsynced writes, with a crash at every write: it has to return the records
//! that a plain list of appends has.
mod names;
mod room;
mod rot;

use crate::faulty::FaultyDisk;
use crate::*;
use bytes::Bytes;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

fn options(failures: &Arc<AtomicUsize>) -> JournalOptions {
    let failures = failures.clone();
    let on_failure = Arc::new(move |_| {
        failures.fetch_add(1, SeqCst);
    });
    JournalOptions {
        node: 7,
        segment_bytes: 8192,
        segments_max: 8,
        segments_reserved: 2,
        made: false,
        on_failure,
        driver: None,
    }
}

fn head(index: u64) -> Head {
    Head { group: (index % 3) as u16, kind: 1, index, term: 1, note: index as u32 }
}

/// Returns a body of up to a fifth of a segment.
fn body(index: u64) -> Bytes {
    Bytes::from(vec![index as u8; (index as usize * 397) % 1700])
}

fn open(disk: &FaultyDisk) -> Result<(Journal, Vec<Recovered>), JournalOpenError> {
    let mut found = Vec::new();
    let journal =
        Journal::open(Arc::new(disk.clone()), options(&Arc::default()), &mut |recovered| found.push(recovered))?;
    Ok((journal, found))
}

/// Appends the records of `range`. Returns the indexes of those that were reported durable, in that order.
fn append(journal: &Journal, range: std::ops::Range<u64>, flush_every: u64) -> Arc<Mutex<Vec<u64>>> {
    let durable: Arc<Mutex<Vec<u64>>> = Arc::default();
    for index in range {
        let told = durable.clone();
        let _ = journal.append(head(index), body(index), true, Some(Box::new(move || told.lock().push(index))));
        if index % flush_every == 0 {
            let _ = journal.flush();
        }
    }
    let _ = journal.flush();
    durable
}

/// Checks that the records found are the first ones of those appended, in order and intact, and that none of the
/// `durable` ones is missing.
fn check(journal: &Journal, found: &[Recovered], durable: &[u64]) {
    let indexes: Vec<u64> = found.iter().map(|recovered| recovered.head.index).collect();
    let expected: Vec<u64> = (1..=indexes.len() as u64).collect();
    assert_eq!(indexes, expected, "durable: {durable:?}");
    assert!(indexes.len() >= durable.len(), "{} records were found, durable: {durable:?}", indexes.len());
    for recovered in found {
        assert_eq!(journal.read(recovered.place).unwrap(), body(recovered.head.index));
    }
}

/// Repeats the same appends with a crash at the first write, then at the second and so on, each time with a restart
/// that crashes too. Returns how many of these repetitions lost a record that was reported durable.
fn crash_everywhere() -> usize {
    let mut losses = 0;
    for at in 0..400 {
        let disk = FaultyDisk::new(at);
        disk.power_off_at_write(at);
        let Ok((journal, _)) = open(&disk) else {
            assert!(disk.is_off(), "only a loss of power may keep an empty disk from being opened");
            disk.crash();
            assert!(open(&disk).unwrap().1.is_empty());
            continue;
        };
        let durable = append(&journal, 1..25, 3);
        journal.stop();
        let over = !disk.is_off();
        disk.crash();
        disk.power_off_at_write(at % 3);
        if let Ok((journal, found)) = open(&disk) {
            append(&journal, found.len() as u64 + 1..found.len() as u64 + 3, 9);
        }
        disk.crash();
        let durable = durable.lock().clone();
        let (journal, found) = open(&disk).unwrap();
        if found.len() < durable.len() {
            losses += 1;
        } else {
            check(&journal, &found, &durable);
            append(&journal, found.len() as u64 + 1..found.len() as u64 + 5, 2);
            journal.stop();
            let (again, found_again) = open(&disk).unwrap();
            check(&again, &found_again, &durable);
            assert_eq!(found_again.len(), found.len() + 4);
        }
        if over {
            return losses;
        }
    }
    panic!("400 writes were not enough for the appends");
}

#[test]
fn durable_records_survive_a_crash_at_any_write() {
    let _one_at_a_time = MUTANT.lock();
    assert_eq!(crash_everywhere(), 0);
}

#[test]
fn the_test_above_fails_if_records_are_reported_durable_before_the_sync() {
    let _one_at_a_time = MUTANT.lock();
    mutants::CONFIRM_BEFORE_SYNC.store(true, SeqCst);
    let losses = crash_everywhere();
    mutants::CONFIRM_BEFORE_SYNC.store(false, SeqCst);
    assert!(losses > 0);
}

#[test]
fn threads_that_write_their_own_records_report_them_in_order() {
    let _one_at_a_time = MUTANT.lock();
    for seed in 0..60 {
        let disk = FaultyDisk::new(seed);
        let (journal, _) = open(&disk).unwrap();
        disk.power_off_at_write(seed);
        let (next, durable) = (Mutex::new(0), Arc::new(Mutex::new(Vec::new())));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..15 {
                        {
                            let mut next = next.lock();
                            *next += 1;
                            let (index, told) = (*next, durable.clone());
                            let told = Box::new(move || told.lock().push(index));
                            let _ = journal.queue(head(index), body(index).into(), true, Some(told), false);
                        }
                        journal.write_or_leave();
                    }
                });
            }
        });
        let _ = journal.flush();
        disk.crash();
        let durable = durable.lock().clone();
        assert!(durable.is_sorted(), "seed {seed}: {durable:?}");
        let (journal, found) = open(&disk).unwrap();
        check(&journal, &found, &durable);
    }
}

#[test]
fn segments_are_reused_and_their_old_records_do_not_come_back() {
    let _one_at_a_time = MUTANT.lock();
    let disk = FaultyDisk::new(1);
    let (journal, _) = open(&disk).unwrap();
    let mut last = RecordPlace::default();
    for index in 1..500 {
        last = journal.append(head(index), body(index), false, None).unwrap();
        journal.release(last.segment, &|_| false);
    }
    assert!(journal.usage().used <= 2 && last.segment > 30, "{:?}", journal.usage());
    journal.stop();
    let (journal, found) = open(&disk).unwrap();
    let first = found[0].head.index;
    assert!(first > 400);
    for (index, recovered) in (first..500).zip(&found) {
        assert_eq!(recovered.head.index, index);
        assert_eq!(journal.read(recovered.place).unwrap(), body(index));
    }
}

#[test]
fn a_full_log_takes_control_records_only() {
    let _one_at_a_time = MUTANT.lock();
    let (journal, _) = open(&FaultyDisk::new(1)).unwrap();
    let mut taken = 0;
    while journal.append(head(taken + 1), Bytes::from(vec![0; 4000]), false, None).is_ok() {
        taken += 1;
    }
    assert!(!journal.has_room() && taken == 6, "{taken}");
    journal.append(head(taken + 1), Bytes::from(vec![0; 4000]), true, None).unwrap();
    journal.release(journal.usage().current, &|_| false);
    journal.append(head(taken + 2), Bytes::from(vec![0; 4000]), false, None).unwrap();
    let too_large = journal.append(head(1), Bytes::from(vec![0; 9000]), true, None).unwrap_err();
    assert_eq!(too_large.to_string(), "the log has no room for a record of 9000 bytes");
}

#[test]
fn rot_is_not_taken_for_a_torn_tail() {
    let _one_at_a_time = MUTANT.lock();
    let disk = FaultyDisk::new(1);
    let (journal, _) = open(&disk).unwrap();
    let mut places = Vec::new();
    for index in 1..6 {
        places.push(journal.append(head(index), body(index), true, None).unwrap());
        let _ = journal.flush();
    }
    journal.stop();
    let second = places[1];
    disk.flip("wal/000", u64::from(second.offset) + 3);
    let (journal, found) = open(&disk).unwrap();
    assert_eq!(found.len(), 5, "a start should not check the bodies of durable records");
    let damaged = journal.read(found[1].place).unwrap_err().to_string();
    assert!(damaged.starts_with("wal/000 is damaged at offset"), "{damaged}");
    journal.stop();
    disk.flip("wal/000", u64::from(second.offset) - 30);
    let refused = open(&disk).err().unwrap();
    let JournalOpenError::Corrupt { file, offset, group, sequence } = refused else { panic!("{refused}") };
    assert_eq!((file.as_str(), offset, group, sequence), ("wal/000", second.offset - 72, 1, 2));
}

#[test]
fn a_torn_last_record_is_cut() {
    let _one_at_a_time = MUTANT.lock();
    let mut cut = 0;
    for seed in 0..20 {
        let disk = FaultyDisk::new(seed);
        let (journal, _) = open(&disk).unwrap();
        append(&journal, 1..6, 1);
        disk.power_off_at_write(0);
        let told = append(&journal, 6..7, 1);
        assert!(told.lock().is_empty(), "the record must not be reported durable");
        disk.crash();
        let (journal, found) = open(&disk).unwrap();
        cut += usize::from(found.len() == 5);
        append(&journal, found.len() as u64 + 1..found.len() as u64 + 4, 1);
        journal.stop();
        let (journal, again) = open(&disk).unwrap();
        check(&journal, &again, &[]);
        assert_eq!(again.len(), found.len() + 3);
    }
    assert!(cut > 0);
}

#[test]
fn a_failed_sync_ends_the_log() {
    let _one_at_a_time = MUTANT.lock();
    let (disk, failures) = (FaultyDisk::new(1), Arc::<AtomicUsize>::default());
    let journal = Journal::open(Arc::new(disk.clone()), options(&failures), &mut |_| ()).unwrap();
    assert_eq!(append(&journal, 1..3, 1).lock().len(), 2);
    disk.fail_at_sync(0);
    assert!(append(&journal, 3..9, 1).lock().is_empty());
    assert_eq!(failures.load(SeqCst), 1);
}

#[test]
fn logs_of_newer_versions_and_other_nodes_are_refused() {
    let _one_at_a_time = MUTANT.lock();
    let disk = FaultyDisk::new(1);
    let (journal, _) = open(&disk).unwrap();
    append(&journal, 1..3, 1);
    journal.stop();
    let other = JournalOptions { node: 8, ..options(&Arc::default()) };
    let refused = Journal::open(Arc::new(disk.clone()), other, &mut |_| ()).err().unwrap().to_string();
    assert_eq!(refused, "wal/000 belongs to node 0000000000000007, this is node 0000000000000008");
    let header = format::SegmentHeader { version: 9, node: 7, segment: 1, first_sequence: 1, released: 0 }.encode();
    disk.open("wal/000").unwrap().write_at(&mut [std::io::IoSlice::new(&header)], 0).unwrap();
    let refused = open(&disk).err().unwrap().to_string();
    assert_eq!(refused, "wal/000 has format version 9, this program knows up to 2");
}

#[test]
fn records_and_small_files_are_read_back_from_a_real_disk() {
    let _one_at_a_time = MUTANT.lock();
    let root = std::env::temp_dir().join(format!("leveret-journal-{}", std::process::id()));
    std::fs::create_dir_all(&root).unwrap();
    for round in 0..3u64 {
        let mut found = Vec::new();
        let journal =
            Journal::open(Arc::new(RealDisk::new(root.clone())), options(&Arc::default()), &mut |recovered| {
                found.push(recovered);
            })
            .unwrap();
        check(&journal, &found, &[]);
        assert_eq!(found.len() as u64, round * 10);
        append(&journal, round * 10 + 1..round * 10 + 11, 4);
        journal.stop();
    }
    write_whole(&RealDisk::new(root.clone()), "wal/small", &[b"con", b"tent"]).unwrap();
    assert_eq!(read_whole(&RealDisk::new(root.clone()), "wal/small").unwrap().unwrap(), b"content");
    assert_eq!(read_whole(&RealDisk::new(root.clone()), "none").unwrap(), None);
    std::fs::write(root.join("wal/small"), b"content").unwrap();
    assert!(read_whole(&RealDisk::new(root.clone()), "wal/small").is_err());
    std::fs::remove_dir_all(&root).unwrap();
}

/// Held by each test, since the mutant's switch is global.
static MUTANT: Mutex<()> = Mutex::new(());

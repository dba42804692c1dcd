//! Tests of damage to the files while the broker is down: a start that would lose durable records is refused with an
//! error that names the file, however the process before it ended.
use super::*;
use std::io::IoSlice;

/// The way in which the previous process ended.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Shutdown {
    InOrder,
    Kill,
}

/// Returns a disk with a log of so many records, all of them reported durable, whose process has ended, and the places
/// of the records.
fn log(shutdown: Shutdown, records: u64) -> (FaultyDisk, Vec<RecordPlace>) {
    let disk = FaultyDisk::new(records);
    let (journal, _) = open(&disk).unwrap();
    let mut places = Vec::new();
    for index in 1..=records {
        places.push(journal.append(head(index), body(index), true, None).unwrap());
        journal.flush().unwrap();
    }
    match shutdown {
        Shutdown::InOrder => journal.stop(),
        Shutdown::Kill => disk.end_process(),
    }
    (disk.fork(), places)
}

/// Returns the name of the file that holds a segment.
fn file_of(disk: &FaultyDisk, segment: u64) -> String {
    let names = disk.list("wal").unwrap().into_iter().map(|name| format!("wal/{name}"));
    let holds = |name: &String| {
        let mut bytes = [0; format::SEGMENT_HEAD];
        disk.open(name).unwrap().read_at(&mut bytes, 0).unwrap();
        format::SegmentHeader::decode(&bytes).is_some_and(|header| header.segment == segment)
    };
    names.into_iter().find(holds).unwrap()
}

fn overwrite(disk: &FaultyDisk, name: &str, offset: u64, bytes: &[u8]) {
    let file = disk.open(name).unwrap();
    file.write_at(&mut [IoSlice::new(bytes)], offset).unwrap();
    file.sync_data().unwrap();
}

/// Opens a damaged log. Either the start is refused, or all records are found and reading one of them fails. Checks
/// that the text of the error contains one of `names`.
fn check_damage_is_named(disk: &FaultyDisk, what: &str, records: u64, names: &[&str]) {
    let said = match open(disk) {
        Err(refused) => refused.to_string(),
        Ok((journal, found)) => {
            assert_eq!(found.len() as u64, records, "{what}: records are missing without an error");
            let read = found.iter().filter_map(|recovered| journal.read(recovered.place).err());
            read.map(|error| error.to_string()).next().unwrap_or_default()
        }
    };
    assert!(names.iter().any(|name| said.contains(name)), "{what}: {said:?} should name one of {names:?}");
}

#[test]
fn a_start_without_all_durable_records_is_refused_and_names_the_file() {
    let _one_at_a_time = MUTANT.lock();
    for shutdown in [Shutdown::InOrder, Shutdown::Kill] {
        for records in [6, 40] {
            let (intact, places) = log(shutdown, records);
            let last = places[places.len() - 1];
            let middle =
                places.iter().rfind(|place| place.segment == last.segment && place.offset < last.offset).unwrap();
            let (record, newest) = (u64::from(last.offset) - 72, format!("segment {} of the log", last.segment));
            type Damage = Box<dyn Fn(&FaultyDisk, &str)>;
            let zeros = |from: u64, len: u64| -> Damage {
                Box::new(move |disk, name| overwrite(disk, name, from, &vec![0; len as usize]))
            };
            let flip = |at: u64| -> Damage { Box::new(move |disk, name| disk.flip(name, at)) };
            let cut = |len: u64| -> Damage { Box::new(move |disk, name| drop(disk.create(name, len, true).unwrap())) };
            let damages: Vec<(&str, Damage)> = vec![
                ("header zeroed", zeros(0, 128)),
                ("first half zeroed", zeros(0, 4096)),
                ("all zeroed", zeros(0, 8192)),
                (
                    "from the middle to the end zeroed",
                    zeros(u64::from(middle.offset) - 72, 8192 + 72 - u64::from(middle.offset)),
                ),
                ("from the last record on zeroed", zeros(record, 8192 - record)),
                ("last record's header flipped", flip(record + 20)),
                ("last record's magic flipped", flip(record)),
                ("last record's length flipped", flip(record + 57)),
                ("last record's body flipped", flip(record + 72 + u64::from(last.len / 2))),
                ("emptied", cut(0)),
                ("too short", cut(8191)),
                ("removed", Box::new(|disk, name| disk.remove(name).unwrap())),
            ];
            for (what, damage) in damages {
                let disk = intact.fork();
                let name = file_of(&disk, last.segment);
                damage(&disk, &name);
                let before = disk.checksum();
                let what = format!("{what}, {records} records, {shutdown:?}");
                check_damage_is_named(&disk, &what, records, &[&name, &newest]);
                if open(&disk).is_err() {
                    assert_eq!(disk.checksum(), before, "{what}: a start that is refused must not change the disk");
                }
            }
        }
    }
}

#[test]
fn a_missing_or_damaged_older_segment_is_refused() {
    let _one_at_a_time = MUTANT.lock();
    for number in 1..=3 {
        let (disk, places) = log(Shutdown::InOrder, 40);
        assert!(places[places.len() - 1].segment > 3);
        let name = file_of(&disk, number);
        disk.remove(&name).unwrap();
        let refused = open(&disk).err().unwrap().to_string();
        assert!(refused.starts_with(&format!("segment {number} of the log is missing")), "{refused}");

        let (disk, _) = log(Shutdown::InOrder, 40);
        let name = file_of(&disk, number);
        overwrite(&disk, &name, 0, &[0; 128]);
        let refused = open(&disk).err().unwrap().to_string();
        assert_eq!(
            refused,
            format!(
                "{name} is damaged at offset 0: it holds records of segment {number} of the log without a valid header"
            )
        );

        let (disk, places) = log(Shutdown::InOrder, 40);
        let name = file_of(&disk, number);
        let last = places.iter().rfind(|place| place.segment == number).unwrap();
        overwrite(&disk, &name, u64::from(last.offset) - 72, &[0; 72]);
        let refused = open(&disk).err().unwrap().to_string();
        assert!(refused.starts_with(&format!("{name} is damaged at offset {}", last.offset - 72)), "{refused}");
    }
}

#[test]
fn segments_that_were_released_may_be_gone() {
    let _one_at_a_time = MUTANT.lock();
    for at in 0..120 {
        let disk = FaultyDisk::new(at);
        let (journal, _) = open(&disk).unwrap();
        disk.power_off_at_write(at);
        let mut last = RecordPlace::default();
        for index in 1..60 {
            let appended = journal.append(head(index), body(index), true, None).unwrap();
            if journal.flush().is_err() {
                break;
            }
            last = appended;
            journal.release(last.segment, &|segment| segment == 2);
        }
        disk.crash();
        let (journal, _) = open(&disk).unwrap();
        assert!(last.segment <= 2 || journal.holds(2), "a segment that the caller keeps should still be there");
        if last != RecordPlace::default() {
            journal.read(last).unwrap();
        }
    }
}

#[test]
fn a_log_without_an_intact_proof_is_refused() {
    let _one_at_a_time = MUTANT.lock();
    let (disk, _) = log(Shutdown::InOrder, 10);
    for slot in [0, 4096, 8192] {
        let disk = disk.fork();
        disk.flip("wal.proof", slot + 33);
        assert_eq!(open(&disk).unwrap().1.len(), 10, "one damaged slot should do no harm");
    }
    let removed = disk.fork();
    removed.remove("wal.proof").unwrap();
    let refused = open(&removed).err().unwrap().to_string();
    assert_eq!(refused, "wal.proof is missing: without it nothing shows whether the log is complete");
    let damaged = disk.fork();
    overwrite(&damaged, "wal.proof", 0, &[0; 3 * 4096]);
    let refused = open(&damaged).err().unwrap().to_string();
    assert_eq!(refused, "wal.proof is damaged: without it nothing shows whether the log is complete");
    // Without any file of the log, only the option `made` says that there was one.
    for name in disk.list("wal").unwrap() {
        removed.remove(&format!("wal/{name}")).unwrap();
    }
    let options = JournalOptions { made: true, ..options(&Arc::default()) };
    let refused = Journal::open(Arc::new(removed), options, &mut |_| ()).err().unwrap().to_string();
    assert!(refused.starts_with("wal.proof is missing"), "{refused}");
}

#[test]
fn a_log_of_the_previous_version_is_read_and_gets_a_proof() {
    let _one_at_a_time = MUTANT.lock();
    let (disk, places) = log(Shutdown::InOrder, 40);
    let newest = places[places.len() - 1].segment;
    for segment in 1..=newest {
        let name = file_of(&disk, segment);
        let mut bytes = [0; format::SEGMENT_HEAD];
        disk.open(&name).unwrap().read_at(&mut bytes, 0).unwrap();
        let header = format::SegmentHeader::decode(&bytes).unwrap();
        overwrite(&disk, &name, 0, &format::SegmentHeader { version: 1, ..header }.encode());
        if segment == 2 {
            overwrite(&disk, &name, 0, &[0; 128]); // as after a release, which that version did not store anywhere
        }
    }
    disk.remove("wal.proof").unwrap();
    let (journal, found) = open(&disk).unwrap();
    let expected = (1..41).filter(|index| places[*index as usize - 1].segment > 2);
    let expected: Vec<u64> = expected.collect();
    assert_eq!(found.iter().map(|recovered| recovered.head.index).collect::<Vec<_>>(), expected);
    assert!(journal.holds(1));
    append(&journal, 41..60, 1);
    journal.stop();
    assert_eq!(open(&disk).unwrap().1.len(), expected.len() + 19);
    disk.remove("wal.proof").unwrap();
    assert!(open(&disk).is_err());
}

/// Returns the index of the last kept record of a group in `found`.
fn last_kept(found: &[Recovered], group: u16) -> Option<u64> {
    let of_group = |recovered: &&Recovered| recovered.head.group == group && recovered.head.is_kept();
    found.iter().rfind(of_group).map(|recovered| recovered.head.index)
}

#[test]
fn kept_records_survive_the_release_of_their_segment_and_a_crash_at_any_write() {
    let _one_at_a_time = MUTANT.lock();
    let mut segments = 0;
    for at in 0..200 {
        let disk = FaultyDisk::new(at);
        let (journal, _) = open(&disk).unwrap();
        disk.power_off_at_write(at);
        let mut durable = [None; 2];
        'run: for index in 1..80 {
            if index % 30 == 7 {
                for group in [0, 1] {
                    let kept = Head { group, kind: KEPT_FROM, index, term: 0, note: 0 };
                    journal.append(kept, Bytes::new(), true, None).unwrap();
                    if journal.flush().is_err() {
                        break 'run;
                    }
                    durable[usize::from(group)] = Some(index);
                }
            }
            let Ok(place) = journal.append(head(index), body(index), true, None) else { break };
            segments = segments.max(place.segment);
            if journal.flush().is_err() {
                break;
            }
            journal.release(u64::MAX, &|_| false);
        }
        // Kept records also survive the release of the next process's segments, even if the crash tore the beginning of
        // the newest segment.
        for (life, more) in [("crash", at % 3), ("life after a crash", 2)] {
            disk.crash();
            let (journal, found) = open(&disk).unwrap();
            for group in [0, 1] {
                let found = last_kept(&found, group);
                assert!(found >= durable[usize::from(group)], "{life} at write {at}: {found:?} of {durable:?}");
            }
            let first = journal.usage().current;
            for index in 80.. {
                journal.append(head(index), body(index), true, None).unwrap();
                journal.flush().unwrap();
                journal.release(u64::MAX, &|_| false);
                if journal.usage().current >= first + more {
                    break;
                }
            }
            journal.stop();
        }
    }
    assert!(segments > 5);
}

#[test]
fn a_released_segment_that_is_still_needed_and_lost_its_header_is_found_by_its_records() {
    let _one_at_a_time = MUTANT.lock();
    let disk = FaultyDisk::new(1);
    let (journal, _) = open(&disk).unwrap();
    let kept = journal.append(head(1), body(1), true, None).unwrap();
    let mut index = 1;
    while journal.usage().current < 5 {
        index += 1;
        journal.append(head(index), body(index), true, None).unwrap();
        journal.flush().unwrap();
        journal.release(journal.usage().current, &|segment| segment == kept.segment);
    }
    journal.stop();
    disk.zero("wal/000", 0, format::SEGMENT_HEAD as u64);
    let (journal, _) = open(&disk).unwrap();
    assert!(!journal.holds(kept.segment));
    let before = journal.usage().current;
    while journal.usage().current < before + 6 {
        index += 1;
        journal.append(head(index), body(index), true, None).unwrap();
        journal.flush().unwrap();
        journal.release(journal.usage().current, &|_| false);
    }
    let missing = [kept.segment, 1_000].into_iter().collect();
    assert_eq!(journal.settle_unknown(&missing).unwrap(), [kept.segment]);
    assert_eq!(journal.read(kept).unwrap(), body(1), "its file must not be used for anything else meanwhile");
    journal.stop();
    assert!(open(&disk).unwrap().0.holds(kept.segment), "the segment should have its header again");
}

#[test]
fn a_swept_file_does_not_release_segments_that_are_not_followed_by_durable_records() {
    let _one_at_a_time = MUTANT.lock();
    let disk = FaultyDisk::new(1);
    let (journal, _) = open(&disk).unwrap();
    journal.0.state.lock().preparing = true; // no other thread sweeps
    let mut index = 0;
    let mut fill = |segment: u64, flush: bool| {
        while journal.usage().current < segment {
            index += 1;
            journal.append(head(index), body(index), true, None).unwrap();
            if flush {
                journal.flush().unwrap();
            }
        }
        index
    };
    let kept = Head { group: 0, kind: KEPT_FROM, index: 77, term: 0, note: 0 };
    let durable = fill(4, true);
    journal.append(kept, Bytes::new(), true, None).unwrap();
    journal.flush().unwrap();
    journal.release(3, &|_| false);
    let writing = journal.0.writing.lock();
    fill(5, false);
    journal.release(5, &|_| false);
    assert!(writer::sweep(&journal.0), "the files that were freed first are swept");
    disk.crash();
    drop(writing);
    let (_journal, found) = open(&disk).unwrap();
    let last = found.iter().filter(|record| record.head.kind != KEPT_FROM).map(|record| record.head.index).max();
    assert_eq!(last, Some(durable), "what was durable has to be there");
    assert!(found.iter().any(|record| record.head == kept), "so has the kept record");
}

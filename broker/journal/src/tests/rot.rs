//! What somebody or something does to the files while the broker is down: a start that would give back less than was durable
//! is refused by name, however the process ended.
use super::*;
use std::io::IoSlice;

/// How the process before ended.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Ended {
    Stopped,
    Killed,
}

/// A log of several segments, all of it confirmed, whose process ended; places of the records.
fn log(ended: Ended, records: u64) -> (FaultyDisk, Vec<Place>) {
    let disk = FaultyDisk::new(records);
    let (journal, _) = open(&disk).unwrap();
    let mut places = Vec::new();
    for index in 1..=records {
        places.push(journal.append(head(index), body(index), true, None).unwrap());
        journal.flush().unwrap();
    }
    match ended {
        Ended::Stopped => journal.stop(),
        Ended::Killed => disk.end_process(),
    }
    (disk.fork(), places)
}

/// Name of the file that holds a segment.
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

/// Opens a log of which something is damaged: refused with a text that says one of `names`, or all headers are there and
/// reading says which record is not.
fn refused_or_told(disk: &FaultyDisk, what: &str, records: u64, names: &[&str]) {
    let said = match open(disk) {
        Err(refused) => refused.to_string(),
        Ok((journal, found)) => {
            assert_eq!(found.len() as u64, records, "{what}: silently less");
            let read = found.iter().filter_map(|recovered| journal.read(recovered.place).err());
            read.map(|error| error.to_string()).next().unwrap_or_default()
        }
    };
    assert!(names.iter().any(|name| said.contains(name)), "{what}: {said:?} should name one of {names:?}");
}

#[test]
fn what_was_durable_and_is_gone_is_refused_by_name() {
    let _one_at_a_time = MUTANT.lock();
    for ended in [Ended::Stopped, Ended::Killed] {
        for records in [6, 40] {
            let (whole, places) = log(ended, records);
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
                let disk = whole.fork();
                let name = file_of(&disk, last.segment);
                damage(&disk, &name);
                let before = disk.checksum();
                let what = format!("{what}, {records} records, {ended:?}");
                refused_or_told(&disk, &what, records, &[&name, &newest]);
                if open(&disk).is_err() {
                    assert_eq!(disk.checksum(), before, "{what}: a start that is refused changes nothing");
                }
            }
        }
    }
}

#[test]
fn a_segment_before_the_newest_is_missed_too() {
    let _one_at_a_time = MUTANT.lock();
    for number in 1..=3 {
        let (disk, places) = log(Ended::Stopped, 40);
        assert!(places[places.len() - 1].segment > 3);
        let name = file_of(&disk, number);
        disk.remove(&name).unwrap();
        let refused = open(&disk).err().unwrap().to_string();
        assert!(refused.starts_with(&format!("segment {number} of the log is missing")), "{refused}");

        let (disk, _) = log(Ended::Stopped, 40);
        let name = file_of(&disk, number);
        overwrite(&disk, &name, 0, &[0; 128]);
        let refused = open(&disk).err().unwrap().to_string();
        assert_eq!(
            refused,
            format!(
                "{name} is damaged at offset 0: it holds segment {number} of the log, and its header does not say so"
            )
        );

        let (disk, places) = log(Ended::Stopped, 40);
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
        let mut last = Place::default();
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
        assert!(last.segment <= 2 || journal.holds(2), "what is kept for its contents is kept");
        if last != Place::default() {
            journal.read(last).unwrap();
        }
    }
}

#[test]
fn without_the_proof_nothing_is_believed() {
    let _one_at_a_time = MUTANT.lock();
    let (disk, _) = log(Ended::Stopped, 10);
    for slot in [0, 4096, 8192] {
        let disk = disk.fork();
        disk.flip("wal.proof", slot + 33);
        assert_eq!(open(&disk).unwrap().1.len(), 10, "one damaged slot is no harm");
    }
    let removed = disk.fork();
    removed.remove("wal.proof").unwrap();
    let refused = open(&removed).err().unwrap().to_string();
    assert_eq!(refused, "wal.proof is missing: without it nobody knows whether all of the log is there");
    let damaged = disk.fork();
    overwrite(&damaged, "wal.proof", 0, &[0; 3 * 4096]);
    let refused = open(&damaged).err().unwrap().to_string();
    assert_eq!(refused, "wal.proof is damaged: without it nobody knows whether all of the log is there");
    // All of it gone: only who remembers that there was a log can tell.
    for name in disk.list("wal").unwrap() {
        removed.remove(&format!("wal/{name}")).unwrap();
    }
    let options = Options { made: true, ..options(&Arc::default()) };
    let refused = Journal::open(Arc::new(removed), options, &mut |_| ()).err().unwrap().to_string();
    assert!(refused.starts_with("wal.proof is missing"), "{refused}");
}

#[test]
fn a_log_of_the_version_before_is_read_and_goes_on_with_a_proof() {
    let _one_at_a_time = MUTANT.lock();
    let (disk, places) = log(Ended::Stopped, 40);
    let newest = places[places.len() - 1].segment;
    for segment in 1..=newest {
        let name = file_of(&disk, segment);
        let mut bytes = [0; format::SEGMENT_HEAD];
        disk.open(&name).unwrap().read_at(&mut bytes, 0).unwrap();
        let header = format::SegmentHeader::decode(&bytes).unwrap();
        overwrite(&disk, &name, 0, &format::SegmentHeader { version: 1, ..header }.encode());
        if segment == 2 {
            overwrite(&disk, &name, 0, &[0; 128]); // that version said nowhere that it was released
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

/// The newest note of a group, of those found.
fn noted(found: &[Recovered], group: u16) -> Option<u64> {
    let of_group = |recovered: &&Recovered| recovered.head.group == group && recovered.head.is_kept();
    found.iter().rfind(of_group).map(|recovered| recovered.head.index)
}

#[test]
fn what_is_kept_outlives_its_segment_and_a_crash_at_any_write() {
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
        // What is kept outlives the segments of the next life, too, whatever was torn at the beginning of the newest one.
        for (life, more) in [("crash", at % 3), ("life after a crash", 2)] {
            disk.crash();
            let (journal, found) = open(&disk).unwrap();
            for group in [0, 1] {
                let found = noted(&found, group);
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
fn a_segment_held_for_its_contents_that_lost_its_header_is_found_by_its_records() {
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
    assert_eq!(journal.read(kept).unwrap(), body(1), "its file was not used for anything else meanwhile");
    journal.stop();
    assert!(open(&disk).unwrap().0.holds(kept.segment), "it has its header again");
}

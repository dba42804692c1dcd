//! Tests of the simulated disk itself.
use super::*;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

fn file(disk: &FaultyDisk, name: &str, bytes: &[u8]) -> Arc<dyn DiskFile> {
    let file = disk.create(name, 0, false).unwrap();
    file.write_at(&mut [IoSlice::new(bytes)], 0).unwrap();
    file.sync_data().unwrap();
    file
}

/// Crashes the disk, and returns it as the next process sees it.
fn crashed(disk: &FaultyDisk) -> FaultyDisk {
    disk.crash();
    disk.clone()
}

#[test]
fn names_are_durable_once_their_own_folder_is_synced() {
    let disk = FaultyDisk::new(7);
    file(&disk, "a/one", b"1");
    disk.sync_folder("a").unwrap();
    let lost = (0..64).any(|seed| {
        let disk = disk.fork();
        disk.0.lock().random = seed;
        file(&disk, "b/two", b"2");
        disk.sync_folder("a").unwrap();
        let disk = crashed(&disk);
        assert_eq!(disk.list("a").unwrap(), ["one"]);
        disk.list("b").unwrap().is_empty()
    });
    assert!(lost, "a sync of one folder must not make names in another durable");
}

#[test]
fn calls_fail_as_the_trouble_says() {
    let disk = FaultyDisk::new(1);
    disk.expect(DiskTrouble { calls: Call::OPENING.to_vec(), error: Errno::TooManyFiles, after: 1, times: 2 });
    let one = file(&disk, "a/one", b"1");
    assert_eq!(disk.open("a/one").err().unwrap().raw_os_error(), Some(24));
    assert_eq!(disk.list("a").unwrap_err().raw_os_error(), Some(24));
    assert_eq!((disk.list("a").unwrap().len(), disk.troubles_met()), (1, 2));
    disk.expect(DiskTrouble { calls: vec![Call::Write], error: Errno::Interrupted, after: 0, times: 1 });
    let interrupted = one.write_at(&mut [IoSlice::new(b"xyz")], 0).unwrap_err();
    assert_eq!((interrupted.kind(), one.len().unwrap()), (io::ErrorKind::Interrupted, 1));
    disk.fail_at_sync(0);
    assert_eq!(one.sync_data().unwrap_err().raw_os_error(), Some(5));
    assert!(one.sync_data().is_ok());
}

#[test]
fn a_volume_is_full_when_its_bytes_are_used() {
    let disk = FaultyDisk::new(1);
    disk.set_size(1000);
    let one = file(&disk, "a/one", &[1; 300]);
    disk.leave_free(100);
    assert_eq!(disk.free_bytes().unwrap(), 100);
    assert!(disk.create("a/two", 101, false).is_err());
    let full = one.write_at(&mut [IoSlice::new(&[2; 200])], 250).unwrap_err();
    assert_eq!((full.kind(), one.len().unwrap()), (io::ErrorKind::StorageFull, 400));
    one.write_at(&mut [IoSlice::new(&[3; 400])], 0).unwrap();
    disk.remove("a/one").unwrap();
    assert!(disk.create("a/two", 400, false).is_ok(), "the bytes of a removed file should be free again");
}

#[test]
fn slow_work_and_the_simulation_run_alternately() {
    let disk = FaultyDisk::new(3);
    let one = file(&disk, "a/one", b"1");
    disk.set_slow(Duration::from_millis(9));
    let reads = Arc::new(AtomicUsize::new(0));
    let counted = reads.clone();
    let mut slow = Slow::new(Box::new(move || {
        for _ in 0..20 {
            one.read_at(&mut [0], 0).unwrap();
            counted.fetch_add(1, SeqCst);
        }
    }));
    let (mut waits, mut seen) = (0, 0);
    while let Some(time) = slow.go_on() {
        let now = reads.load(SeqCst);
        assert!(time > Duration::ZERO && now >= seen && now < 20);
        (waits, seen) = (waits + 1, now);
    }
    assert!(waits > 5 && reads.load(SeqCst) == 20, "{waits}");
}

#[test]
fn calls_of_abandoned_work_fail() {
    let disk = FaultyDisk::new(3);
    let one = file(&disk, "a/one", b"1");
    disk.set_slow(Duration::from_millis(9));
    let (ended, tell) = std::sync::mpsc::channel();
    let mut slow = Slow::new(Box::new(move || {
        let failed = (0..100).find(|_| one.read_at(&mut [0], 0).is_err());
        let _ = ended.send(failed);
    }));
    assert!(slow.go_on().is_some());
    drop(slow);
    assert!(tell.recv().unwrap().is_some());
}

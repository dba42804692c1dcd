//! Names of files are on disk before anything counts on them, also if a start ended in between.
use super::*;
use crate::faulty::{Call, Errno, Trouble};

#[test]
fn a_start_that_could_not_sync_a_name_leaves_that_to_the_next() {
    for (seed, after) in (0..20).flat_map(|seed| (0..3).map(move |after| (seed, after))) {
        let disk = FaultyDisk::new(seed);
        disk.expect(Trouble { calls: vec![Call::SyncFolder], error: Errno::TooManyFiles, after, times: 1 });
        drop(open(&disk));
        disk.clear();
        let (journal, _) = open(&disk).unwrap();
        append(&journal, 1..3, 1);
        drop(journal);
        disk.crash();
        let (_, found) = open(&disk).unwrap_or_else(|error| panic!("seed {seed}, call {after}: {error}"));
        assert_eq!(found.len(), 2, "seed {seed}, call {after}");
    }
}

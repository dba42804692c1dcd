//! Tests that the names of the log's files are durable before a record is reported durable, even if an earlier start
//! failed to sync them.
use super::*;
use crate::faulty::{Call, DiskTrouble, Errno};

#[test]
fn names_that_a_failed_start_did_not_sync_are_synced_by_the_next_start() {
    for (seed, after) in (0..20).flat_map(|seed| (0..3).map(move |after| (seed, after))) {
        let disk = FaultyDisk::new(seed);
        disk.expect(DiskTrouble { calls: vec![Call::SyncFolder], error: Errno::TooManyFiles, after, times: 1 });
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

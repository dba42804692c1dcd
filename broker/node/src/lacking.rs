//! Contents that a start does not find: nothing of it is silent.
//!
//! A segment of the log whose header is damaged is known by its records, and gets its header back. Files that are not there, or
//! are shorter than they were, are noted at once for every queue that has messages in them: it stops before these, and
//! says so in its status, in health and in metrics, not only when a consumer gets there.
use crate::archive::{self, ARCHIVE};
use crate::queue::Queue;
use crate::shards::Shards;
use crate::storage::OpenError;
use leveret_engine::queue as engine;
use leveret_journal::Journal;
use std::collections::{BTreeMap, BTreeSet};

/// The files with contents that lack something: what is wrong with each.
#[derive(Default)]
pub(crate) struct Lacking {
    files: BTreeMap<u64, String>,
    /// The first number behind those of the archive's files.
    pub(crate) archive_next: u64,
}

/// Where the last run of each file ends that is needed, in bytes.
pub(crate) type Ends = BTreeMap<u64, u64>;

impl Lacking {
    /// Looks for the files that are needed. Files of the archive that nobody needs go.
    ///
    /// # Errors
    /// [`OpenError`] of the disk.
    pub(crate) fn find(shards: &Shards, journal: &Journal, ends: &Ends) -> Result<Self, OpenError> {
        let mut lacking = Self::default();
        let segments = ends.keys().filter(|file| **file & ARCHIVE == 0 && !journal.holds(**file));
        let mut missing: BTreeSet<u64> = segments.copied().collect();
        for found in journal.settle_unknown(&missing).map_err(leveret_replication::OpenError::from)? {
            tracing::warn!("segment {found} of the log had lost its header: it was found by its records");
            missing.remove(&found);
        }
        for segment in missing {
            lacking.files.insert(segment, format!("segment {segment} of the log is missing"));
        }
        lacking.find_archive(shards, journal, ends)?;
        Ok(lacking)
    }

    fn find_archive(&mut self, shards: &Shards, journal: &Journal, ends: &Ends) -> Result<(), OpenError> {
        let disk = &**journal.disk();
        let there: BTreeSet<u64> = archive::list(disk).map_err(OpenError::Archive)?.into_iter().collect();
        self.archive_next = there.last().map_or(0, |last| last + 1);
        for &number in there.iter().filter(|number| !ends.contains_key(&(ARCHIVE | **number))) {
            let _ = archive::remove(disk, number);
        }
        for (&file, &end) in ends.iter().filter(|(file, _)| **file & ARCHIVE != 0) {
            let number = file & !ARCHIVE;
            let name = archive::name(number);
            if !there.contains(&number) {
                self.files.insert(file, format!("{name} is missing"));
                continue;
            }
            let bytes = match archive::size(disk, number) {
                Ok(bytes) if bytes < end => {
                    self.files.insert(file, format!("{name} is damaged: it has {bytes} bytes and had {end} or more"));
                    bytes
                }
                Ok(bytes) => bytes,
                Err(error) => {
                    tracing::warn!(%error, "{name} cannot be opened: its contents are asked for again when they are needed");
                    end
                }
            };
            shards.files.set_size(file, bytes);
        }
        Ok(())
    }

    /// Stops a queue before what it lacks.
    pub(crate) fn mark(&self, queue: &Queue, entered: &mut engine::Queue) {
        if self.files.is_empty() {
            return;
        }
        let mut first = BTreeMap::new();
        for (number, place) in entered.runs().filter(|(_, place)| self.files.contains_key(&place.file)) {
            first.entry(place.file).or_insert(number);
        }
        for (file, number) in first {
            queue.note_damage(entered, number, file, &self.files[&file]);
        }
    }
}

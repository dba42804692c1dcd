//! Finds the contents that are missing at a start, so that none of them stays unnoticed.
//!
//! A segment of the log whose header is damaged is recognized by its records, and its header is written again. Files that
//! are missing, or are shorter than they were, are noted at once for every queue that has messages in them: the queue stops
//! before these messages, and says so in its status, in health and in metrics, without waiting for a consumer to get there.
use crate::archive::{self, ARCHIVE};
use crate::arrivals;
use crate::open_error::OpenError;
use crate::queue::Queue;
use crate::shards::Shards;
use leveret_engine::queue as engine;
use leveret_journal::Journal;
use leveret_replication::GroupsOpenError;
use std::collections::{BTreeMap, BTreeSet};

/// The files with contents that are missing or too short, with the reason.
#[derive(Default)]
pub(crate) struct MissingContents {
    files: BTreeMap<u64, String>,
    /// The first number behind those of all existing archive files.
    pub(crate) archive_next: u64,
}

/// The offset in bytes at which the last run needed ends, for each file.
pub(crate) type FileEnds = BTreeMap<u64, u64>;

impl MissingContents {
    /// Looks for the files that are needed, and removes the files of the archive that no queue needs and that are not part of
    /// a transfer (see `arrivals`).
    ///
    /// # Errors
    /// [`OpenError`] if the archive cannot be listed or the log cannot be read.
    pub(crate) fn find(shards: &Shards, journal: &Journal, ends: &FileEnds) -> Result<Self, OpenError> {
        let mut lacking = Self::default();
        let segments = ends.keys().filter(|file| **file & ARCHIVE == 0 && !journal.holds(**file));
        let mut missing: BTreeSet<u64> = segments.copied().collect();
        for found in journal.settle_unknown(&missing).map_err(GroupsOpenError::from)? {
            tracing::warn!("segment {found} of the log had lost its header: it was found by its records");
            missing.remove(&found);
        }
        for segment in missing {
            lacking.files.insert(segment, format!("segment {segment} of the log is missing"));
        }
        lacking.find_archive(shards, journal, ends)?;
        Ok(lacking)
    }

    fn find_archive(&mut self, shards: &Shards, journal: &Journal, ends: &FileEnds) -> Result<(), OpenError> {
        let disk = &**journal.disk();
        let there: BTreeSet<u64> = archive::list(disk).map_err(OpenError::Archive)?.into_iter().collect();
        self.archive_next = there.last().map_or(0, |last| last + 1);
        for &number in &there {
            let is_needed = ends.contains_key(&(ARCHIVE | number));
            match arrivals::read_list(disk, number).filter(|(group, _)| shards.has_group(*group) && !is_needed) {
                Some((group, places)) => shards.arrivals_of(group).written(&shards.files, number, places),
                None => {
                    arrivals::remove_list(disk, number);
                    if !is_needed {
                        let _ = archive::remove(disk, number);
                    }
                }
            }
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

    /// Stops the deliveries of a queue before its missing contents.
    pub(crate) fn mark(&self, shards: &Shards, queue: &Queue, entered: &mut engine::QueueCore) {
        if self.files.is_empty() {
            return;
        }
        let mut first = BTreeMap::new();
        for (number, name) in entered.runs() {
            if let Some(place) = shards.contents(queue.id).place(&name)
                && self.files.contains_key(&place.file)
            {
                first.entry(place.file).or_insert(number);
            }
        }
        for (file, number) in first {
            queue.note_damage(entered, number, Some(file), &self.files[&file]);
        }
    }
}

//! The use of each file of the log and of the archive: a file stays while a run lies in it, or while it is read.
//!
//! A read is counted while the runs still count (see `contents`): there is no
//! moment in between at which the file could be removed.
use crate::place::Place;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The use of each file, by file number.
#[derive(Default)]
pub(crate) struct FileUses(Mutex<BTreeMap<u64, FileUse>>);

/// The use of one file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FileUse {
    /// The number of runs with live messages that lie in the file.
    pub(crate) runs: u64,
    /// The length of these runs in bytes.
    pub(crate) run_bytes: u64,
    /// The number of reads that are under way or about to begin.
    reads: u64,
    /// The length of the file in bytes; 0 if it is not a file of the archive.
    pub(crate) size: u64,
}

/// Files that are being read: they stay until this is dropped.
pub(crate) struct FilePin {
    files: Arc<FileUses>,
    numbers: Vec<u64>,
}

impl FileUses {
    /// Counts a further run, which lies at `place`.
    pub(crate) fn hold(&self, place: &Place) {
        let mut files = self.0.lock();
        let needed = files.entry(place.file).or_default();
        needed.runs += 1;
        needed.run_bytes += u64::from(place.run_len);
    }

    /// Stops counting the runs at `places`: their messages are settled, or they were moved.
    pub(crate) fn free(&self, places: impl IntoIterator<Item = Place>) {
        let mut files = self.0.lock();
        for place in places {
            match files.get_mut(&place.file) {
                Some(needed) if needed.runs > 0 => {
                    needed.runs -= 1;
                    needed.run_bytes = needed.run_bytes.saturating_sub(u64::from(place.run_len));
                }
                _ => tracing::error!(file = place.file, "a run ended in a file that was not known to hold one"),
            }
        }
    }

    /// Notes the length of a file of the archive in bytes.
    pub(crate) fn set_size(&self, file: u64, bytes: u64) {
        self.0.lock().entry(file).or_default().size = bytes;
    }

    /// Keeps the files in which `places` lie until the result is dropped. The caller must make sure that the runs there
    /// count meanwhile.
    pub(crate) fn read(self: &Arc<Self>, places: impl Iterator<Item = Place>) -> FilePin {
        let mut numbers: Vec<u64> = places.map(|place| place.file).collect();
        numbers.dedup();
        let mut files = self.0.lock();
        numbers.iter().for_each(|number| files.entry(*number).or_default().reads += 1);
        drop(files);
        FilePin { files: self.clone(), numbers }
    }

    /// Returns a copy of the use of all files.
    pub(crate) fn now(&self) -> BTreeMap<u64, FileUse> {
        self.0.lock().clone()
    }

    /// Forgets those of the files `numbers` that are not needed.
    pub(crate) fn forget(&self, numbers: &[u64]) {
        let mut files = self.0.lock();
        for number in numbers {
            if files.get(number).is_some_and(|needed| !needed.is_needed()) {
                files.remove(number);
            }
        }
    }
}

impl FileUse {
    /// Returns whether the file has to stay.
    pub(crate) fn is_needed(&self) -> bool {
        self.runs > 0 || self.reads > 0
    }
}

impl Drop for FilePin {
    fn drop(&mut self) {
        let mut files = self.files.0.lock();
        for number in &self.numbers {
            if let Some(needed) = files.get_mut(number) {
                needed.reads = needed.reads.saturating_sub(1);
            }
        }
    }
}

/// Returns the free space in bytes that the disk must have for publishers to go on, if segments have `segment_bytes` bytes:
/// snapshots and a restart need some.
pub(crate) fn disk_free_min(segment_bytes: u64) -> u64 {
    DISK_FREE_MIN + segment_bytes
}

/// The free space in bytes that is kept beside that of one segment.
const DISK_FREE_MIN: u64 = 32 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_needed_while_a_run_lies_in_it_or_it_is_read() {
        let files = Arc::new(FileUses::default());
        let place = |file, run_len| Place { file, run_len, ..Place::default() };
        files.hold(&place(3, 10));
        files.hold(&place(3, 5));
        files.free([place(3, 10)]);
        let needed = files.now()[&3];
        assert_eq!((needed.runs, needed.run_bytes, needed.is_needed()), (1, 5, true));
        let reading = files.read([place(3, 5), place(3, 5), place(4, 1)].into_iter());
        files.free([place(3, 5)]);
        files.forget(&[3, 4]);
        assert!(files.now()[&3].is_needed() && files.now()[&4].is_needed());
        drop(reading);
        assert!(!files.now()[&3].is_needed());
        files.forget(&[3, 4]);
        assert!(files.now().is_empty());
    }
}

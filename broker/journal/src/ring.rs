//! Segments: files of one size that are filled one after the other, freed, and filled again under a new number.
use crate::disk::{Disk, DiskFile};
use crate::format::{SEGMENT_HEAD, SegmentHeader, VERSION};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

/// A file that holds a segment, or none.
pub(crate) struct Slot {
    pub(crate) name: String,
    pub(crate) file: Arc<dyn DiskFile>,
    /// Its bytes were written before, which makes syncs cheap.
    pub(crate) written: bool,
}

pub(crate) struct Ring {
    pub(crate) in_use: BTreeMap<u64, Slot>,
    pub(crate) free: Vec<Slot>,
    pub(crate) segment_bytes: u32,
    pub(crate) segments_max: u32,
    pub(crate) segments_reserved: u32,
    /// Number of the segment that records go into.
    pub(crate) current: u64,
    /// Where the next record begins in it.
    pub(crate) offset: u32,
    /// The disk had no space for a further file.
    pub(crate) disk_full: bool,
}

impl Ring {
    pub(crate) fn files(&self) -> u32 {
        (self.in_use.len() + self.free.len()) as u32
    }

    /// Segments that could still be begun.
    pub(crate) fn available(&self) -> u32 {
        let more = if self.disk_full { 0 } else { self.segments_max.saturating_sub(self.files()) };
        self.free.len() as u32 + more
    }

    /// Whether a record of `stride` bytes fits into the current segment.
    pub(crate) fn fits(&self, stride: u32) -> bool {
        self.in_use.contains_key(&self.current) && self.segment_bytes - self.offset >= stride
    }

    /// Begins the next segment: its file and header. None if there is no free one. `control` records get one beyond the
    /// budget if they have to: after a restart all files hold something until it is known what is still needed.
    pub(crate) fn advance(
        &mut self,
        disk: &dyn Disk,
        node: u64,
        first_sequence: u64,
        control: bool,
    ) -> Option<(Arc<dyn DiskFile>, [u8; SEGMENT_HEAD])> {
        let written = self.free.iter().rposition(|slot| slot.written);
        let slot = match written.map(|at| self.free.remove(at)).or_else(|| self.free.pop()) {
            Some(slot) => slot,
            None if self.available() > 0 || control => match self.create(disk, false) {
                Ok(slot) => slot,
                Err(error) => {
                    tracing::warn!(%error, "no space for a further segment of the log");
                    self.disk_full = true;
                    return None;
                }
            },
            None => return None,
        };
        self.current = self.in_use.last_key_value().map_or(self.current, |(&last, _)| last.max(self.current)) + 1;
        self.offset = SEGMENT_HEAD as u32;
        let header = SegmentHeader { version: VERSION, node, segment: self.current, first_sequence };
        let file = slot.file.clone();
        self.in_use.insert(self.current, slot);
        Some((file, header.encode()))
    }

    fn create(&self, disk: &dyn Disk, zeroed: bool) -> io::Result<Slot> {
        let taken = |name: &str| self.in_use.values().chain(&self.free).any(|slot| slot.name == name);
        let name = (0..).map(name_of).find(|name| !taken(name)).unwrap_or_default();
        create_slot(disk, name, self.segment_bytes, zeroed)
    }

    /// Name for a further file that is to be prepared, if one is wanted: the reserve and one more lie ready, so that a
    /// disk that fills up does not stop what goes on. Whether to have it written once: what is used next is.
    pub(crate) fn wants_spare(&self) -> Option<(String, bool)> {
        let taken = |name: &str| self.in_use.values().chain(&self.free).any(|slot| slot.name == name);
        let room = !self.disk_full && self.files() < self.segments_max;
        let wanted = room && self.free.len() <= self.segments_reserved as usize;
        let name = wanted.then(|| (SPARE_FROM..).map(name_of).find(|name| !taken(name)).unwrap_or_default())?;
        Some((name, !self.free.iter().any(|slot| slot.written)))
    }

    /// Frees the segments below `below` that nobody keeps. Files beyond the budget go.
    pub(crate) fn release(&mut self, disk: &dyn Disk, below: u64, keep: &dyn Fn(u64) -> bool) {
        let below = below.min(self.current);
        let gone: Vec<u64> = self.in_use.range(..below).map(|(&number, _)| number).filter(|&n| !keep(n)).collect();
        for number in gone {
            if let Some(slot) = self.in_use.remove(&number) {
                self.free.push(Slot { written: true, ..slot });
            }
        }
        while self.files() > self.segments_max
            && let Some(slot) = self.free.pop()
        {
            let _ = disk.remove(&slot.name);
        }
    }
}

/// Makes a file for segments.
pub(crate) fn create_slot(disk: &dyn Disk, name: String, bytes: u32, zeroed: bool) -> io::Result<Slot> {
    let file = disk.create(&name, u64::from(bytes), zeroed)?;
    disk.sync_folder(FOLDER)?;
    Ok(Slot { name, file, written: zeroed })
}

fn name_of(number: u32) -> String {
    format!("{FOLDER}/{number:03}")
}

/// The folder of the segments.
pub(crate) const FOLDER: &str = "wal";
/// Files prepared in the background have names of their own, apart from those made in need.
const SPARE_FROM: u32 = 500;

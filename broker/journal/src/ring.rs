//! The ring of segments: files of one size that are filled one after the other, freed, and filled again under a new
//! number.
//!
//! A freed file keeps its old header until a new segment begins in it or, before that, until it is swept: the header is
//! replaced with that of a free file, so that the next start knows that the file is free, even on a full disk. Sweeping
//! waits until all records are durable that were appended before the release, because the release may depend on them.
use crate::disk::{Disk, DiskFile};
use crate::format::{SEGMENT_HEAD, SegmentHeader, VERSION};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

/// A file that holds one segment or is free.
pub(crate) struct SegmentFile {
    pub(crate) name: String,
    pub(crate) file: Arc<dyn DiskFile>,
    /// True if all bytes of the file were written before, which makes syncs cheap.
    pub(crate) written: bool,
    /// For a freed file that still has its old header: the release that freed it.
    pub(crate) freed_at: Option<Release>,
}

/// A release of segments. It counts once all records are durable that were appended before it.
#[derive(Clone, Copy)]
pub(crate) struct Release {
    /// Sequence of the last record that was appended before.
    pub(crate) last: u64,
    /// All segments below this number were released.
    pub(crate) below: u64,
}

pub(crate) struct Ring {
    /// The files that hold segments, by segment number.
    pub(crate) in_use: BTreeMap<u64, SegmentFile>,
    pub(crate) free: Vec<SegmentFile>,
    /// The files that have no valid header. They are free unless they hold a segment that is needed, and are not used
    /// until that has been found out.
    pub(crate) unknown: Vec<SegmentFile>,
    /// Name of the free file that is being swept.
    pub(crate) swept_file: Option<String>,
    pub(crate) segment_bytes: u32,
    pub(crate) segments_max: u32,
    pub(crate) segments_reserved: u32,
    /// Number of the segment that records are appended to.
    pub(crate) current: u64,
    /// Offset of the next record in the current segment.
    pub(crate) offset: u32,
    /// All segments below this number were released, so their files may have been reused.
    pub(crate) released: u64,
    /// True if the last attempt to create a file failed.
    pub(crate) disk_full: bool,
    /// True if a control record found no room. Files beyond `segments_max` may then be created for it.
    pub(crate) control_waits: bool,
}

/// A segment whose header has to be written before its first record.
#[derive(Clone, Copy)]
pub(crate) struct NewSegment {
    /// Number of the segment.
    pub(crate) segment: u64,
    /// The number below which all segments were released, as in the header.
    pub(crate) released: u64,
    pub(crate) header: [u8; SEGMENT_HEAD],
}

impl Ring {
    /// Returns the number of files.
    pub(crate) fn files(&self) -> u32 {
        (self.in_use.len() + self.free.len() + self.unknown.len()) as u32 + u32::from(self.swept_file.is_some())
    }

    /// Returns the number of further segments that can be begun: free files, and files that may still be created.
    pub(crate) fn available(&self) -> u32 {
        let more = if self.disk_full { 0 } else { self.segments_max.saturating_sub(self.files()) };
        self.free.len() as u32 + u32::from(self.swept_file.is_some()) + more
    }

    /// Returns whether a record of `stride` bytes is to go into the current segment. As long as there is a free file
    /// for the next segment, the headroom is left free in the current one, so that the records of a start find room
    /// there in any case.
    pub(crate) fn fits(&self, stride: u32) -> bool {
        let headroom = self.headroom();
        let spares = !self.free.is_empty() && u64::from(stride) + headroom <= u64::from(self.segment_bytes / 2);
        u64::from(self.left()) >= u64::from(stride) + if spares { headroom } else { 0 }
    }

    /// Returns how many bytes of records certainly fit into the rest of the current segment and `free` free files,
    /// without the headroom of each.
    pub(crate) fn room(&self, free: usize) -> u64 {
        let bytes = u64::from(self.left()) + free as u64 * u64::from(self.segment_bytes);
        bytes.saturating_sub(self.headroom() * (1 + free as u64))
    }

    /// Returns the number of bytes left in the current segment.
    pub(crate) fn left(&self) -> u32 {
        if self.in_use.contains_key(&self.current) { self.segment_bytes - self.offset } else { 0 }
    }

    /// Begins the next segment in a free file or, if there is none, in a new one. Returns `None` if no file may or can
    /// be created. For a `control` record a file beyond `segments_max` may be created: after a restart all files may
    /// hold segments until the caller knows which are still needed.
    pub(crate) fn advance(
        &mut self,
        disk: &dyn Disk,
        node: u64,
        first_sequence: u64,
        control: bool,
    ) -> Option<NewSegment> {
        let written = self.free.iter().rposition(|slot| slot.written);
        let slot = match written.map(|at| self.free.remove(at)).or_else(|| self.free.pop()) {
            Some(slot) => slot,
            None if self.available() > 0 || control => match self.create(disk, false) {
                Ok(slot) => slot,
                Err(error) => {
                    tracing::warn!(%error, "cannot create a further segment of the log");
                    self.disk_full = true;
                    return None;
                }
            },
            None => return None,
        };
        self.current = self.in_use.last_key_value().map_or(self.current, |(&last, _)| last.max(self.current)) + 1;
        self.offset = SEGMENT_HEAD as u32;
        let (segment, released) = (self.current, self.released);
        let header = SegmentHeader { version: VERSION, node, segment, first_sequence, released };
        self.in_use.insert(self.current, SegmentFile { freed_at: None, ..slot });
        Some(NewSegment { segment, released, header: header.encode() })
    }

    fn is_taken(&self, name: &str) -> bool {
        self.swept_file.as_deref() == Some(name)
            || self.in_use.values().chain(&self.free).chain(&self.unknown).any(|slot| slot.name == name)
    }

    fn create(&self, disk: &dyn Disk, zeroed: bool) -> io::Result<SegmentFile> {
        let name = (0..).map(name_of).find(|name| !self.is_taken(name)).unwrap_or_default();
        create_slot(disk, name, self.segment_bytes, zeroed)
    }

    /// Returns the name of a file that should be prepared, and whether to fill it with zeros, which is done if no free
    /// file has been written before. Returns `None` if enough files are free: as many as are reserved and one more, so
    /// that records still find room when the disk fills up.
    pub(crate) fn wants_spare(&self) -> Option<(String, bool)> {
        let beyond = if self.control_waits && self.free.len() < 2 { self.segments_reserved.max(2) } else { 0 };
        let room = !self.disk_full && self.files() < self.segments_max + beyond;
        let wanted = room && self.free.len() <= self.segments_reserved as usize;
        let name = wanted.then(|| (SPARE_FROM..).map(name_of).find(|name| !self.is_taken(name)).unwrap_or_default())?;
        Some((name, !self.free.iter().any(|slot| slot.written)))
    }

    /// Frees the files of the segments below `below`, except for those for which `keep` returns true. `last` is the
    /// sequence of the last record that was appended.
    pub(crate) fn release(&mut self, last: u64, below: u64, keep: &dyn Fn(u64) -> bool) {
        let below = below.min(self.current);
        self.released = self.released.max(below);
        let gone: Vec<u64> = self.in_use.range(..below).map(|(&number, _)| number).filter(|&n| !keep(n)).collect();
        self.control_waits &= gone.is_empty();
        for number in gone {
            if let Some(slot) = self.in_use.remove(&number) {
                self.free.push(SegmentFile { written: true, freed_at: Some(Release { last, below }), ..slot });
            }
        }
    }

    /// Returns whether a free file should be swept now. No file is swept that is needed for the `promised` bytes of
    /// records, since a file cannot be used while it is being swept.
    pub(crate) fn wants_sweep(&self, durable: u64, promised: u64) -> bool {
        promised <= self.room(self.free.len().saturating_sub(1))
            && self.free.iter().any(|slot| self.is_for_sweep(slot, durable))
    }

    /// Returns how many bytes of each segment are kept for records that are appended without a promise of room.
    pub(crate) fn headroom(&self) -> u64 {
        HEADROOM.min(u64::from(self.segment_bytes) / 8)
    }

    fn has_too_many(&self) -> bool {
        self.files() > self.segments_max && !self.control_waits
    }

    fn is_for_sweep(&self, slot: &SegmentFile, durable: u64) -> bool {
        match slot.freed_at {
            Some(release) => release.last <= durable,
            None => self.has_too_many(),
        }
    }

    /// Takes a free file that should be swept out of the list of free files. The second value says whether there are
    /// too many files, so that the file should be removed.
    pub(crate) fn take_for_sweep(&mut self, durable: u64, promised: u64) -> Option<(SegmentFile, bool)> {
        if !self.wants_sweep(durable, promised) {
            return None;
        }
        let at = self.free.iter().position(|slot| self.is_for_sweep(slot, durable))?;
        let too_many = self.has_too_many();
        let slot = self.free.remove(at);
        self.swept_file = Some(slot.name.clone());
        Some((slot, too_many))
    }
}

/// Creates a file for segments and makes its name durable.
pub(crate) fn create_slot(disk: &dyn Disk, name: String, bytes: u32, zeroed: bool) -> io::Result<SegmentFile> {
    let file = disk.create(&name, u64::from(bytes), zeroed)?;
    disk.sync_folder(FOLDER)?;
    Ok(SegmentFile { name, file, written: zeroed, freed_at: None })
}

fn name_of(number: u32) -> String {
    format!("{FOLDER}/{number:03}")
}

/// The largest headroom of a segment in bytes: room for records that are appended without a promise, such as votes.
const HEADROOM: u64 = 1 << 20;
/// The folder of the segment files.
pub(crate) const FOLDER: &str = "wal";
/// Number in the name of the first file that is prepared in the background. Files created on demand count from 0, so
/// the two do not choose the same name at the same time.
const SPARE_FROM: u32 = 500;

//! Segments: files of one size that are filled one after the other, freed, and filled again under a new number.
//!
//! A file that was freed keeps its old header until it is begun again or, before that, swept: then it is known for a free one
//! by a start, too, also on a full disk. Nothing of a freed segment is changed before what allowed its release is durable.
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
    /// It was freed, and has its old header until what was appended up to this sequence is durable.
    pub(crate) freed_at: Option<u64>,
}

pub(crate) struct Ring {
    pub(crate) in_use: BTreeMap<u64, Slot>,
    pub(crate) free: Vec<Slot>,
    /// Files without a header that is known: free ones, unless they hold a segment that is needed. Not used before that is known.
    pub(crate) unknown: Vec<Slot>,
    /// Name of a free file that is being swept.
    pub(crate) away: Option<String>,
    pub(crate) segment_bytes: u32,
    pub(crate) segments_max: u32,
    pub(crate) segments_reserved: u32,
    /// Number of the segment that records go into.
    pub(crate) current: u64,
    /// Where the next record begins in it.
    pub(crate) offset: u32,
    /// Segments below this number may be gone.
    pub(crate) released: u64,
    /// The disk had no space for a further file.
    pub(crate) disk_full: bool,
    /// A control record found no room: a file beyond the budget is made for it if there is no other way.
    pub(crate) pressed: bool,
}

/// A segment that is begun with the next record.
#[derive(Clone, Copy)]
pub(crate) struct Begun {
    pub(crate) segment: u64,
    pub(crate) released: u64,
    pub(crate) header: [u8; SEGMENT_HEAD],
}

impl Ring {
    pub(crate) fn files(&self) -> u32 {
        (self.in_use.len() + self.free.len() + self.unknown.len()) as u32 + u32::from(self.away.is_some())
    }

    /// Segments that could still be begun.
    pub(crate) fn available(&self) -> u32 {
        let more = if self.disk_full { 0 } else { self.segments_max.saturating_sub(self.files()) };
        self.free.len() as u32 + u32::from(self.away.is_some()) + more
    }

    /// Whether a record of `stride` bytes is to go into the current segment. As long as there is a file for the next one, what
    /// nobody asks room for is left free in it: then a start finds room for that whatever else it finds.
    pub(crate) fn fits(&self, stride: u32) -> bool {
        let kept = self.unasked();
        let keeps = !self.free.is_empty() && u64::from(stride) + kept <= u64::from(self.segment_bytes / 2);
        u64::from(self.left()) >= u64::from(stride) + if keeps { kept } else { 0 }
    }

    /// Bytes of records that files with room for `left` bytes and `free` free ones take for sure, beside those that nobody
    /// asks room for.
    pub(crate) fn room(&self, free: usize) -> u64 {
        let bytes = u64::from(self.left()) + free as u64 * u64::from(self.segment_bytes);
        bytes.saturating_sub(self.unasked() * (1 + free as u64))
    }

    /// Bytes that are left in the current segment.
    pub(crate) fn left(&self) -> u32 {
        if self.in_use.contains_key(&self.current) { self.segment_bytes - self.offset } else { 0 }
    }

    /// Begins the next segment: its file and header. None if there is no free one. `control` records get one beyond the
    /// budget if they have to: after a restart all files hold something until it is known what is still needed.
    pub(crate) fn advance(&mut self, disk: &dyn Disk, node: u64, first_sequence: u64, control: bool) -> Option<Begun> {
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
        let (segment, released) = (self.current, self.released);
        let header = SegmentHeader { version: VERSION, node, segment, first_sequence, released };
        self.in_use.insert(self.current, Slot { freed_at: None, ..slot });
        Some(Begun { segment, released, header: header.encode() })
    }

    fn is_taken(&self, name: &str) -> bool {
        self.away.as_deref() == Some(name)
            || self.in_use.values().chain(&self.free).chain(&self.unknown).any(|slot| slot.name == name)
    }

    fn create(&self, disk: &dyn Disk, zeroed: bool) -> io::Result<Slot> {
        let name = (0..).map(name_of).find(|name| !self.is_taken(name)).unwrap_or_default();
        create_slot(disk, name, self.segment_bytes, zeroed)
    }

    /// Name for a further file that is to be prepared, if one is wanted: the reserve and one more lie ready, so that a
    /// disk that fills up does not stop what goes on. Whether to have it written once: what is used next is.
    pub(crate) fn wants_spare(&self) -> Option<(String, bool)> {
        let beyond = if self.pressed && self.free.len() < 2 { self.segments_reserved.max(2) } else { 0 };
        let room = !self.disk_full && self.files() < self.segments_max + beyond;
        let wanted = room && self.free.len() <= self.segments_reserved as usize;
        let name = wanted.then(|| (SPARE_FROM..).map(name_of).find(|name| !self.is_taken(name)).unwrap_or_default())?;
        Some((name, !self.free.iter().any(|slot| slot.written)))
    }

    /// Frees the segments below `below` that nobody keeps; `last` is the sequence appended last.
    pub(crate) fn release(&mut self, last: u64, below: u64, keep: &dyn Fn(u64) -> bool) {
        let below = below.min(self.current);
        self.released = self.released.max(below);
        let gone: Vec<u64> = self.in_use.range(..below).map(|(&number, _)| number).filter(|&n| !keep(n)).collect();
        self.pressed &= gone.is_empty();
        for number in gone {
            if let Some(slot) = self.in_use.remove(&number) {
                self.free.push(Slot { written: true, freed_at: Some(last), ..slot });
            }
        }
    }

    /// Whether a free file is to be swept. None is taken that `promised` bytes of records need: it is away meanwhile.
    pub(crate) fn wants_sweep(&self, durable: u64, promised: u64) -> bool {
        promised <= self.room(self.free.len().saturating_sub(1))
            && self.free.iter().any(|slot| self.is_for_sweep(slot, durable))
    }

    /// Bytes that are kept for records that nobody asks room for.
    pub(crate) fn unasked(&self) -> u64 {
        UNASKED.min(u64::from(self.segment_bytes) / 8)
    }

    fn has_too_many(&self) -> bool {
        self.files() > self.segments_max && !self.pressed
    }

    fn is_for_sweep(&self, slot: &Slot, durable: u64) -> bool {
        match slot.freed_at {
            Some(last) => last <= durable,
            None => self.has_too_many(),
        }
    }

    /// Takes a free file to be swept: its old header is to go or, if there are too many files, the file (second value).
    pub(crate) fn take_for_sweep(&mut self, durable: u64, promised: u64) -> Option<(Slot, bool)> {
        if !self.wants_sweep(durable, promised) {
            return None;
        }
        let at = self.free.iter().position(|slot| self.is_for_sweep(slot, durable))?;
        let too_many = self.has_too_many();
        let slot = self.free.remove(at);
        self.away = Some(slot.name.clone());
        Some((slot, too_many))
    }
}

/// Makes a file for segments.
pub(crate) fn create_slot(disk: &dyn Disk, name: String, bytes: u32, zeroed: bool) -> io::Result<Slot> {
    let file = disk.create(&name, u64::from(bytes), zeroed)?;
    disk.sync_folder(FOLDER)?;
    Ok(Slot { name, file, written: zeroed, freed_at: None })
}

fn name_of(number: u32) -> String {
    format!("{FOLDER}/{number:03}")
}

/// Bytes for records that nobody asks room for: votes and the like.
const UNASKED: u64 = 1 << 20;
/// The folder of the segments.
pub(crate) const FOLDER: &str = "wal";
/// Files prepared in the background have names of their own, apart from those made in need.
const SPARE_FROM: u32 = 500;

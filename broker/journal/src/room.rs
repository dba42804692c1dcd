//! Room in the log: it is promised to a record before the record is appended, so that the append never fails for want
//! of room.
//!
//! There are two limits. When only `segments_reserved` segments are left, publishers are held back; the messages they
//! have sent by then are still appended, until half of the reserve is used. The other half is for control records, such
//! as the settlements of consumers, which lead to segments being freed. In each segment some bytes, the headroom, are
//! left for records that are appended without a promise, such as votes.
use crate::format::{PROOF_FILE, stride};
use crate::ring::Ring;
use crate::state::{Journal, JournalState};
use crate::writer;
use std::io;
use std::sync::atomic::Ordering::Relaxed;

impl Journal {
    /// Returns whether more than the reserved segments can still be begun. If not, publishers should be held back.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.has_room_in(&self.0.state.lock().ring)
    }

    pub(crate) fn has_room_in(&self, ring: &Ring) -> bool {
        ring.available() > self.0.options.segments_reserved
    }

    /// Returns whether there is room for a record with a body of `bytes` bytes. If so, the room is promised to that
    /// record until [`redeem`](Self::redeem) is called with the same number. A `control` record may use the whole
    /// reserve, other records half of it. The room has to be in files that exist, since creating a file may fail for
    /// want of space or file descriptors.
    #[must_use]
    pub fn promise(&self, bytes: usize, control: bool) -> bool {
        let mut state = self.0.state.lock();
        let wanted = state.promised + self.cost(bytes);
        let segment = u64::from(self.0.options.segment_bytes);
        let ready = state.ring.room(state.ring.free.len());
        let reserve = u64::from(self.0.options.segments_reserved.div_ceil(2)) * segment;
        let granted = wanted <= ready
            && (control || wanted + reserve <= ready || wanted + reserve <= ready + self.growth(&state));
        if granted {
            state.promised = wanted;
        } else {
            state.ring.control_waits |= control;
            if self.0.asleep.load(Relaxed) && self.0.has_idle_work(&state) {
                self.0.wakeup.notify_all();
            }
        }
        granted
    }

    /// Ends a promise of room for a body of `bytes` bytes. To be called when the record is appended, or will not be
    /// appended.
    pub fn redeem(&self, bytes: usize) {
        let cost = self.cost(bytes);
        let mut state = self.0.state.lock();
        state.promised = state.promised.saturating_sub(cost);
    }

    /// Returns the most bytes that a record can take: its own, and those left over at the end of a segment in which it
    /// did not fit.
    fn cost(&self, bytes: usize) -> u64 {
        let segment = u64::from(self.0.options.segment_bytes);
        (u64::from(stride(bytes as u32)) * 2).min(segment)
    }

    /// Returns the size in bytes of the segment files that may still be created and that the disk has space for.
    fn growth(&self, state: &JournalState) -> u64 {
        let more = u64::from(state.ring.segments_max.saturating_sub(state.ring.files()));
        if more == 0 || state.ring.disk_full {
            return 0;
        }
        let segment = u64::from(self.0.options.segment_bytes);
        more.min(self.0.disk.free_bytes().unwrap_or(0) / segment) * segment
    }

    /// To be called regularly. Allows the creation of segment files to be tried again after it failed, and
    /// checks that the log's files and the data folder are still in place: bytes written to a removed file are lost
    /// when the process ends. If they are not, the log fails as after an error of the disk.
    pub fn look_for_space(&self) {
        let removed = {
            let mut state = self.0.state.lock();
            let was_full = std::mem::take(&mut state.ring.disk_full);
            if was_full && self.0.asleep.load(Relaxed) {
                self.0.wakeup.notify_all();
            }
            let current = state.ring.in_use.get(&state.ring.current).map(|slot| (slot.file.clone(), slot.name.clone()));
            let gone = current.filter(|(file, _)| matches!(file.is_linked(), Ok(false))).map(|(_, name)| name);
            gone.or_else(|| matches!(self.0.proof.is_linked(), Ok(false)).then(|| PROOF_FILE.to_owned()))
        };
        let removed = removed.map(|name| format!("{name} was removed from the data folder"));
        let moved = || {
            matches!(self.0.disk.is_in_place(), Ok(false)).then(|| "the data folder was replaced by another".to_owned())
        };
        if let Some(trouble) = removed.or_else(moved).filter(|_| !self.0.failed.load(Relaxed)) {
            writer::fail(&self.0, &io::Error::other(trouble));
        }
    }
}

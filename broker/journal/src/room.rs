//! Room in the log: what is promised before it is appended, so that an append never finds none.
//!
//! Two marks lie below the log's size. At `segments_reserved` segments publishers are held back; what they had on the way
//! still goes in, down to half of the reserve. From there on only control records do, such as what consumers settle: they free
//! the segments. The last bytes are for what nobody asks room for: votes and the like.
use crate::format::stride;
use crate::journal::{Journal, State};
use crate::ring::Ring;
use crate::writer;
use std::io;
use std::sync::atomic::Ordering::Relaxed;

impl Journal {
    /// Whether the log is far from full.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.has_room_in(&self.0.state.lock().ring)
    }

    pub(crate) fn has_room_in(&self, ring: &Ring) -> bool {
        ring.available() > self.0.options.segments_reserved
    }

    /// Whether there is room for a record with a body of `bytes`: then it is promised, until [`redeem`](Self::redeem). Control
    /// records may use all of the reserve. Only files that are there count: making one may fail, for want of space or of
    /// descriptors.
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
            state.ring.pressed |= control;
            if self.0.asleep.load(Relaxed) && self.0.has_idle_work(&state) {
                self.0.queued.notify_all();
            }
        }
        granted
    }

    /// The record that room was promised for is appended, or will not be.
    pub fn redeem(&self, bytes: usize) {
        let cost = self.cost(bytes);
        let mut state = self.0.state.lock();
        state.promised = state.promised.saturating_sub(cost);
    }

    /// What a record takes at most, with what is left over where it did not fit.
    fn cost(&self, bytes: usize) -> u64 {
        let segment = u64::from(self.0.options.segment_bytes);
        (u64::from(stride(bytes as u32)) * 2).min(segment)
    }

    /// Bytes of segments that the disk has space for and that may be made.
    fn growth(&self, state: &State) -> u64 {
        let more = u64::from(state.ring.segments_max.saturating_sub(state.ring.files()));
        if more == 0 || state.ring.disk_full {
            return 0;
        }
        let segment = u64::from(self.0.options.segment_bytes);
        more.min(self.0.disk.free_bytes().unwrap_or(0) / segment) * segment
    }

    /// Looks again whether the disk has space for further segments, and whether the log's files are still there: what is
    /// written to a file that was removed is lost when the process ends.
    pub fn look_for_space(&self) {
        let removed = {
            let mut state = self.0.state.lock();
            let was_full = std::mem::take(&mut state.ring.disk_full);
            if was_full && self.0.asleep.load(Relaxed) {
                self.0.queued.notify_all();
            }
            let current = state.ring.in_use.get(&state.ring.current).map(|slot| (slot.file.clone(), slot.name.clone()));
            let gone = current.filter(|(file, _)| matches!(file.is_linked(), Ok(false))).map(|(_, name)| name);
            gone.or_else(|| matches!(self.0.proof.is_linked(), Ok(false)).then(|| crate::proof::NAME.to_owned()))
        };
        let removed = removed.map(|name| format!("{name} was removed from the data folder"));
        let moved =
            || matches!(self.0.disk.is_in_place(), Ok(false)).then(|| "another folder has its place".to_owned());
        if let Some(trouble) = removed.or_else(moved).filter(|_| !self.0.failed.load(Relaxed)) {
            writer::fail(&self.0, &io::Error::other(trouble));
        }
    }
}

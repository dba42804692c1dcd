//! The functions of [`Journal`], the handle to the log: appends records, reads their bodies, and releases segments that are not needed
//! any more.
//!
//! A record has its place as soon as it is appended. The writer's thread then writes it, together with all records that
//! were appended meanwhile, and runs the record's callback once it is synced. A failed write or sync is never repeated,
//! because the kernel may have dropped the pages: the journal writes nothing more, and `on_failure` ends the process.
use crate::disk::Disk;
use crate::format::{Head, RECORD_HEAD, RecordHeader, RecordPlace, Recovered, SEGMENT_HEAD, stride};
use crate::open_error::JournalOpenError;
use crate::recover;
use crate::ring::{NewSegment, SegmentFile};
use crate::scan::find_segment;
use crate::state::{Journal, JournalInner, JournalOptions, JournalState, PendingRecord};
use crate::writer;
use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Acquire, Ordering::Relaxed};

/// The body of a record and its checksum.
#[derive(Clone, Debug)]
pub struct RecordBody {
    /// The bytes.
    pub bytes: Bytes,
    /// The CRC32 of `bytes`.
    pub crc: u32,
}

impl From<Bytes> for RecordBody {
    fn from(bytes: Bytes) -> Self {
        let crc = crc32fast::hash(&bytes);
        Self { bytes, crc }
    }
}

/// The error of an append for which the log has no room. Control records may still have room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the log has no room for a record of {bytes} bytes")]
pub struct Full {
    /// Length of the record's body in bytes.
    pub bytes: usize,
}

/// The reasons why a record cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The segment with this number was released or is missing.
    #[error("segment {0} is not in the log any more")]
    Released(u64),
    /// The bytes of the record have changed since they were written.
    #[error("{file} is damaged at offset {offset}: the checksum does not match")]
    Damaged {
        /// Name of the file.
        file: String,
        /// Offset of the record's header in the file, in bytes.
        offset: u32,
    },
    /// The disk returned an error.
    #[error("{file}: {error}")]
    Disk {
        /// Name of the file.
        file: String,
        /// The error of the disk.
        error: io::Error,
    },
}

/// The usage of the log: how many segments are in use, and how many are left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogUsage {
    /// The largest number of segments, see [`JournalOptions::segments_max`].
    pub segments_max: u32,
    /// The number of segments that hold records.
    pub used: u32,
    /// The number of further segments that can be begun: free files, and files that may still be created.
    pub available: u32,
    /// Number of the oldest segment that holds records.
    pub first: u64,
    /// Number of the segment that records are appended to.
    pub current: u64,
    /// Bytes of records written since the start.
    pub bytes_written: u64,
    /// Syncs of records since the start.
    pub syncs: u64,
}

impl Journal {
    /// Opens the log, or makes a new one. Calls `record` for every intact record in the order of the log, except for
    /// records in segments that were already released and are held only because bodies in them are still in use.
    ///
    /// # Errors
    /// [`JournalOpenError`] if the log is damaged or incomplete, belongs to another node or was written by a newer
    /// version, or if the disk fails.
    pub fn open(
        disk: Arc<dyn Disk>,
        options: JournalOptions,
        record: &mut dyn FnMut(Recovered),
    ) -> Result<Self, JournalOpenError> {
        let recovery = recover::recover(&*disk, &options, record)?;
        let state = JournalState {
            ring: recovery.ring,
            next_sequence: recovery.next_sequence,
            queue: Vec::new(),
            stopping: false,
            preparing: false,
            kept: recovery.kept,
            promised: 0,
        };
        let inner = Arc::new(JournalInner {
            disk,
            options,
            state: Mutex::new(state),
            wakeup: Condvar::new(),
            progress: Condvar::new(),
            durable_sequence: AtomicU64::new(recovery.next_sequence - 1),
            bytes_written: AtomicU64::new(0),
            syncs: AtomicU64::new(0),
            failed: AtomicBool::new(false),
            proof: recovery.proof,
            proven_sequence: AtomicU64::new(recovery.next_sequence - 1),
            asleep: AtomicBool::new(false),
            driven_writes: Mutex::default(),
            writing: Mutex::default(),
        });
        if recovery.lacks_kept {
            Self(inner.clone()).put_kept(&mut inner.state.lock(), None);
        }
        match &inner.options.driver {
            Some(driver) => driver.drive(Self(inner.clone())),
            None => writer::start(&inner)
                .map_err(|error| JournalOpenError::Disk { file: "the log's writer thread".to_owned(), error })?,
        }
        Ok(Self(inner))
    }

    /// Searches the files without a header for the segments `missing`, which are needed for the bodies in them. A file
    /// that holds records of such a segment gets its header back. The other files without a header are free from then
    /// on. Returns the numbers of the segments that were found.
    ///
    /// # Errors
    /// [`JournalOpenError::Disk`] if the disk fails.
    pub fn settle_unknown(&self, missing: &BTreeSet<u64>) -> Result<Vec<u64>, JournalOpenError> {
        let mut unknown = std::mem::take(&mut self.0.state.lock().ring.unknown);
        let mut found = Vec::new();
        for &segment in missing {
            for at in 0..unknown.len() {
                if find_segment(&unknown[at], self.0.options.node, segment)? {
                    let slot = unknown.remove(at);
                    recover::write_header(&slot, self.0.options.node, segment)?;
                    self.0.state.lock().ring.in_use.insert(segment, SegmentFile { written: true, ..slot });
                    found.push(segment);
                    break;
                }
            }
        }
        self.0.state.lock().ring.free.append(&mut unknown);
        Ok(found)
    }

    /// Appends a record, wakes the writer's thread and returns the place of the record's body. Does not wait for a
    /// sync. A `control` record may use the reserved segments and, if there is no free one, a file beyond
    /// `segments_max`. The thread that syncs the record calls `on_durable` once this record and all earlier ones are
    /// durable.
    ///
    /// # Errors
    /// [`Full`] if there is no segment for the record, if it is no control record and only the reserved segments are
    /// left, or if its body is larger than [`record_bytes_max`](Self::record_bytes_max).
    ///
    /// # Panics
    /// If a kept record has a body, or if there are more than 40 combinations of group and kind of kept records.
    pub fn append(
        &self,
        head: Head,
        body: Bytes,
        control: bool,
        on_durable: Option<Box<dyn FnOnce() + Send>>,
    ) -> Result<RecordPlace, Full> {
        self.queue(head, body.into(), control, on_durable, true)
    }

    /// Appends a record as [`append`](Self::append) does, with the same errors and panics. If `wake` is false, the
    /// writer's thread is not woken, and the caller has to call [`write_or_leave`](Self::write_or_leave) or
    /// [`wake_writer`](Self::wake_writer) soon.
    ///
    /// # Errors
    /// [`Full`], as [`append`](Self::append).
    pub fn queue(
        &self,
        head: Head,
        body: RecordBody,
        control: bool,
        on_durable: Option<Box<dyn FnOnce() + Send>>,
        wake: bool,
    ) -> Result<RecordPlace, Full> {
        let full = Full { bytes: body.bytes.len() };
        if body.bytes.len() > self.record_bytes_max() {
            return Err(full);
        }
        let mut state = self.0.state.lock();
        if !control && !self.has_room_in(&state.ring) {
            return Err(full);
        }
        if head.is_kept() {
            assert!(body.bytes.is_empty(), "a kept record must not have a body");
            state.kept.insert((head.group, head.kind), head);
            assert!(state.kept.len() <= KEPT_MAX, "there are more than {KEPT_MAX} kept records");
        }
        let fits = state.ring.fits(stride(body.bytes.len() as u32));
        let new_segment = if fits { None } else { self.begin_segment(&mut state, control).ok_or(full)? };
        let place = self.put(&mut state, NewRecord { head, body, on_durable }, new_segment);
        drop(state);
        if wake {
            self.0.wakeup.notify_all();
        }
        Ok(place)
    }

    /// Begins the next segment and queues the kept records at its beginning. Returns `None` if there is no file for the
    /// segment, and `Some` of the result of [`put_kept`](Self::put_kept) otherwise.
    fn begin_segment(&self, state: &mut JournalState, control: bool) -> Option<Option<NewSegment>> {
        let first_sequence = state.next_sequence;
        let new_segment = state.ring.advance(&*self.0.disk, self.0.options.node, first_sequence, control)?;
        Some(self.put_kept(state, Some(new_segment)))
    }

    /// Queues the kept records. The first of them takes `new_segment` along; if there are none, `new_segment` is
    /// returned for the next record.
    fn put_kept(&self, state: &mut JournalState, mut new_segment: Option<NewSegment>) -> Option<NewSegment> {
        let kept: Vec<Head> = state.kept.values().copied().collect();
        for head in kept {
            let record = NewRecord { head, body: Bytes::new().into(), on_durable: None };
            self.put(state, record, new_segment.take());
        }
        new_segment
    }

    /// Queues a record at the end of the current segment, where it has to fit, and returns the place of its body.
    fn put(&self, state: &mut JournalState, record: NewRecord, new_segment: Option<NewSegment>) -> RecordPlace {
        let NewRecord { head, body: RecordBody { bytes: body, crc: body_crc }, on_durable } = record;
        let body_len = body.len() as u32;
        let sequence = state.next_sequence;
        state.next_sequence += 1;
        let (segment, offset) = (state.ring.current, state.ring.offset);
        state.ring.offset += stride(body_len);
        let durable_now = self.0.durable_sequence.load(Relaxed);
        let node = self.0.options.node;
        let header = RecordHeader { node, segment, sequence, durable: durable_now, head, body_len, body_crc }.encode();
        let file = state.ring.in_use[&segment].file.clone();
        state.queue.push(PendingRecord { file, new_segment, offset, header, body, sequence, on_durable });
        RecordPlace { segment, offset: offset + RECORD_HEAD as u32, len: body_len }
    }

    /// Returns the size of a segment in bytes.
    #[must_use]
    pub fn segment_bytes(&self) -> u64 {
        u64::from(self.0.options.segment_bytes)
    }

    /// Returns the length of the largest body that a record may have, in bytes: it fits into a segment beside all kept
    /// records.
    #[must_use]
    pub fn record_bytes_max(&self) -> usize {
        self.0.options.segment_bytes as usize - SEGMENT_HEAD - (KEPT_MAX + 1) * RECORD_HEAD - 8
    }

    /// Reads the body of the record at `place` and checks its checksum. If the record is in one of the two newest
    /// segments and may still be unwritten, waits until all records appended so far are durable.
    ///
    /// # Errors
    /// [`ReadError`] if the segment is not in the log any more, the record is damaged, or the disk fails.
    pub fn read(&self, place: RecordPlace) -> Result<Bytes, ReadError> {
        let (file, name, unwritten) = {
            let state = self.0.state.lock();
            let slot = state.ring.in_use.get(&place.segment).ok_or(ReadError::Released(place.segment))?;
            let behind = self.0.durable_sequence.load(Acquire) + 1 < state.next_sequence;
            (slot.file.clone(), slot.name.clone(), behind && place.segment + 1 >= state.ring.current)
        };
        if unwritten {
            self.flush().map_err(|error| ReadError::Disk { file: name.clone(), error })?;
        }
        let mut bytes = vec![0; RECORD_HEAD + place.len as usize];
        let offset = place.offset - RECORD_HEAD as u32;
        file.read_at(&mut bytes, u64::from(offset)).map_err(|error| ReadError::Disk { file: name.clone(), error })?;
        let intact = RecordHeader::decode(&bytes).filter(|header| {
            header.segment == place.segment
                && header.body_len == place.len
                && header.body_crc == crc32fast::hash(&bytes[RECORD_HEAD..])
        });
        if intact.is_none() {
            return Err(ReadError::Damaged { file: name, offset });
        }
        Ok(Bytes::from(bytes).slice(RECORD_HEAD..))
    }

    /// Waits until all records appended so far are durable.
    ///
    /// # Errors
    /// An error if the log cannot be written any more, so that some of these records never become durable.
    pub fn flush(&self) -> io::Result<()> {
        while self.0.options.driver.is_some() && writer::step(&self.0) {}
        let mut state = self.0.state.lock();
        let last = state.next_sequence - 1;
        while self.0.durable_sequence.load(Acquire) < last && !self.0.failed.load(Acquire) {
            self.0.progress.wait(&mut state);
        }
        if self.0.durable_sequence.load(Acquire) < last {
            return Err(io::Error::other("the log cannot be written any more"));
        }
        Ok(())
    }

    /// Does one step of work, for a driven journal: syncs the records that the last step wrote; if there are none,
    /// writes queued records; if there are none either, does the idle work (updates the proof, prepares files).
    pub fn step(&self) {
        if !writer::step(&self.0) {
            writer::idle(&self.0);
        }
    }

    /// Does, for a driven journal, what the writer's thread does when it wakes: writes and syncs all queued records and
    /// runs their callbacks, or does the idle work.
    pub fn turn(&self) {
        while self.0.driven_writes.lock().is_pending() && writer::step(&self.0) {}
        writer::turn(&self.0);
    }

    /// Writes and syncs the queued records on the calling thread if they are at most 16 KiB and nobody else is writing;
    /// otherwise wakes the writer's thread. That saves two threads from waking one another, which takes as long as half
    /// a sync. For a driven journal, [`Driver::writes_at_once`] decides as well.
    pub fn write_or_leave(&self) {
        let driver = self.0.options.driver.as_ref();
        if driver.is_none_or(|driver| driver.writes_at_once() && !self.0.driven_writes.lock().is_pending())
            && let Some(_writing) = self.0.writing.try_lock()
        {
            let queued = {
                let mut state = self.0.state.lock();
                let bytes: usize = state.queue.iter().map(|record| record.body.len()).sum();
                if bytes <= INLINE_WRITE_MAX { std::mem::take(&mut state.queue) } else { Vec::new() }
            };
            writer::write_all(&self.0, queued);
            if self.0.state.lock().queue.is_empty() && !self.0.asleep.load(Relaxed) {
                return;
            }
        }
        self.0.wakeup.notify_all();
    }

    /// Wakes the writer's thread, which then writes and syncs the queued records. Returns at once.
    pub fn wake_writer(&self) {
        self.0.wakeup.notify_all();
    }

    /// Releases all segments with numbers below `below`, which recovery then ignores. Their files become free, except
    /// for the segments for which `keep` returns true: these can still be read. The current segment is never released.
    pub fn release(&self, below: u64, keep: &dyn Fn(u64) -> bool) {
        let mut state = self.0.state.lock();
        let last = state.next_sequence - 1;
        state.ring.release(last, below, keep);
        if self.0.asleep.load(Relaxed) && self.0.has_idle_work(&state) {
            self.0.wakeup.notify_all();
        }
    }

    /// Returns whether the log still has the segment with this number.
    #[must_use]
    pub fn holds(&self, segment: u64) -> bool {
        self.0.state.lock().ring.in_use.contains_key(&segment)
    }

    /// Returns how many segments are in use and how many are left.
    #[must_use]
    pub fn usage(&self) -> LogUsage {
        let state = self.0.state.lock();
        LogUsage {
            segments_max: state.ring.segments_max,
            used: state.ring.in_use.len() as u32,
            available: state.ring.available(),
            first: state.ring.in_use.first_key_value().map_or(state.ring.current, |(&first, _)| first),
            current: state.ring.current,
            bytes_written: self.0.bytes_written.load(Relaxed),
            syncs: self.0.syncs.load(Relaxed),
        }
    }

    /// Returns the disk that holds the log.
    #[must_use]
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.0.disk
    }

    /// Returns whether the journal is driven: a [`Driver`] has it written instead of a thread of its own.
    #[must_use]
    pub fn is_driven(&self) -> bool {
        self.0.options.driver.is_some()
    }

    /// Waits until all records are durable, ends the writer's thread, and writes into the proof that the log was
    /// stopped in order. Nothing may be appended afterwards.
    pub fn stop(&self) {
        let flushed = self.flush(); // if it fails, `on_failure` was already called
        self.0.state.lock().stopping = true;
        self.0.wakeup.notify_all();
        let _writing = self.0.writing.lock();
        let durable = self.0.durable_sequence.load(Acquire);
        if flushed.is_ok() && !self.0.failed.load(Acquire) {
            let noted = self.0.proof.note(|claims| {
                claims.durable = claims.durable.max(durable);
                claims.stopped = true;
            });
            let _ = noted.inspect_err(|error| writer::fail(&self.0, error));
        }
    }
}

/// A record that has no place in the log yet.
struct NewRecord {
    head: Head,
    body: RecordBody,
    on_durable: Option<Box<dyn FnOnce() + Send>>,
}

/// The largest number of kept records.
const KEPT_MAX: usize = 40;
/// The most bytes of bodies that an append writes and syncs itself instead of leaving them to the writer's thread.
const INLINE_WRITE_MAX: usize = 16 << 10;

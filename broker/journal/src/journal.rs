//! The handle: append and read, release what is not needed any more.
//!
//! A record has its place the moment it is appended; the writer's thread writes it, with all that queued meanwhile, and
//! calls back when it is synced. A failed write or sync is never repeated (the kernel may have dropped the pages): the
//! journal is dead then, and `on_failure` ends the process.
use crate::disk::{Disk, DiskFile};
use crate::format::{Head, Place, RECORD_HEAD, RecordHeader, SEGMENT_HEAD, stride};
use crate::proof::Proof;
use crate::recover::{self, OpenError, Recovered};
use crate::ring::{Begun, Ring, Slot};
use crate::scan::find_segment;
use crate::writer::{self, Driven};
use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Acquire, Ordering::Relaxed};

/// How the journal is set up.
#[derive(Clone)]
pub struct Options {
    /// Identity of the node, random: a folder of another node is refused.
    pub node: u64,
    /// Size of a segment in bytes; the largest record is a bit smaller.
    pub segment_bytes: u32,
    /// The most segments there may be.
    pub segments_max: u32,
    /// Of these, kept for control records.
    pub segments_reserved: u32,
    /// The log was made at an earlier start: one that is not there is refused.
    pub made: bool,
    /// Called once when the disk fails: it ends the process.
    pub on_failure: Arc<dyn Fn(String) + Send + Sync>,
    /// Who writes; none: a thread of the journal's own.
    pub driver: Option<Arc<dyn Driver>>,
}

/// Stands in for the threads of a node: a simulation's own idea of when a disk gets round to things.
pub trait Driver: Send + Sync {
    /// The journal is open: [`Journal::step`] or [`Journal::turn`] has to be called again and again from now on.
    fn drive(&self, journal: Journal);
    /// Whether an append writes by itself this time, if nobody else is writing.
    fn writes_at_once(&self) -> bool;
    /// Does work that waits for the disk while other work goes on.
    fn off_thread(&self, work: Box<dyn FnOnce() + Send>) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

/// The body of a record, and its CRC32.
#[derive(Clone, Debug)]
pub struct Body {
    /// The bytes.
    pub bytes: Bytes,
    /// Their CRC32.
    pub crc: u32,
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        let crc = crc32fast::hash(&bytes);
        Self { bytes, crc }
    }
}

/// There is no room for the record; control records go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the log has no room for a record of {bytes} bytes")]
pub struct Full {
    /// Of the record's body.
    pub bytes: usize,
}

/// A record could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It was released.
    #[error("segment {0} is not in the log any more")]
    Released(u64),
    /// Its bytes are not what was written.
    #[error("{file} is damaged at offset {offset}: the checksum does not fit")]
    Damaged {
        /// Name of the file.
        file: String,
        /// Of the record.
        offset: u32,
    },
    /// The disk failed.
    #[error("{file}: {error}")]
    Disk {
        /// Name of the file.
        file: String,
        /// What it said.
        error: io::Error,
    },
}

/// What the journal holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// The most segments there may be.
    pub segments_max: u32,
    /// Segments that hold records.
    pub used: u32,
    /// Segments that could still be begun.
    pub available: u32,
    /// The oldest segment that is held.
    pub first: u64,
    /// The segment that records go into.
    pub current: u64,
    /// Bytes written since the start.
    pub bytes_written: u64,
    /// Syncs since the start.
    pub syncs: u64,
}

/// The log; cheap to clone.
#[derive(Clone)]
pub struct Journal(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) options: Options,
    pub(crate) state: Mutex<State>,
    /// Something was queued, or it is time to stop.
    pub(crate) queued: Condvar,
    /// Something became durable.
    pub(crate) durable: Condvar,
    pub(crate) durable_sequence: AtomicU64,
    pub(crate) bytes_written: AtomicU64,
    pub(crate) syncs: AtomicU64,
    pub(crate) failed: AtomicBool,
    pub(crate) proof: Proof,
    /// The last sequence that the proof says to be durable, whatever becomes of the power.
    pub(crate) noted: AtomicU64,
    /// The writer's thread waits until it is told of something.
    pub(crate) asleep: AtomicBool,
    pub(crate) driven: Mutex<Driven>,
    /// Held by whoever writes.
    pub(crate) writing: Mutex<()>,
}

pub(crate) struct State {
    pub(crate) ring: Ring,
    pub(crate) next_sequence: u64,
    pub(crate) queue: Vec<Queued>,
    pub(crate) stopping: bool,
    /// A spare file is being prepared, or a freed one swept.
    pub(crate) preparing: bool,
    /// The newest record of each group and kind that is kept.
    pub(crate) kept: BTreeMap<(u16, u8), Head>,
    /// Bytes of room that were promised to records which have not been queued yet.
    pub(crate) promised: u64,
}

/// A record on its way to the disk.
pub(crate) struct Queued {
    pub(crate) file: Arc<dyn DiskFile>,
    /// The segment that it begins.
    pub(crate) begins: Option<Begun>,
    /// Of the record's header.
    pub(crate) offset: u32,
    pub(crate) header: [u8; RECORD_HEAD],
    pub(crate) body: Bytes,
    pub(crate) sequence: u64,
    pub(crate) durable: Option<Box<dyn FnOnce() + Send>>,
}

impl Journal {
    /// Opens the log, or makes it; `record` gets every record that is whole, in order, but those in segments that are held for
    /// their contents alone.
    ///
    /// # Errors
    /// [`OpenError`]: damage, something missing, another node's or a newer version's log, the disk.
    pub fn open(disk: Arc<dyn Disk>, options: Options, record: &mut dyn FnMut(Recovered)) -> Result<Self, OpenError> {
        let found = recover::recover(&*disk, &options, record)?;
        let state = State {
            ring: found.ring,
            next_sequence: found.next_sequence,
            queue: Vec::new(),
            stopping: false,
            preparing: false,
            kept: found.kept,
            promised: 0,
        };
        let inner = Arc::new(Inner {
            disk,
            options,
            state: Mutex::new(state),
            queued: Condvar::new(),
            durable: Condvar::new(),
            durable_sequence: AtomicU64::new(found.next_sequence - 1),
            bytes_written: AtomicU64::new(0),
            syncs: AtomicU64::new(0),
            failed: AtomicBool::new(false),
            proof: found.proof,
            noted: AtomicU64::new(found.next_sequence - 1),
            asleep: AtomicBool::new(false),
            driven: Mutex::default(),
            writing: Mutex::default(),
        });
        if found.lacks_kept {
            Self(inner.clone()).put_kept(&mut inner.state.lock(), None);
        }
        match &inner.options.driver {
            Some(driver) => driver.drive(Self(inner.clone())),
            None => writer::start(&inner)
                .map_err(|error| OpenError::Disk { file: "the writer's thread".to_owned(), error })?,
        }
        Ok(Self(inner))
    }

    /// Appends a record: its place. `control` records may use the reserve and, if they must, go beyond the budget. `durable`
    /// is called by whoever writes once the record and all before it are synced. Never blocks on the disk's syncs.
    ///
    /// # Errors
    /// [`Full`] if there is no segment for it.
    pub fn append(
        &self,
        head: Head,
        body: Bytes,
        control: bool,
        durable: Option<Box<dyn FnOnce() + Send>>,
    ) -> Result<Place, Full> {
        self.queue(head, body.into(), control, durable, true)
    }

    /// As [`append`](Self::append). Without `wake` the caller calls [`write_or_leave`](Self::write_or_leave) soon.
    ///
    /// # Errors
    /// [`Full`] if there is no segment for it.
    pub fn queue(
        &self,
        head: Head,
        body: Body,
        control: bool,
        durable: Option<Box<dyn FnOnce() + Send>>,
        wake: bool,
    ) -> Result<Place, Full> {
        let full = Full { bytes: body.bytes.len() };
        if body.bytes.len() > self.record_bytes_max() {
            return Err(full);
        }
        let mut state = self.0.state.lock();
        if !control && !self.has_room_in(&state.ring) {
            return Err(full);
        }
        if head.is_kept() {
            assert!(body.bytes.is_empty(), "a record that is kept has no body");
            state.kept.insert((head.group, head.kind), head);
            assert!(state.kept.len() <= KEPT_MAX, "more than {KEPT_MAX} records are to be kept");
        }
        let fits = state.ring.fits(stride(body.bytes.len() as u32));
        let begins = if fits { None } else { self.begin_segment(&mut state, control).ok_or(full)? };
        let place = self.put(&mut state, Unplaced { head, body, durable }, begins);
        drop(state);
        if wake {
            self.0.queued.notify_all();
        }
        Ok(place)
    }

    /// Begins the next segment, with the records that are kept: what the record after them begins, if there are none. None if
    /// there is no file for it.
    fn begin_segment(&self, state: &mut State, control: bool) -> Option<Option<Begun>> {
        let first_sequence = state.next_sequence;
        let begun = state.ring.advance(&*self.0.disk, self.0.options.node, first_sequence, control)?;
        Some(self.put_kept(state, Some(begun)))
    }

    /// Queues the records that are kept; what the first of them begins is returned if there are none.
    fn put_kept(&self, state: &mut State, mut begins: Option<Begun>) -> Option<Begun> {
        let kept: Vec<Head> = state.kept.values().copied().collect();
        for head in kept {
            let record = Unplaced { head, body: Bytes::new().into(), durable: None };
            self.put(state, record, begins.take());
        }
        begins
    }

    /// Queues a record where it fits.
    fn put(&self, state: &mut State, record: Unplaced, begins: Option<Begun>) -> Place {
        let Unplaced { head, body: Body { bytes: body, crc: body_crc }, durable } = record;
        let body_len = body.len() as u32;
        let sequence = state.next_sequence;
        state.next_sequence += 1;
        let (segment, offset) = (state.ring.current, state.ring.offset);
        state.ring.offset += stride(body_len);
        let durable_now = self.0.durable_sequence.load(Relaxed);
        let node = self.0.options.node;
        let header = RecordHeader { node, segment, sequence, durable: durable_now, head, body_len, body_crc }.encode();
        let file = state.ring.in_use[&segment].file.clone();
        state.queue.push(Queued { file, begins, offset, header, body, sequence, durable });
        Place { segment, offset: offset + RECORD_HEAD as u32, len: body_len }
    }

    /// Size of a segment in bytes.
    #[must_use]
    pub fn segment_bytes(&self) -> u64 {
        u64::from(self.0.options.segment_bytes)
    }

    /// The largest body of a record in bytes.
    #[must_use]
    pub fn record_bytes_max(&self) -> usize {
        self.0.options.segment_bytes as usize - SEGMENT_HEAD - (KEPT_MAX + 1) * RECORD_HEAD - 8
    }

    /// Reads the body of a record, and checks it.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn read(&self, place: Place) -> Result<Bytes, ReadError> {
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
        let whole = RecordHeader::decode(&bytes).filter(|header| {
            header.segment == place.segment
                && header.body_len == place.len
                && header.body_crc == crc32fast::hash(&bytes[RECORD_HEAD..])
        });
        if whole.is_none() {
            return Err(ReadError::Damaged { file: name, offset });
        }
        Ok(Bytes::from(bytes).slice(RECORD_HEAD..))
    }

    /// Waits until everything appended so far is durable.
    ///
    /// # Errors
    /// The disk has failed: it never will be.
    pub fn flush(&self) -> io::Result<()> {
        while self.0.options.driver.is_some() && writer::step(&self.0) {}
        let mut state = self.0.state.lock();
        let last = state.next_sequence - 1;
        while self.0.durable_sequence.load(Acquire) < last && !self.0.failed.load(Acquire) {
            self.0.durable.wait(&mut state);
        }
        if self.0.durable_sequence.load(Acquire) < last {
            return Err(io::Error::other("the log has failed"));
        }
        Ok(())
    }

    /// Of a journal that is driven: syncs what was written or, if nothing was, writes what is queued or, if nothing is,
    /// does what there is to do in idle moments.
    pub fn step(&self) {
        if !writer::step(&self.0) {
            writer::idle(&self.0);
        }
    }

    /// Of a journal that is driven: what the writer's thread does when it wakes, from the write to the callbacks.
    pub fn turn(&self) {
        while self.0.driven.lock().is_begun() && writer::step(&self.0) {}
        writer::turn(&self.0);
    }

    /// Writes and syncs what is queued, here and now, if that is little and nobody else is writing; otherwise leaves it to the
    /// writer's thread. Two threads need not wake one another then, which takes as long as half a sync.
    pub fn write_or_leave(&self) {
        let driver = self.0.options.driver.as_ref();
        if driver.is_none_or(|driver| driver.writes_at_once() && !self.0.driven.lock().is_begun())
            && let Some(_writing) = self.0.writing.try_lock()
        {
            let queued = {
                let mut state = self.0.state.lock();
                let bytes: usize = state.queue.iter().map(|record| record.body.len()).sum();
                if bytes <= LITTLE { std::mem::take(&mut state.queue) } else { Vec::new() }
            };
            writer::write_all(&self.0, queued);
            if self.0.state.lock().queue.is_empty() && !self.0.asleep.load(Relaxed) {
                return;
            }
        }
        self.0.queued.notify_all();
    }

    /// Segments below `below` that nobody keeps are not needed any more.
    pub fn release(&self, below: u64, keep: &dyn Fn(u64) -> bool) {
        let mut state = self.0.state.lock();
        let last = state.next_sequence - 1;
        state.ring.release(last, below, keep);
        if self.0.asleep.load(Relaxed) && self.0.has_idle_work(&state) {
            self.0.queued.notify_all();
        }
    }

    /// Looks through the files without a header for the segments of these numbers, which are needed and not there: a file that
    /// holds one gets its header back. The other files are free from then on. Returns the numbers that were found.
    ///
    /// # Errors
    /// [`OpenError::Disk`].
    pub fn settle_unknown(&self, missing: &BTreeSet<u64>) -> Result<Vec<u64>, OpenError> {
        let mut unknown = std::mem::take(&mut self.0.state.lock().ring.unknown);
        let mut found = Vec::new();
        for &segment in missing {
            for at in 0..unknown.len() {
                if find_segment(&unknown[at], self.0.options.node, segment)? {
                    let slot = unknown.remove(at);
                    recover::give_header(&slot, self.0.options.node, segment)?;
                    self.0.state.lock().ring.in_use.insert(segment, Slot { written: true, ..slot });
                    found.push(segment);
                    break;
                }
            }
        }
        self.0.state.lock().ring.free.append(&mut unknown);
        Ok(found)
    }

    /// Whether a segment is there.
    #[must_use]
    pub fn holds(&self, segment: u64) -> bool {
        self.0.state.lock().ring.in_use.contains_key(&segment)
    }

    /// What it holds.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let state = self.0.state.lock();
        Usage {
            segments_max: state.ring.segments_max,
            used: state.ring.in_use.len() as u32,
            available: state.ring.available(),
            first: state.ring.in_use.first_key_value().map_or(state.ring.current, |(&first, _)| first),
            current: state.ring.current,
            bytes_written: self.0.bytes_written.load(Relaxed),
            syncs: self.0.syncs.load(Relaxed),
        }
    }

    /// The disk that it lies on.
    #[must_use]
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.0.disk
    }

    /// Whether something else writes than a thread of its own.
    #[must_use]
    pub fn is_driven(&self) -> bool {
        self.0.options.driver.is_some()
    }

    /// Ends the writer's thread once all is written, and notes that the log was stopped in order.
    pub fn stop(&self) {
        let flushed = self.flush(); // or the disk has failed, which `on_failure` was told
        self.0.state.lock().stopping = true;
        self.0.queued.notify_all();
        let _writing = self.0.writing.lock();
        let durable = self.0.durable_sequence.load(Acquire);
        if flushed.is_ok() && !self.0.failed.load(Acquire) {
            let noted = self.0.proof.note(|known| {
                known.durable = known.durable.max(durable);
                known.stopped = true;
            });
            let _ = noted.inspect_err(|error| writer::fail(&self.0, error));
        }
    }
}

impl Inner {
    /// Whether there is something to do when nothing is queued.
    pub(crate) fn has_idle_work(&self, state: &State) -> bool {
        let durable = self.durable_sequence.load(Relaxed);
        let prepares = state.ring.wants_spare().is_some() || state.ring.wants_sweep(durable, state.promised);
        !self.failed.load(Relaxed) && (durable > self.noted.load(Relaxed) || (prepares && !state.preparing))
    }
}

/// A record that has no place yet.
struct Unplaced {
    head: Head,
    body: Body,
    durable: Option<Box<dyn FnOnce() + Send>>,
}

/// The most records that are kept.
const KEPT_MAX: usize = 40;
/// Written by whoever appends it, if nobody writes, in bytes.
const LITTLE: usize = 16 << 10;

//! The writer's thread: everything that queued meanwhile in one write and one sync, then the callbacks.
//!
//! An append that finds the log idle writes and syncs by itself. The sync is the only linger there is. When idle for a moment it writes one empty record, whose header says that all
//! before it is durable: what tells a torn tail from rot needs that.
use crate::disk::DiskFile;
use crate::format::{ALIGN, Head, SEGMENT_HEAD};
use crate::journal::{Inner, Journal, Queued};
use crate::ring::create_slot;
use std::io::{self, IoSlice};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Starts the threads; they end when the journal is stopped or dropped.
pub(crate) fn start(inner: &Arc<Inner>) -> io::Result<()> {
    let weak = Arc::downgrade(inner);
    std::thread::Builder::new().name("journal".to_owned()).spawn(move || run(&weak))?;
    Ok(())
}

fn run(journal: &Weak<Inner>) {
    while let Some(inner) = journal.upgrade() {
        {
            let mut state = inner.state.lock();
            if state.queue.is_empty() && !state.stopping {
                inner.queued.wait_for(&mut state, IDLE);
            }
            if state.queue.is_empty() && state.stopping {
                return;
            }
        }
        turn(&inner);
    }
}

/// Writes what is queued or, if nothing is, does what there is to do in idle moments.
pub(crate) fn turn(inner: &Arc<Inner>) {
    let _writing = inner.writing.lock();
    let group = std::mem::take(&mut inner.state.lock().queue);
    if group.is_empty() {
        idle(inner);
    } else {
        write_all(inner, group);
    }
}

/// Nothing is queued: marks what is durable, or prepares a file.
pub(crate) fn idle(inner: &Arc<Inner>) {
    let durable = inner.durable_sequence.load(Relaxed);
    if inner.failed.load(Acquire) {
        return;
    }
    if durable > inner.marked.load(Relaxed) {
        inner.marked.store(durable + 1, Relaxed);
        let head = Head { group: 0, kind: 0, index: 0, term: 0, note: 0 };
        let _ = Journal(inner.clone()).append(head, bytes::Bytes::new(), true, None);
    } else {
        prepare(inner);
    }
}

/// Writes and syncs records, part by part, unless the disk has failed.
pub(crate) fn write_all(inner: &Arc<Inner>, mut records: Vec<Queued>) {
    while !records.is_empty() && !inner.failed.load(Acquire) {
        let later = records.split_off(part(&records));
        let mut now = std::mem::replace(&mut records, later);
        write(inner, &mut now);
        sync(inner, now);
    }
    prepare(inner);
}

/// Of a journal that is driven: what is written and not synced, and what was taken from the queue with it.
#[derive(Default)]
pub(crate) struct Driven {
    written: Vec<Queued>,
    rest: Vec<Queued>,
}

impl Driven {
    /// Whether something was taken from the queue and is not durable yet.
    pub(crate) fn is_begun(&self) -> bool {
        !self.written.is_empty() || !self.rest.is_empty()
    }
}

/// Syncs what was written, or writes what is next. False if there is neither.
pub(crate) fn step(inner: &Arc<Inner>) -> bool {
    if inner.failed.load(Acquire) {
        return false;
    }
    let written = std::mem::take(&mut inner.driven.lock().written);
    if !written.is_empty() {
        sync(inner, written);
        prepare(inner);
        return true;
    }
    let mut now = std::mem::take(&mut inner.driven.lock().rest);
    if now.is_empty() {
        now = std::mem::take(&mut inner.state.lock().queue);
    }
    if now.is_empty() {
        return false;
    }
    let rest = now.split_off(part(&now));
    write(inner, &mut now);
    *inner.driven.lock() = Driven { written: now, rest };
    true
}

/// How many of the first records are written together, into one file.
fn part(records: &[Queued]) -> usize {
    let mut bytes = 0;
    let fitting = records.iter().take_while(|record| {
        bytes += record.body.len();
        bytes <= GROUP_BYTES_MAX && Arc::ptr_eq(&record.file, &records[0].file)
    });
    fitting.count().max(1)
}

/// Writes records, all into one file.
fn write(inner: &Inner, records: &mut [Queued]) {
    #[cfg(any(test, feature = "mutants"))]
    if crate::mutants::CONFIRM_BEFORE_SYNC.load(Relaxed) {
        records.iter_mut().filter_map(|record| record.durable.take()).for_each(|durable| durable());
    }
    let Some(first) = records.first() else { return };
    if let Some(header) = &first.segment_header
        && let Err(error) = begin_segment(&*first.file, header)
    {
        return fail(inner, &error);
    }
    let mut parts = Vec::with_capacity(records.len() * 3);
    let mut bytes = 0;
    for record in &*records {
        parts.push(IoSlice::new(&record.header));
        let padding = record.body.len().next_multiple_of(ALIGN as usize) - record.body.len();
        parts.push(IoSlice::new(&record.body));
        parts.push(IoSlice::new(&ZEROS[..padding]));
        bytes += record.header.len() + record.body.len() + padding;
    }
    parts.retain(|part| !part.is_empty());
    inner.bytes_written.fetch_add(bytes as u64, Relaxed);
    if let Err(error) = first.file.write_at(&mut parts, u64::from(first.offset)) {
        fail(inner, &error);
    }
}

/// Writes the header of a segment, and syncs it before anything else is written: what the file held before under another
/// number is never half overwritten under that number.
fn begin_segment(file: &dyn DiskFile, header: &[u8; SEGMENT_HEAD]) -> io::Result<()> {
    file.write_at(&mut [IoSlice::new(header)], 0)?;
    file.sync_data()
}

/// Syncs the file that records were written into, and tells that they are durable.
fn sync(inner: &Inner, records: Vec<Queued>) {
    let (Some(first), Some(last)) = (records.first(), records.last()) else { return };
    if inner.failed.load(Acquire) {
        return;
    }
    if let Err(error) = first.file.sync_data() {
        return fail(inner, &error);
    }
    inner.syncs.fetch_add(1, Relaxed);
    let last = last.sequence;
    for record in records {
        if let Some(durable) = record.durable {
            durable();
        }
    }
    let _held = inner.state.lock(); // whoever waits in `flush` has looked before, or sees this
    inner.durable_sequence.store(last, Release);
    inner.durable.notify_all();
}

fn fail(inner: &Inner, error: &io::Error) {
    inner.failed.store(true, Release);
    (inner.options.on_failure)(format!("the log cannot be written: {error}"));
    drop(inner.state.lock()); // whoever waits in `flush` has looked before, or sees the failure
    inner.durable.notify_all();
}

/// Has a further file prepared, if one is wanted: on a thread of its own, unless the journal is driven.
fn prepare(inner: &Arc<Inner>) {
    {
        let mut state = inner.state.lock();
        if state.preparing || state.ring.wants_spare().is_none() {
            return;
        }
        state.preparing = true;
    }
    let driven = inner.options.driver.is_some();
    let inner = inner.clone();
    let work = move || {
        prepare_spare(&inner);
        inner.state.lock().preparing = false;
    };
    if driven {
        work();
    } else {
        let _ = std::thread::Builder::new().name("journal-spare".to_owned()).spawn(work);
    }
}

fn prepare_spare(inner: &Inner) {
    let Some((name, zeroed)) = inner.state.lock().ring.wants_spare() else { return };
    match create_slot(&*inner.disk, name, inner.options.segment_bytes, zeroed) {
        Ok(slot) => inner.state.lock().ring.free.push(slot),
        Err(error) => {
            tracing::debug!(%error, "no further segment of the log was prepared");
            inner.state.lock().ring.disk_full = true;
        }
    }
}

const IDLE: Duration = Duration::from_millis(50);
/// Bytes written between two syncs at most.
const GROUP_BYTES_MAX: usize = 4 << 20;
const ZEROS: [u8; 8] = [0; 8];

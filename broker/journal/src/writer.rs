//! The writer's thread: everything that queued meanwhile in one write and one sync, then the callbacks.
//!
//! An append that finds the log idle writes and syncs by itself. The sync is the only linger there is. When idle for a moment
//! the writer notes in the proof how far all is durable, and then sleeps until something is queued.
use crate::disk::DiskFile;
use crate::format::{ALIGN, free_header};
use crate::journal::{Inner, Queued};
use crate::ring::{Begun, Slot, create_slot};
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
                let rests = !inner.has_idle_work(&state);
                inner.asleep.store(rests, Relaxed);
                inner.queued.wait_for(&mut state, if rests { REST } else { IDLE });
                inner.asleep.store(false, Relaxed);
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

/// Nothing is queued: notes what is durable, or prepares a file.
pub(crate) fn idle(inner: &Arc<Inner>) {
    let durable = inner.durable_sequence.load(Relaxed);
    if inner.failed.load(Acquire) {
        return;
    }
    if durable > inner.noted.load(Relaxed) {
        if let Err(error) = inner.proof.note(|known| known.durable = known.durable.max(durable)) {
            return fail(inner, &error);
        }
        inner.noted.store(durable, Relaxed);
    } else {
        prepare(inner);
    }
}

/// Writes and syncs records, part by part, unless the disk has failed.
pub(crate) fn write_all(inner: &Arc<Inner>, mut records: Vec<Queued>) {
    while !records.is_empty() && !inner.failed.load(Acquire) {
        let later = records.split_off(part(&records));
        let mut now = std::mem::replace(&mut records, later);
        tell_too_early(&mut now);
        write(inner, &now);
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
    tell_too_early(&mut now);
    write(inner, &now);
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

/// What a test breaks on purpose.
#[cfg(any(test, feature = "mutants"))]
fn tell_too_early(records: &mut [Queued]) {
    if crate::mutants::CONFIRM_BEFORE_SYNC.load(Relaxed) {
        records.iter_mut().filter_map(|record| record.durable.take()).for_each(|durable| durable());
    }
}

#[cfg(not(any(test, feature = "mutants")))]
fn tell_too_early(_records: &mut Vec<Queued>) {}

/// Writes records, all into one file.
fn write(inner: &Inner, records: &[Queued]) {
    let Some(first) = records.first() else { return };
    if let Some(begun) = &first.begins
        && let Err(error) = begin_segment(inner, &*first.file, begun, first.sequence)
    {
        return fail(inner, &error);
    }
    let mut parts = Vec::with_capacity(records.len() * 3);
    let mut bytes = 0;
    for record in records {
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
/// number is never half overwritten under that number. From then on the segment has to be there.
fn begin_segment(inner: &Inner, file: &dyn DiskFile, begun: &Begun, first_sequence: u64) -> io::Result<()> {
    file.write_at(&mut [IoSlice::new(&begun.header)], 0)?;
    file.sync_data()?;
    inner.proof.note(|known| {
        known.durable = known.durable.max(first_sequence - 1);
        known.segment = begun.segment;
        known.released = known.released.max(begun.released);
    })
}

/// Syncs the file that records were written into, and tells that they are durable.
fn sync(inner: &Inner, records: Vec<Queued>) {
    let (Some(first), Some(last)) = (records.first(), records.last()) else { return };
    if inner.failed.load(Acquire) {
        return;
    }
    let last = last.sequence;
    if let Err(error) = first.file.sync_data().and_then(|()| inner.proof.hint(last)) {
        return fail(inner, &error);
    }
    inner.syncs.fetch_add(1, Relaxed);
    for record in records {
        if let Some(durable) = record.durable {
            durable();
        }
    }
    let _held = inner.state.lock(); // whoever waits in `flush` has looked before, or sees this
    inner.durable_sequence.store(last, Release);
    inner.durable.notify_all();
}

/// The disk has failed: nothing is written any more.
pub(crate) fn fail(inner: &Inner, error: &io::Error) {
    inner.failed.store(true, Release);
    (inner.options.on_failure)(format!("the log cannot be written: {error}"));
    drop(inner.state.lock()); // whoever waits in `flush` has looked before, or sees the failure
    inner.durable.notify_all();
}

/// Has free files swept and a further one prepared, if that is wanted: on a thread of its own, unless the journal is driven.
fn prepare(inner: &Arc<Inner>) {
    {
        let mut state = inner.state.lock();
        let durable = inner.durable_sequence.load(Relaxed);
        if state.preparing || (state.ring.wants_spare().is_none() && !state.ring.wants_sweep(durable, state.promised)) {
            return;
        }
        state.preparing = true;
    }
    let driven = inner.options.driver.is_some();
    let worked = inner.clone();
    let work = move || {
        while sweep(&worked) || prepare_spare(&worked) {}
        worked.state.lock().preparing = false;
    };
    if driven {
        work();
    } else if let Err(error) = std::thread::Builder::new().name("journal-spare".to_owned()).spawn(work) {
        tracing::debug!(%error, "no thread to prepare a segment of the log");
        inner.state.lock().preparing = false;
    }
}

/// Takes the old header from a free file, or the file away if there are too many. False if there is none to be swept.
fn sweep(inner: &Inner) -> bool {
    let durable = inner.durable_sequence.load(Acquire);
    let (taken, released) = {
        let mut state = inner.state.lock();
        let promised = state.promised;
        (state.ring.take_for_sweep(durable, promised), state.ring.released)
    };
    let Some((slot, too_many)) = taken else { return false };
    let noted = inner.proof.note(|known| known.released = known.released.max(released));
    let swept = noted.and_then(|()| write_free_header(&slot)).and_then(|()| slot.file.sync_data());
    if too_many && swept.is_ok() {
        let _ = inner.disk.remove(&slot.name); // one that stays is free at the next start
    }
    {
        let mut state = inner.state.lock();
        state.ring.away = None;
        if !too_many {
            state.ring.free.push(Slot { freed_at: None, ..slot });
        }
    }
    swept.inspect_err(|error| fail(inner, error)).is_ok()
}

/// Says in a file that it holds no segment.
fn write_free_header(slot: &Slot) -> io::Result<()> {
    slot.file.write_at(&mut [IoSlice::new(&free_header())], 0)
}

/// Makes a further file, if one is wanted. False if none was made.
fn prepare_spare(inner: &Inner) -> bool {
    let Some((name, zeroed)) = inner.state.lock().ring.wants_spare() else { return false };
    let created = create_slot(&*inner.disk, name, inner.options.segment_bytes, zeroed);
    let created = created.and_then(|slot| write_free_header(&slot).map(|()| slot)); // durable sometime
    let mut state = inner.state.lock();
    match created {
        Ok(slot) => state.ring.free.push(slot),
        Err(error) => {
            tracing::debug!(%error, "no further segment of the log was prepared");
            state.ring.disk_full = true;
            return false;
        }
    }
    true
}

/// An empty queue for so long is an idle moment.
const IDLE: Duration = Duration::from_millis(50);
/// When idle and nothing is left to do, the writer looks this rarely whether the journal is still there.
const REST: Duration = Duration::from_secs(10);
/// Bytes written between two syncs at most.
const GROUP_BYTES_MAX: usize = 4 << 20;
const ZEROS: [u8; 8] = [0; 8];

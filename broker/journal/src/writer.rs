//! The writer's thread. It takes all queued records, writes them with one write, syncs them with one sync, and runs
//! their callbacks. Records that are appended during the sync wait for the next round; nothing else delays records to
//! collect more.
//!
//! An append that finds the log idle writes and syncs its record itself. After a short idle time the writer writes to
//! the proof up to where the log is durable, and then sleeps until a record is queued.
use crate::disk::DiskFile;
use crate::format::{ALIGN, free_header};
use crate::ring::{NewSegment, SegmentFile, create_slot};
use crate::state::{DrivenWrites, JournalInner, PendingRecord};
use std::io::{self, IoSlice};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Starts the writer's thread. It ends when the journal is stopped or dropped.
pub(crate) fn start(inner: &Arc<JournalInner>) -> io::Result<()> {
    let weak = Arc::downgrade(inner);
    std::thread::Builder::new().name("journal".to_owned()).spawn(move || run(&weak))?;
    Ok(())
}

fn run(journal: &Weak<JournalInner>) {
    while let Some(inner) = journal.upgrade() {
        {
            let mut state = inner.state.lock();
            if state.queue.is_empty() && !state.stopping {
                let rests = !inner.has_idle_work(&state);
                inner.asleep.store(rests, Relaxed);
                inner.wakeup.wait_for(&mut state, if rests { SLEEP_MAX } else { IDLE_AFTER });
                inner.asleep.store(false, Relaxed);
            }
            if state.queue.is_empty() && state.stopping {
                return;
            }
        }
        turn(&inner);
    }
}

/// Writes and syncs all queued records or, if there are none, does the idle work.
pub(crate) fn turn(inner: &Arc<JournalInner>) {
    let _writing = inner.writing.lock();
    let group = std::mem::take(&mut inner.state.lock().queue);
    if group.is_empty() {
        idle(inner);
    } else {
        write_all(inner, group);
    }
}

/// Does the idle work: updates the proof if records became durable since, or else prepares files.
pub(crate) fn idle(inner: &Arc<JournalInner>) {
    let durable = inner.durable_sequence.load(Relaxed);
    if inner.failed.load(Acquire) {
        return;
    }
    if durable > inner.proven_sequence.load(Relaxed) {
        if let Err(error) = inner.proof.note(|claims| claims.durable = claims.durable.max(durable)) {
            return fail(inner, &error);
        }
        inner.proven_sequence.store(durable, Relaxed);
    } else {
        prepare(inner);
    }
}

/// Writes and syncs records batch by batch until the disk fails, then has files prepared if necessary.
pub(crate) fn write_all(inner: &Arc<JournalInner>, mut records: Vec<PendingRecord>) {
    while !records.is_empty() && !inner.failed.load(Acquire) {
        let later = records.split_off(batch_len(&records));
        let mut now = std::mem::replace(&mut records, later);
        confirm_too_early(&mut now);
        write(inner, &now);
        sync(inner, now);
    }
    prepare(inner);
}

/// Syncs the batch that was written by the last step or, if there is none, writes the next batch. Returns false if
/// there is neither, or if the disk has failed.
pub(crate) fn step(inner: &Arc<JournalInner>) -> bool {
    if inner.failed.load(Acquire) {
        return false;
    }
    let written = std::mem::take(&mut inner.driven_writes.lock().written);
    if !written.is_empty() {
        sync(inner, written);
        prepare(inner);
        return true;
    }
    let mut now = std::mem::take(&mut inner.driven_writes.lock().rest);
    if now.is_empty() {
        now = std::mem::take(&mut inner.state.lock().queue);
    }
    if now.is_empty() {
        return false;
    }
    let rest = now.split_off(batch_len(&now));
    confirm_too_early(&mut now);
    write(inner, &now);
    *inner.driven_writes.lock() = DrivenWrites { written: now, rest };
    true
}

/// Returns how many of the first records are written and synced together: those for the same file, up to 4 MiB of bodies.
fn batch_len(records: &[PendingRecord]) -> usize {
    let mut bytes = 0;
    let fitting = records.iter().take_while(|record| {
        bytes += record.body.len();
        bytes <= BATCH_BYTES_MAX && Arc::ptr_eq(&record.file, &records[0].file)
    });
    fitting.count().max(1)
}

/// For mutation tests: runs the callbacks of the records before they are synced.
#[cfg(any(test, feature = "mutants"))]
fn confirm_too_early(records: &mut [PendingRecord]) {
    if crate::mutants::CONFIRM_BEFORE_SYNC.load(Relaxed) {
        records.iter_mut().filter_map(|record| record.on_durable.take()).for_each(|on_durable| on_durable());
    }
}

#[cfg(not(any(test, feature = "mutants")))]
fn confirm_too_early(_records: &mut Vec<PendingRecord>) {}

/// Writes records, all of which go into the same file, without a sync. Writes the header of the segment before its
/// first record.
fn write(inner: &JournalInner, records: &[PendingRecord]) {
    let Some(first) = records.first() else { return };
    if let Some(new_segment) = &first.new_segment
        && let Err(error) = begin_segment(inner, &*first.file, new_segment, first.sequence)
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

/// Writes the header of a new segment, and syncs it before any record is written: otherwise the file could be half
/// overwritten while its header still has the old number, which a start would take for rot. Then writes to the proof
/// that the segment exists, so that the next start misses it if it is gone.
fn begin_segment(
    inner: &JournalInner,
    file: &dyn DiskFile,
    new_segment: &NewSegment,
    first_sequence: u64,
) -> io::Result<()> {
    file.write_at(&mut [IoSlice::new(&new_segment.header)], 0)?;
    file.sync_data()?;
    inner.proof.note(|claims| {
        claims.durable = claims.durable.max(first_sequence - 1);
        claims.segment = new_segment.segment;
        claims.released = claims.released.max(new_segment.released);
    })
}

/// Syncs the file that the records were written to, and runs their callbacks.
fn sync(inner: &JournalInner, records: Vec<PendingRecord>) {
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
        if let Some(on_durable) = record.on_durable {
            on_durable();
        }
    }
    let _held = inner.state.lock(); // so that a `flush` either sees the new value or already waits for the notification
    inner.durable_sequence.store(last, Release);
    inner.progress.notify_all();
}

/// Marks the log as failed: from now on nothing is written. Calls `on_failure`.
pub(crate) fn fail(inner: &JournalInner, error: &io::Error) {
    inner.failed.store(true, Release);
    (inner.options.on_failure)(format!("the log cannot be written: {error}"));
    drop(inner.state.lock()); // so that a `flush` either sees the failure or already waits for the notification
    inner.progress.notify_all();
}

/// Sweeps free files and prepares further ones if that is needed: on a thread of its own, or on this thread if the
/// journal is driven.
fn prepare(inner: &Arc<JournalInner>) {
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
        tracing::debug!(%error, "cannot start the thread that prepares segments of the log");
        inner.state.lock().preparing = false;
    }
}

/// Sweeps one free file: replaces its old header with that of a free file and, if there are too many files, removes
/// it. Returns false if there is no file to sweep or if the disk has failed.
pub(crate) fn sweep(inner: &JournalInner) -> bool {
    let durable = inner.durable_sequence.load(Acquire);
    let taken = {
        let mut state = inner.state.lock();
        let promised = state.promised;
        state.ring.take_for_sweep(durable, promised)
    };
    let Some((slot, too_many)) = taken else { return false };
    // Not what was released since: that may depend on records that are not durable yet.
    let noted = match slot.freed_at {
        Some(release) => inner.proof.note(|claims| claims.released = claims.released.max(release.below)),
        None => Ok(()),
    };
    let swept = noted.and_then(|()| write_free_header(&slot)).and_then(|()| slot.file.sync_data());
    if too_many && swept.is_ok() {
        let _ = inner.disk.remove(&slot.name); // if this fails, the next start finds the file and takes it for free
    }
    {
        let mut state = inner.state.lock();
        state.ring.swept_file = None;
        if !too_many {
            state.ring.free.push(SegmentFile { freed_at: None, ..slot });
        }
    }
    swept.inspect_err(|error| fail(inner, error)).is_ok()
}

/// Writes the header of a free file.
fn write_free_header(slot: &SegmentFile) -> io::Result<()> {
    slot.file.write_at(&mut [IoSlice::new(&free_header())], 0)
}

/// Creates a further free file if one is needed. Returns false if none is needed or if it cannot be created.
fn prepare_spare(inner: &JournalInner) -> bool {
    let Some((name, zeroed)) = inner.state.lock().ring.wants_spare() else { return false };
    let created = create_slot(&*inner.disk, name, inner.options.segment_bytes, zeroed);
    // The header need not be synced: a start also accepts a file without a header as free, unless its records are needed.
    let created = created.and_then(|slot| write_free_header(&slot).map(|()| slot));
    let mut state = inner.state.lock();
    match created {
        Ok(slot) => state.ring.free.push(slot),
        Err(error) => {
            tracing::debug!(%error, "cannot prepare a further segment of the log");
            state.ring.disk_full = true;
            return false;
        }
    }
    true
}

/// Time for which the queue has to be empty before the writer does the idle work.
const IDLE_AFTER: Duration = Duration::from_millis(50);
/// The longest time that the writer's thread sleeps; it then checks whether the journal was dropped.
const SLEEP_MAX: Duration = Duration::from_secs(10);
/// The most bytes of bodies that are written between two syncs, unless a single record is larger.
const BATCH_BYTES_MAX: usize = 4 << 20;
const ZEROS: [u8; 8] = [0; 8];

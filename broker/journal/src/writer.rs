//! The writer's thread: everything that queued meanwhile in one write and one sync, then the callbacks.
//!
//! The sync is the only linger there is. When idle for a moment it writes one empty record, whose header says that all
//! before it is durable: what tells a torn tail from rot needs that.
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
    let mut group = Vec::new();
    let mut marked = 0;
    while let Some(inner) = journal.upgrade() {
        let idle = {
            let mut state = inner.state.lock();
            if state.queue.is_empty() && !state.stopping {
                inner.queued.wait_for(&mut state, IDLE);
            }
            if state.queue.is_empty() && state.stopping {
                return;
            }
            std::mem::swap(&mut group, &mut state.queue);
            group.is_empty()
        };
        if inner.failed.load(Acquire) {
            group.clear();
            continue;
        }
        if idle {
            let durable = inner.durable_sequence.load(Relaxed);
            if durable > marked {
                marked = durable + 1;
                let head = Head { group: 0, kind: 0, index: 0, term: 0, note: 0 };
                let _ = Journal(inner.clone()).append(head, bytes::Bytes::new(), true, None);
            } else {
                spare_in_background(&inner);
            }
            continue;
        }
        let mut rest = std::mem::take(&mut group);
        while !rest.is_empty() && !inner.failed.load(Acquire) {
            let later = rest.split_off(part(&rest));
            commit(&inner, std::mem::replace(&mut rest, later));
        }
        spare_in_background(&inner);
    }
}

/// How many of the first records are written together.
fn part(records: &[Queued]) -> usize {
    let mut bytes = 0;
    let fitting = records.iter().take_while(|record| {
        bytes += record.body.len();
        bytes <= GROUP_BYTES_MAX
    });
    fitting.count().max(1)
}

fn commit(inner: &Inner, records: Vec<Queued>) {
    #[cfg(any(test, feature = "mutants"))]
    let mut records = records;
    #[cfg(any(test, feature = "mutants"))]
    if crate::mutants::CONFIRM_BEFORE_SYNC.load(Relaxed) {
        records.iter_mut().filter_map(|record| record.durable.take()).for_each(|durable| durable());
    }
    if let Err(error) = write(inner, &records) {
        inner.failed.store(true, Release);
        (inner.options.on_failure)(format!("the log cannot be written: {error}"));
        drop(inner.state.lock()); // whoever waits in `flush` has looked before, or sees the failure
        inner.durable.notify_all();
        return;
    }
    let Some(last) = records.last().map(|record| record.sequence) else { return };
    for record in records {
        if let Some(durable) = record.durable {
            durable();
        }
    }
    {
        let _held = inner.state.lock(); // whoever waits in `flush` has looked before, or sees this
        inner.durable_sequence.store(last, Release);
        inner.durable.notify_all();
    }
}

/// Writes records, file by file, and syncs each file.
fn write(inner: &Inner, records: &[Queued]) -> io::Result<()> {
    let mut rest = records;
    while let Some(first) = rest.first() {
        let in_file = rest.iter().take_while(|record| Arc::ptr_eq(&record.file, &first.file)).count();
        let (now, later) = rest.split_at(in_file);
        let mut parts = Vec::with_capacity(now.len() * 3 + 1);
        let mut offset = u64::from(first.offset);
        if let Some(header) = &first.segment_header {
            parts.push(IoSlice::new(header));
            offset -= SEGMENT_HEAD as u64;
        }
        let mut bytes = 0;
        for record in now {
            parts.push(IoSlice::new(&record.header));
            let padding = record.body.len().next_multiple_of(ALIGN as usize) - record.body.len();
            parts.push(IoSlice::new(&record.body));
            parts.push(IoSlice::new(&ZEROS[..padding]));
            bytes += record.header.len() + record.body.len() + padding;
        }
        parts.retain(|part| !part.is_empty());
        first.file.write_at(&mut parts, offset)?;
        first.file.sync_data()?;
        inner.bytes_written.fetch_add(bytes as u64, Relaxed);
        inner.syncs.fetch_add(1, Relaxed);
        rest = later;
    }
    Ok(())
}

/// Has a further file prepared on a thread of its own, if one is wanted.
fn spare_in_background(inner: &Arc<Inner>) {
    {
        let mut state = inner.state.lock();
        if state.preparing || state.ring.wants_spare().is_none() {
            return;
        }
        state.preparing = true;
    }
    let inner = inner.clone();
    let _ = std::thread::Builder::new().name("journal-spare".to_owned()).spawn(move || {
        prepare_spare(&inner);
        inner.state.lock().preparing = false;
    });
}

fn prepare_spare(inner: &Inner) {
    let Some(name) = inner.state.lock().ring.wants_spare() else { return };
    match create_slot(&*inner.disk, name, inner.options.segment_bytes, true) {
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

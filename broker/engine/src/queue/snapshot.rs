//! The index of a durable queue as bytes. A restart restores it and then applies the newer entries of the log to it.
//!
//! Format, integers little-endian: `version u8 = 2`, `next sequence u64`, `digest u64`, runs `u64 n` of `first u64,
//! count u32, live u32, body bytes u64, entry u64, at u32, length u32`, settled ranges `u64 n` of `start u64, end u64`,
//! counts of returns `u64 n` of `sequence u64, count u32`. Contents are not in it. Version 1 had the location of a run,
//! `file u64, offset u32, length u32, at u32, run length u32`, in place of its name (the last three fields of a run).
use super::logged::{Durable, OldPlace, RunName};
use super::run::{Cursor, Run};
use super::{QueueCore, QueueState};
#[cfg(any(test, feature = "mutants"))]
use crate::mutants;
use bytes::{Buf, BufMut, TryGetError};
#[cfg(any(test, feature = "mutants"))]
use std::sync::atomic::Ordering::Relaxed;

/// The reason why the bytes of a snapshot cannot be restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damaged(pub String);

/// The position at which writing an index in parts continues.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Part {
    /// The beginning of the index.
    #[default]
    Begin,
    /// The runs from this number on.
    Runs(u64),
    /// The settled ranges that begin at this sequence or after it.
    Settled(u64),
    /// The counts of returns from this sequence on.
    Counts(u64),
}

impl QueueCore {
    /// Appends the index of the queue.
    pub fn snapshot(&self, out: &mut Vec<u8>) {
        let mut next = Some(Part::Begin);
        while let Some(part) = next {
            next = self.snapshot_part(out, part);
        }
    }

    /// Appends one part of the queue's index. Returns the part to continue with; no entry may be applied to the queue
    /// before the last part is written. Queues with many messages are written in parts so that their lock is not held for
    /// the whole time.
    #[must_use]
    pub fn snapshot_part(&self, out: &mut Vec<u8>, part: Part) -> Option<Part> {
        self.state.snapshot_part(out, part)
    }

    /// Replaces the messages of the queue with those of an index, and removes the index from the beginning of `bytes`. The
    /// consumers stay, and so does what they were delivered or granted. `now` is the arrival time that the messages get, in
    /// nanoseconds. `name` gives a name to a run of an index of version 1.
    ///
    /// # Errors
    /// [`Damaged`] if the bytes are not a snapshot of a known version, or if the digest does not match the restored
    /// messages. The queue is as it was before then.
    pub fn restore(
        &mut self,
        bytes: &mut &[u8],
        now: u64,
        name: &mut dyn FnMut(OldPlace) -> RunName,
    ) -> Result<(), Damaged> {
        let mut state = self.state.successor();
        state.restore(bytes, now, name)?;
        self.state.succeed(state);
        self.lead.cursor = Cursor::at(self.state.runs_first());
        self.lead.blocked_on = None;
        self.lead.look_at = 0;
        self.lead.revived.clear();
        self.lead.unreadable.clear();
        Ok(())
    }
}

/// Calls `each` with the name of each run that the index of a queue refers to, and removes the index from the beginning of
/// `bytes`.
///
/// # Errors
/// [`Damaged`] if the bytes are not a whole index with names.
pub fn index_runs(bytes: &mut &[u8], mut each: impl FnMut(RunName)) -> Result<(), Damaged> {
    let version = bytes.try_get_u8().map_err(short)?;
    if version != VERSION {
        return Err(Damaged(format!("an index of version {version} does not have the names of its runs")));
    }
    let (_, _) = (long(bytes)?, long(bytes)?);
    for _ in 0..long(bytes)? {
        let run = run_numbers(bytes)?;
        let name = run_name(bytes)?;
        if run.live > 0 {
            each(name);
        }
    }
    for item_bytes in [RANGE_BYTES, COUNT_BYTES] {
        let items = long(bytes)?;
        let len = items.checked_mul(item_bytes).filter(|len| *len <= bytes.len() as u64);
        bytes.advance(len.ok_or_else(ends_early)? as usize);
    }
    Ok(())
}

fn long(bytes: &mut &[u8]) -> Result<u64, Damaged> {
    bytes.try_get_u64_le().map_err(short)
}

fn word(bytes: &mut &[u8]) -> Result<u32, Damaged> {
    bytes.try_get_u32_le().map_err(short)
}

/// Reads the fields of a run that come before its name.
fn run_numbers(bytes: &mut &[u8]) -> Result<Run, Damaged> {
    let (first, count, live, body_bytes) = (long(bytes)?, word(bytes)?, word(bytes)?, long(bytes)?);
    if live > count || first.checked_add(u64::from(count)).is_none() {
        return Err(Damaged(format!("a run of a queue's index has {live} of {count} messages from {first} on")));
    }
    Ok(Run { first, count, live, segment: 0, offset: 0, arrived: 0, body_bytes })
}

fn run_name(bytes: &mut &[u8]) -> Result<RunName, Damaged> {
    Ok(RunName { entry: long(bytes)?, at: word(bytes)?, len: word(bytes)? })
}

impl QueueState {
    fn snapshot_part(&self, out: &mut Vec<u8>, part: Part) -> Option<Part> {
        let durable = self.durable.as_ref()?;
        match part {
            Part::Begin => {
                out.put_u8(VERSION);
                out.put_u64_le(self.next_sequence());
                out.put_u64_le(durable.digest);
                out.put_u64_le((self.runs().len() - self.runs_forgotten()) as u64);
                Some(Part::Runs(0))
            }
            Part::Runs(from) => {
                let mut runs = self.runs().starting_at(from).peekable();
                for _ in 0..PART {
                    let Some((_, run)) = runs.next() else { break };
                    if runs.peek().is_some() || self.runs_forgotten() == 0 {
                        self.put_run(out, run);
                    }
                }
                if let Some((next, _)) = runs.next() {
                    return Some(Part::Runs(next));
                }
                out.put_u64_le(durable.settled.len() as u64);
                Some(Part::Settled(0))
            }
            Part::Settled(from) => {
                let mut ranges = durable.settled.starting_at(from);
                for range in ranges.by_ref().take(PART) {
                    out.put_u64_le(range.start);
                    out.put_u64_le(range.end);
                }
                if let Some(next) = ranges.next() {
                    return Some(Part::Settled(next.start));
                }
                out.put_u64_le(durable.counts.len() as u64);
                Some(Part::Counts(0))
            }
            Part::Counts(from) => {
                let mut counts = durable.counts.range(from..);
                for (&sequence, &count) in counts.by_ref().take(PART) {
                    out.put_u64_le(sequence);
                    out.put_u32_le(count);
                }
                counts.next().map(|(&next, _)| Part::Counts(next))
            }
        }
    }

    fn put_run(&self, out: &mut Vec<u8>, run: &Run) {
        let name = self.segments().name(run.segment).unwrap_or_default();
        out.put_u64_le(run.first);
        out.put_u32_le(run.count);
        out.put_u32_le(run.live);
        out.put_u64_le(run.body_bytes);
        out.put_u64_le(name.entry);
        out.put_u32_le(name.at);
        out.put_u32_le(name.len);
    }

    /// Returns the number of runs that a mutation test has left out on purpose.
    #[cfg(any(test, feature = "mutants"))]
    fn runs_forgotten(&self) -> usize {
        usize::from(self.runs().len() > 0 && mutants::SNAPSHOT_FORGETS.load(Relaxed))
    }

    #[cfg(not(any(test, feature = "mutants")))]
    fn runs_forgotten(&self) -> usize {
        0
    }

    fn restore(
        &mut self,
        bytes: &mut &[u8],
        now: u64,
        name: &mut dyn FnMut(OldPlace) -> RunName,
    ) -> Result<(), Damaged> {
        let version = bytes.try_get_u8().map_err(short)?;
        if !(1..=VERSION).contains(&version) {
            return Err(Damaged(format!("version {version} of a queue's index is not known, {VERSION} is")));
        }
        let (next_sequence, digest, runs) = (long(bytes)?, long(bytes)?, long(bytes)?);
        let mut durable = Durable { digest, ..Durable::default() };
        let (mut sum, mut end, mut gaps) = (0u64, None, Vec::new());
        for _ in 0..runs {
            let run = run_numbers(bytes)?;
            let name = match version {
                1 => name(old_place(bytes).map_err(short)?),
                _ => run_name(bytes)?,
            };
            let Run { first, count, .. } = run;
            if end.is_some_and(|end| first < end) || run.end() > next_sequence {
                return Err(Damaged(format!("the run from {first} on is not in its place in a queue's index")));
            }
            self.restore_run(Run { arrived: now, ..run }, name);
            sum = sum.wrapping_add(Durable::range_digest(first, u64::from(count)));
            gaps.extend(end.replace(first.saturating_add(u64::from(count))).map(|end| end..first));
        }
        gaps.extend(end.map(|end| end..next_sequence));
        self.set_next_sequence(next_sequence);
        for _ in 0..long(bytes)? {
            let (start, end) = (long(bytes)?, long(bytes)?);
            durable.settled.insert(start..end);
            sum = sum.wrapping_sub(Durable::range_digest(start, end.saturating_sub(start)));
        }
        // Gaps between the runs are runs that were removed after their last message was settled. The sum over the runs
        // lacks their messages, but the settled ranges, which may cover them, were subtracted.
        for gap in gaps.into_iter().filter(|gap| gap.start < gap.end) {
            let lacking = durable.settled.gaps(gap.clone()).into_iter();
            let lacking = lacking.map(|gap| Durable::range_digest(gap.start, gap.end - gap.start));
            let all = Durable::range_digest(gap.start, gap.end - gap.start);
            sum = sum.wrapping_add(all).wrapping_sub(lacking.fold(0, u64::wrapping_add));
        }
        for _ in 0..long(bytes)? {
            let (sequence, count) = (long(bytes)?, word(bytes)?);
            durable.counts.insert(sequence, count);
        }
        #[cfg(any(test, feature = "mutants"))]
        let sum = if mutants::DIGEST_IGNORED.load(Relaxed) { digest } else { sum };
        if sum != digest {
            return Err(Damaged(format!("digest of a queue's index is {sum:016x}, not {digest:016x} as noted")));
        }
        self.durable = Some(Box::new(durable));
        Ok(())
    }
}

fn old_place(bytes: &mut &[u8]) -> Result<OldPlace, TryGetError> {
    Ok(OldPlace {
        file: bytes.try_get_u64_le()?,
        offset: bytes.try_get_u32_le()?,
        len: bytes.try_get_u32_le()?,
        at: bytes.try_get_u32_le()?,
        run_len: bytes.try_get_u32_le()?,
    })
}

fn short(_: TryGetError) -> Damaged {
    ends_early()
}

fn ends_early() -> Damaged {
    Damaged("a queue's index ends too early".to_owned())
}

const VERSION: u8 = 2;
/// The length of a settled range and of a count of returns, in bytes.
const RANGE_BYTES: u64 = 16;
const COUNT_BYTES: u64 = 12;
/// The number of runs, ranges or counts in one part.
const PART: usize = 32 << 10;

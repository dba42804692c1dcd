//! A simulated disk in memory, for tests. It loses or tears unsynced writes in a crash, fails calls, fills up, is slow,
//! and lets bytes rot.
//!
//! The behaviour of the disk depends only on its seed and settings: the same calls always give the same disk. `content`
//! holds the bytes of a file, `trouble` decides which calls fail, `slow` makes calls take time while other work goes
//! on.
use crate::disk::{Disk, DiskFile};
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::Duration;

mod content;
mod slow;
#[cfg(test)]
mod tests;
mod trouble;

use content::{Content, Shared};
pub use slow::Slow;
pub use trouble::{Call, DiskTrouble, Errno};

/// The simulated disk, as one process sees it. A clone is the same disk as a process sees it that starts now. After
/// [`crash`](FaultyDisk::crash) or [`end_process`](FaultyDisk::end_process) calls through earlier clones fail.
pub struct FaultyDisk(Arc<Mutex<State>>, u64);

impl Clone for FaultyDisk {
    fn clone(&self) -> Self {
        let crashes = self.0.lock().crashes;
        Self(self.0.clone(), crashes)
    }
}

struct State {
    files: Files,
    /// The names that are durable.
    durable_files: Files,
    /// The changes of names that are not durable yet.
    unsynced_names: Vec<NameChange>,
    /// State of the random number generator.
    random: u64,
    writes: u64,
    syncs: u64,
    /// Number of the write at which the power goes off: it fails, and so does every later call.
    off_at_write: u64,
    off: bool,
    /// The number of times that a process has ended, by a crash or otherwise.
    crashes: u64,
    troubles: trouble::Troubles,
    full: bool,
    volume: Volume,
    /// File, offset and length of the last writes.
    last_writes: VecDeque<(String, u64, u64)>,
    /// The longest time that a call of [`Slow`] work takes; a few calls take up to ten times as long.
    slow_up_to: Duration,
}

/// The size of the volume, and the bytes on it that other programs use.
#[derive(Clone, Copy)]
struct Volume {
    size: u64,
    others: u64,
}

type Files = BTreeMap<String, Shared>;

/// A change of names: a name that was removed, a name that was added, or both in one rename.
struct NameChange {
    from: Option<String>,
    to: Option<(String, Shared)>,
}

impl NameChange {
    /// Returns the folder of the name that was added or, if none was, of the one that was removed.
    fn folder(&self) -> &str {
        let name = self.to.as_ref().map(|(name, _)| name).or(self.from.as_ref());
        name.and_then(|name| name.rsplit_once('/')).map_or("", |(folder, _)| folder)
    }

    fn apply(self, files: &mut Files) {
        if let Some(from) = self.from {
            files.remove(&from);
        }
        files.extend(self.to);
    }
}

struct OpenFile {
    disk: FaultyDisk,
    name: String,
    content: Shared,
}

impl FaultyDisk {
    /// Returns an empty disk.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(
            Arc::new(Mutex::new(State {
                files: Files::new(),
                durable_files: Files::new(),
                unsynced_names: Vec::new(),
                random: seed,
                writes: 0,
                syncs: 0,
                off_at_write: u64::MAX,
                off: false,
                crashes: 0,
                troubles: trouble::Troubles::default(),
                full: false,
                volume: Volume { size: 1 << 40, others: 0 },
                last_writes: VecDeque::new(),
                slow_up_to: Duration::ZERO,
            })),
            0,
        )
    }

    /// Has the power go off at the `n`th write from now on; 0 is the next one. Removing and renaming files count as
    /// writes.
    pub fn power_off_at_write(&self, n: u64) {
        let mut state = self.0.lock();
        state.off_at_write = state.writes + n;
    }

    /// Returns whether the power is off.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.0.lock().off
    }

    /// Has the `n`th sync from now on fail with EIO; 0 is the next one.
    pub fn fail_at_sync(&self, n: u64) {
        self.expect(DiskTrouble { calls: vec![Call::Sync], error: Errno::Io, after: n, times: 1 });
    }

    /// Has calls fail as `trouble` says, until the process ends or [`clear`](Self::clear) is called.
    pub fn expect(&self, trouble: DiskTrouble) {
        self.0.lock().troubles.add(trouble);
    }

    /// Cancels all troubles that are still to come, and has no call be slow any more.
    pub fn clear(&self) {
        let mut state = self.0.lock();
        state.troubles.clear();
        state.slow_up_to = Duration::ZERO;
    }

    /// Returns how many calls have failed because of a [`DiskTrouble`].
    #[must_use]
    pub fn troubles_met(&self) -> u64 {
        self.0.lock().troubles.met
    }

    /// Has calls that [`Slow`] work makes take up to `time` from now on, a few of them up to ten times as long.
    pub fn set_slow(&self, time: Duration) {
        self.0.lock().slow_up_to = time;
    }

    /// Sets whether the volume has no space, for new files or for existing ones to grow.
    pub fn set_full(&self, full: bool) {
        self.0.lock().full = full;
    }

    /// Sets the size of the volume in bytes.
    pub fn set_size(&self, bytes: u64) {
        self.0.lock().volume.size = bytes;
    }

    /// Has other programs use so much of the volume that `bytes` bytes are free.
    pub fn leave_free(&self, bytes: u64) {
        let mut state = self.0.lock();
        state.volume.others = state.volume.size.saturating_sub(state.used() + bytes);
    }

    /// Returns an independent copy of the disk, on which everything that the process sees is durable. Its
    /// random numbers continue from those of this disk, and it has no troubles.
    #[must_use]
    pub fn fork(&self) -> Self {
        let disk = Self::new(0);
        {
            let (state, mut fork) = (self.0.lock(), disk.0.lock());
            (fork.random, fork.volume) = (state.random, state.volume);
            for (name, content) in &state.files {
                let content = Content::of(content.lock().current.clone());
                fork.files.insert(name.clone(), content.clone());
                fork.durable_files.insert(name.clone(), content);
            }
        }
        disk
    }

    /// Ends the process that uses the disk. All its writes stay, synced or not. The next process needs a new clone.
    pub fn end_process(&self) {
        let mut state = self.0.lock();
        state.crashes += 1;
        state.troubles.clear();
    }

    /// Returns the checksum of all names and bytes as a process sees them, for comparing two runs.
    #[must_use]
    pub fn checksum(&self) -> u32 {
        let mut sum = crc32fast::Hasher::new();
        for (name, content) in &self.0.lock().files {
            sum.update(name.as_bytes());
            sum.update(&content.lock().current);
        }
        sum.finalize()
    }

    /// Ends the process by a loss of power, and turns the power on again. A random part of the sectors of each unsynced
    /// write is lost, and so are, in each folder, the unsynced changes of names from a random one on. The next process
    /// needs a new clone.
    pub fn crash(&self) {
        let mut state = self.0.lock();
        state.off = false;
        state.crashes += 1;
        state.off_at_write = u64::MAX;
        state.troubles.clear();
        let mut kept = BTreeMap::new();
        for change in std::mem::take(&mut state.unsynced_names) {
            let folder = change.folder().to_owned();
            let still = kept.get(&folder).copied().unwrap_or(true) && !state.random().is_multiple_of(4);
            kept.insert(folder, still);
            if still {
                change.apply(&mut state.durable_files);
            }
        }
        state.files = state.durable_files.clone();
        let files: Vec<_> = state.files.values().cloned().collect();
        for file in files {
            file.lock().crash(|| state.random() & 1 == 0);
        }
    }

    /// Flips the lowest bit of the byte at `offset` of a file, as rot does: without a write.
    pub fn flip(&self, name: &str, offset: u64) {
        self.rot(name, |bytes| bytes[offset as usize] ^= 1);
    }

    /// Zeroes `len` bytes of a file from `offset` on, up to its end at most, without a write.
    pub fn zero(&self, name: &str, offset: u64, len: u64) {
        self.rot(name, |bytes| {
            let upto = ((offset + len) as usize).min(bytes.len());
            bytes[(offset as usize).min(upto)..upto].fill(0);
        });
    }

    /// Cuts a file to `len` bytes, without a write.
    pub fn truncate(&self, name: &str, len: u64) {
        self.rot(name, |bytes| bytes.truncate(len as usize));
    }

    /// Removes a file and its name durably, without a write.
    pub fn lose(&self, name: &str) {
        let mut state = self.0.lock();
        state.files.remove(name);
        state.durable_files.remove(name);
    }

    fn rot(&self, name: &str, change: impl Fn(&mut Vec<u8>)) {
        let state = self.0.lock();
        if let Some(file) = state.files.get(name) {
            file.lock().rot(change);
        }
    }

    /// Returns the file, offset and length of each of the last eight writes that went to a file in `folder`.
    #[must_use]
    pub fn last_writes(&self, folder: &str) -> Vec<(String, u64, u64)> {
        let state = self.0.lock();
        let inside = |name: &str| name.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'));
        state.last_writes.iter().filter(|(name, ..)| inside(name)).cloned().collect()
    }

    /// Returns the number of writes and of syncs so far, for comparing two runs.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        let state = self.0.lock();
        (state.writes, state.syncs)
    }

    /// Begins a call for the file or folder `name`: lets the call take its time, then fails if the power is off, if the
    /// process has ended, or if a trouble is due. Writes and syncs of the log take no time, because the log's driver
    /// decides when they happen.
    fn begin(&self, call: Call, name: &str) -> io::Result<()> {
        let reads = matches!(call, Call::Read | Call::Open | Call::List);
        let at_once = name.starts_with("wal") && !reads;
        let goes_on = at_once || slow::pause(|| self.0.lock().slow());
        let mut state = self.0.lock();
        if !goes_on || state.off || state.crashes != self.1 {
            return Err(off());
        }
        state.troubles.meet(call).map_or(Ok(()), |error| Err(error.into()))
    }

    /// Counts a write. Fails if the power goes off at it; `crash` then decides which part of the write is on the disk.
    fn count_write(&self) -> io::Result<()> {
        let mut state = self.0.lock();
        if state.crashes != self.1 {
            return Err(off());
        }
        let now = state.writes;
        state.writes += 1;
        state.off |= now >= state.off_at_write;
        if state.off { Err(off()) } else { Ok(()) }
    }
}

fn off() -> io::Error {
    io::Error::other("the power is off")
}

impl State {
    /// Changes names as the process sees them; the change is not durable yet.
    fn rename(&mut self, change: NameChange) {
        let copy = NameChange { from: change.from.clone(), to: change.to.clone() };
        copy.apply(&mut self.files);
        self.unsynced_names.push(change);
    }

    fn used(&self) -> u64 {
        self.files.values().map(|file| file.lock().current.len() as u64).sum()
    }

    fn free(&self) -> u64 {
        if self.full { 0 } else { self.volume.size.saturating_sub(self.volume.others + self.used()) }
    }

    /// Returns a random time for a call to take.
    fn slow(&mut self) -> Duration {
        let up_to = self.slow_up_to.as_millis() as u64;
        if up_to == 0 {
            return Duration::ZERO;
        }
        let long = if self.random().is_multiple_of(32) { 10 } else { 1 };
        Duration::from_millis(long * (self.random() % (up_to + 1)))
    }

    /// Returns the next number of the splitmix64 sequence.
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl Disk for FaultyDisk {
    fn create(&self, name: &str, len: u64, _zeroed: bool) -> io::Result<Arc<dyn DiskFile>> {
        self.begin(Call::Create, name)?;
        let mut state = self.0.lock();
        let replaced = state.files.get(name).map_or(0, |file| file.lock().current.len() as u64);
        if state.full || len > state.free() + replaced {
            return Err(Errno::NoSpace.into());
        }
        let content = Content::of(vec![0; len as usize]);
        state.rename(NameChange { from: None, to: Some((name.to_owned(), content.clone())) });
        Ok(Arc::new(OpenFile { disk: Self(self.0.clone(), self.1), name: name.to_owned(), content }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.begin(Call::Open, name)?;
        let content = self.0.lock().files.get(name).cloned().ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(OpenFile { disk: Self(self.0.clone(), self.1), name: name.to_owned(), content }))
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        self.begin(Call::List, folder)?;
        let state = self.0.lock();
        let inside = |name: &String| Some(name.strip_prefix(folder)?.strip_prefix('/')?.to_owned());
        Ok(state.files.keys().filter_map(inside).collect())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.begin(Call::Rename, to)?;
        self.count_write()?;
        let mut state = self.0.lock();
        let content = state.files.get(from).cloned().ok_or(io::ErrorKind::NotFound)?;
        state.rename(NameChange { from: Some(from.to_owned()), to: Some((to.to_owned(), content)) });
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.begin(Call::Remove, name)?;
        self.count_write()?;
        let mut state = self.0.lock();
        if !state.files.contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.rename(NameChange { from: Some(name.to_owned()), to: None });
        Ok(())
    }

    fn sync_folder(&self, folder: &str) -> io::Result<()> {
        self.begin(Call::SyncFolder, folder)?;
        let mut state = self.0.lock();
        let (synced, others) =
            std::mem::take(&mut state.unsynced_names).into_iter().partition(|change| change.folder() == folder);
        state.unsynced_names = others;
        let synced: Vec<NameChange> = synced;
        synced.into_iter().for_each(|change| change.apply(&mut state.durable_files));
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(self.0.lock().free())
    }

    fn total_bytes(&self) -> io::Result<u64> {
        Ok(self.0.lock().volume.size)
    }
}

impl DiskFile for OpenFile {
    fn write_at(&self, parts: &mut [IoSlice<'_>], offset: u64) -> io::Result<()> {
        let mut bytes: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        let mut written = self.disk.begin(Call::Write, &self.name).and_then(|()| self.disk.count_write());
        {
            let mut state = self.disk.0.lock();
            if state.crashes != self.disk.1 {
                return Err(off());
            }
            if written.as_ref().is_err_and(|error| error.raw_os_error().is_some()) {
                let interrupted = written.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::Interrupted);
                let some = if interrupted { 0 } else { state.random() as usize % (bytes.len() + 1) };
                bytes.truncate(some); // a call that fails may have written a part
            }
            let len = self.content.lock().current.len() as u64;
            let longer = (offset + bytes.len() as u64).saturating_sub(len);
            let free = if longer > 0 { state.free() } else { 0 };
            if longer > free {
                bytes.truncate(bytes.len() - (longer - free) as usize);
                written = written.and(Err(Errno::NoSpace.into()));
            }
        }
        if written.is_ok() {
            let mut state = self.disk.0.lock();
            state.last_writes.push_back((self.name.clone(), offset, bytes.len() as u64));
            if state.last_writes.len() > LAST_WRITES {
                state.last_writes.pop_front();
            }
        }
        self.content.lock().write(offset, bytes);
        written
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.disk.begin(Call::Read, &self.name)?;
        let content = self.content.lock();
        let from = offset as usize;
        let part = content.current.get(from..from + buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(part);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let begun = self.disk.begin(Call::Sync, &self.name);
        if begun.as_ref().is_err_and(|error| error.raw_os_error() == Some(5)) {
            self.content.lock().unsynced.clear(); // as Linux does: reads return the bytes, no later sync writes them
        }
        begun?;
        self.disk.0.lock().syncs += 1;
        self.content.lock().sync();
        Ok(())
    }

    fn sync_and_drop_cache(&self, len: u64) -> io::Result<()> {
        self.sync_data()?;
        self.content.lock().drop_cache(len);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.content.lock().current.len() as u64)
    }
}

/// The number of writes that `last_writes` remembers.
const LAST_WRITES: usize = 8;

//! A disk in memory that does what disks do: loses and tears what was not synced, fails, fills up, is slow, rots.
//!
//! Everything it does comes from its seed and from what it is told; the same calls give the same disk. `content` (bytes of a
//! file), `trouble` (calls that fail), `slow` (calls that take time while other work goes on).
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
pub use trouble::{Call, Errno, Trouble};

/// The disk. A clone is the same disk as a process sees it that starts now: after a crash it is of no use any more.
pub struct FaultyDisk(Arc<Mutex<State>>, u64);

impl Clone for FaultyDisk {
    fn clone(&self) -> Self {
        let crashes = self.0.lock().crashes;
        Self(self.0.clone(), crashes)
    }
}

struct State {
    files: Files,
    /// The names as they are after a crash, and what was done to them since their folder was last synced.
    durable_files: Files,
    names_unsynced: Vec<Renamed>,
    random: u64,
    writes: u64,
    syncs: u64,
    /// The write with this number fails, and everything after it: the power is off.
    off_at_write: u64,
    off: bool,
    crashes: u64,
    troubles: trouble::Troubles,
    full: bool,
    volume: Volume,
    /// The writes before now: file, offset, length.
    last_writes: VecDeque<(String, u64, u64)>,
    /// Calls of work that runs beside the node take up to this time, a few of them ten times as long.
    slow_up_to: Duration,
}

/// The volume's size, and what others have put on it, in bytes.
#[derive(Clone, Copy)]
struct Volume {
    size: u64,
    others: u64,
}

type Files = BTreeMap<String, Shared>;

/// A name that went, and one that came.
struct Renamed {
    from: Option<String>,
    to: Option<(String, Shared)>,
}

impl Renamed {
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
    /// An empty disk.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(
            Arc::new(Mutex::new(State {
                files: Files::new(),
                durable_files: Files::new(),
                names_unsynced: Vec::new(),
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

    /// The power goes off at the `n`th write from now on (0: the next one).
    pub fn power_off_at_write(&self, n: u64) {
        let mut state = self.0.lock();
        state.off_at_write = state.writes + n;
    }

    /// Whether the power went off.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.0.lock().off
    }

    /// The `n`th sync from now on fails with EIO (0: the next one).
    pub fn fail_at_sync(&self, n: u64) {
        self.expect(Trouble { calls: vec![Call::Sync], error: Errno::Io, after: n, times: 1 });
    }

    /// Calls are going to fail, until the process ends or [`clear`](Self::clear) is called.
    pub fn expect(&self, trouble: Trouble) {
        self.0.lock().troubles.add(trouble);
    }

    /// No further call fails of those that were to, none is slow.
    pub fn clear(&self) {
        let mut state = self.0.lock();
        state.troubles.clear();
        state.slow_up_to = Duration::ZERO;
    }

    /// How many calls have failed as they were told to.
    #[must_use]
    pub fn troubles_met(&self) -> u64 {
        self.0.lock().troubles.met
    }

    /// Calls that [`Slow`] work makes take up to `time` from now on, a few ten times as long.
    pub fn set_slow(&self, time: Duration) {
        self.0.lock().slow_up_to = time;
    }

    /// There is no space for new files from now on, or again.
    pub fn set_full(&self, full: bool) {
        self.0.lock().full = full;
    }

    /// The volume has this many bytes.
    pub fn set_size(&self, bytes: u64) {
        self.0.lock().volume.size = bytes;
    }

    /// Others put so much on the volume, or take so much away, that `bytes` are free.
    pub fn leave_free(&self, bytes: u64) {
        let mut state = self.0.lock();
        state.volume.others = state.volume.size.saturating_sub(state.used() + bytes);
    }

    /// A disk that holds the same, for another turn of events.
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

    /// The process that has it ends: what it wrote stays, synced or not. Take a clone for the next one.
    pub fn end_process(&self) {
        let mut state = self.0.lock();
        state.crashes += 1;
        state.troubles.clear();
    }

    /// Checksum of names and bytes as a process sees them, for comparing two runs.
    #[must_use]
    pub fn checksum(&self) -> u32 {
        let mut sum = crc32fast::Hasher::new();
        for (name, content) in &self.0.lock().files {
            sum.update(name.as_bytes());
            sum.update(&content.lock().current);
        }
        sum.finalize()
    }

    /// What was not synced is lost, sector by sector or in part, and the names of each folder from some point on that were
    /// not synced; then the power is on again.
    pub fn crash(&self) {
        let mut state = self.0.lock();
        state.off = false;
        state.crashes += 1;
        state.off_at_write = u64::MAX;
        state.troubles.clear();
        let mut kept = BTreeMap::new();
        for renamed in std::mem::take(&mut state.names_unsynced) {
            let folder = renamed.folder().to_owned();
            let still = kept.get(&folder).copied().unwrap_or(true) && !state.random().is_multiple_of(4);
            kept.insert(folder, still);
            if still {
                renamed.apply(&mut state.durable_files);
            }
        }
        state.files = state.durable_files.clone();
        let files: Vec<_> = state.files.values().cloned().collect();
        for file in files {
            file.lock().crash(|| state.random() & 1 == 0);
        }
    }

    /// Flips a bit of the byte at `offset`.
    pub fn flip(&self, name: &str, offset: u64) {
        self.rot(name, |bytes| bytes[offset as usize] ^= 1);
    }

    /// Zeroes `len` bytes from `offset` on, as far as the file goes.
    pub fn zero(&self, name: &str, offset: u64, len: u64) {
        self.rot(name, |bytes| {
            let upto = ((offset + len) as usize).min(bytes.len());
            bytes[(offset as usize).min(upto)..upto].fill(0);
        });
    }

    /// Cuts a file short.
    pub fn truncate(&self, name: &str, len: u64) {
        self.rot(name, |bytes| bytes.truncate(len as usize));
    }

    /// Loses a file, name and bytes.
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

    /// The last writes to files in `folder`: file, offset and length of each.
    #[must_use]
    pub fn last_writes(&self, folder: &str) -> Vec<(String, u64, u64)> {
        let state = self.0.lock();
        let inside = |name: &str| name.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'));
        state.last_writes.iter().filter(|(name, ..)| inside(name)).cloned().collect()
    }

    /// Writes and syncs so far, for comparing two runs.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        let state = self.0.lock();
        (state.writes, state.syncs)
    }

    /// Begins a call that has to do with `name`: it takes its time, and goes on unless the power is off, the process has ended
    /// or it is to fail. When the log is written is for its driver to say.
    fn begin(&self, call: Call, name: &str) -> io::Result<()> {
        let reads = matches!(call, Call::Read | Call::Open | Call::List);
        let at_once = name.starts_with("wal") && !reads;
        let waits = at_once || slow::takes(|| self.0.lock().slow());
        let mut state = self.0.lock();
        if !waits || state.off || state.crashes != self.1 {
            return Err(off());
        }
        state.troubles.meet(call).map_or(Ok(()), |error| Err(error.into()))
    }

    /// Counts a write. None if the power goes off with it: whether part of it still reaches the disk is for `crash`.
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
    fn rename(&mut self, renamed: Renamed) {
        let again = Renamed { from: renamed.from.clone(), to: renamed.to.clone() };
        again.apply(&mut self.files);
        self.names_unsynced.push(renamed);
    }

    fn used(&self) -> u64 {
        self.files.values().map(|file| file.lock().current.len() as u64).sum()
    }

    fn free(&self) -> u64 {
        if self.full { 0 } else { self.volume.size.saturating_sub(self.volume.others + self.used()) }
    }

    fn slow(&mut self) -> Duration {
        let up_to = self.slow_up_to.as_millis() as u64;
        if up_to == 0 {
            return Duration::ZERO;
        }
        let long = if self.random().is_multiple_of(32) { 10 } else { 1 };
        Duration::from_millis(long * (self.random() % (up_to + 1)))
    }

    /// The splitmix64 sequence.
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
        state.rename(Renamed { from: None, to: Some((name.to_owned(), content.clone())) });
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
        state.rename(Renamed { from: Some(from.to_owned()), to: Some((to.to_owned(), content)) });
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.begin(Call::Remove, name)?;
        self.count_write()?;
        let mut state = self.0.lock();
        if !state.files.contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.rename(Renamed { from: Some(name.to_owned()), to: None });
        Ok(())
    }

    fn sync_folder(&self, folder: &str) -> io::Result<()> {
        self.begin(Call::SyncFolder, folder)?;
        let mut state = self.0.lock();
        let (synced, others) =
            std::mem::take(&mut state.names_unsynced).into_iter().partition(|renamed| renamed.folder() == folder);
        state.names_unsynced = others;
        let synced: Vec<Renamed> = synced;
        synced.into_iter().for_each(|renamed| renamed.apply(&mut state.durable_files));
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
                bytes.truncate(some); // a call that fails may have done a part
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
            self.content.lock().unsynced.clear(); // as Linux does: read back as if all were well, and never written
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

/// Writes that are remembered.
const LAST_WRITES: usize = 8;

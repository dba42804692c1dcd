//! A disk in memory that does what disks do: loses and tears what was not synced, fails, fills up, flips bits.
//!
//! Everything it does comes from its seed and from what it is told; the same calls give the same disk.
use crate::disk::{Disk, DiskFile};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::sync::Arc;

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
    fail_at_sync: u64,
    full: bool,
}

type Files = BTreeMap<String, Arc<Mutex<Content>>>;

/// A name that went, and one that came.
struct Renamed {
    from: Option<String>,
    to: Option<(String, Arc<Mutex<Content>>)>,
}

impl Renamed {
    fn apply(self, files: &mut Files) {
        if let Some(from) = self.from {
            files.remove(&from);
        }
        files.extend(self.to);
    }
}

#[derive(Default)]
struct Content {
    durable: Vec<u8>,
    current: Vec<u8>,
    /// Ranges written since the last sync.
    unsynced: Vec<(u64, Vec<u8>)>,
}

struct OpenFile {
    disk: FaultyDisk,
    content: Arc<Mutex<Content>>,
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
                fail_at_sync: u64::MAX,
                full: false,
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
        let mut state = self.0.lock();
        state.fail_at_sync = state.syncs + n;
    }

    /// There is no space for new files from now on, or again.
    pub fn set_full(&self, full: bool) {
        self.0.lock().full = full;
    }

    /// A disk that holds the same, for another turn of events.
    #[must_use]
    pub fn fork(&self) -> Self {
        let disk = Self::new(0);
        {
            let (state, mut fork) = (self.0.lock(), disk.0.lock());
            fork.random = state.random;
            for (name, content) in &state.files {
                let bytes = content.lock().current.clone();
                let content = Content { durable: bytes.clone(), current: bytes, unsynced: Vec::new() };
                let content = Arc::new(Mutex::new(content));
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
        state.fail_at_sync = u64::MAX;
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

    /// What was not synced is lost, sector by sector or in part, and names not synced from some point on; then the power
    /// is on again.
    pub fn crash(&self) {
        let mut state = self.0.lock();
        state.off = false;
        state.crashes += 1;
        state.off_at_write = u64::MAX;
        state.fail_at_sync = u64::MAX;
        let unsynced = std::mem::take(&mut state.names_unsynced);
        let kept = state.random() as usize % (unsynced.len() + 1);
        for renamed in unsynced.into_iter().take(kept) {
            renamed.apply(&mut state.durable_files);
        }
        state.files = state.durable_files.clone();
        let files: Vec<_> = state.files.values().cloned().collect();
        for file in files {
            let mut content = file.lock();
            for (offset, bytes) in std::mem::take(&mut content.unsynced) {
                for (at, sector) in bytes.chunks(SECTOR).enumerate() {
                    if state.random() & 1 == 0 {
                        let from = offset as usize + at * SECTOR;
                        put(&mut content.durable, from, sector);
                    }
                }
            }
            content.current = content.durable.clone();
        }
    }

    /// Flips a bit of the byte at `offset`.
    pub fn flip(&self, name: &str, offset: u64) {
        let state = self.0.lock();
        if let Some(file) = state.files.get(name) {
            let mut content = file.lock();
            content.durable[offset as usize] ^= 1;
            content.current[offset as usize] ^= 1;
        }
    }

    /// Bytes written and synced so far, for comparing two runs.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        let state = self.0.lock();
        (state.writes, state.syncs)
    }

    fn check(&self) -> io::Result<()> {
        let state = self.0.lock();
        if state.off || state.crashes != self.1 { Err(io::Error::other("the power is off")) } else { Ok(()) }
    }

    /// Counts a write. None if the power goes off with it: whether part of it still reaches the disk is for `crash`.
    fn write(&self) -> io::Result<()> {
        let mut state = self.0.lock();
        if state.crashes != self.1 {
            return Err(io::Error::other("the power is off"));
        }
        let now = state.writes;
        state.writes += 1;
        state.off |= now >= state.off_at_write;
        if state.off { Err(io::Error::other("the power is off")) } else { Ok(()) }
    }
}

impl State {
    fn rename(&mut self, renamed: Renamed) {
        let again = Renamed { from: renamed.from.clone(), to: renamed.to.clone() };
        again.apply(&mut self.files);
        self.names_unsynced.push(renamed);
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

fn put(bytes: &mut Vec<u8>, at: usize, part: &[u8]) {
    if bytes.len() < at + part.len() {
        bytes.resize(at + part.len(), 0);
    }
    bytes[at..at + part.len()].copy_from_slice(part);
}

impl Disk for FaultyDisk {
    fn create(&self, name: &str, len: u64, _zeroed: bool) -> io::Result<Arc<dyn DiskFile>> {
        self.check()?;
        let mut state = self.0.lock();
        if state.full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let zeros = vec![0; len as usize];
        let content = Content { durable: zeros.clone(), current: zeros, unsynced: Vec::new() };
        let content = Arc::new(Mutex::new(content));
        state.rename(Renamed { from: None, to: Some((name.to_owned(), content.clone())) });
        Ok(Arc::new(OpenFile { disk: Self(self.0.clone(), self.1), content }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.check()?;
        let content = self.0.lock().files.get(name).cloned().ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(OpenFile { disk: Self(self.0.clone(), self.1), content }))
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        self.check()?;
        let state = self.0.lock();
        let inside = |name: &String| Some(name.strip_prefix(folder)?.strip_prefix('/')?.to_owned());
        Ok(state.files.keys().filter_map(inside).collect())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.write()?;
        let mut state = self.0.lock();
        let content = state.files.get(from).cloned().ok_or(io::ErrorKind::NotFound)?;
        state.rename(Renamed { from: Some(from.to_owned()), to: Some((to.to_owned(), content)) });
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.write()?;
        let mut state = self.0.lock();
        if !state.files.contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.rename(Renamed { from: Some(name.to_owned()), to: None });
        Ok(())
    }

    fn sync_folder(&self, _folder: &str) -> io::Result<()> {
        self.check()?;
        let mut state = self.0.lock();
        for renamed in std::mem::take(&mut state.names_unsynced) {
            renamed.apply(&mut state.durable_files);
        }
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(if self.0.lock().full { 0 } else { 1 << 40 })
    }

    fn total_bytes(&self) -> io::Result<u64> {
        Ok(1 << 40)
    }
}

impl DiskFile for OpenFile {
    fn write_at(&self, parts: &mut [IoSlice<'_>], offset: u64) -> io::Result<()> {
        let bytes: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        let written = self.disk.write();
        if self.disk.0.lock().crashes != self.disk.1 {
            return written;
        }
        let mut content = self.content.lock();
        put(&mut content.current, offset as usize, &bytes);
        content.unsynced.push((offset, bytes));
        written
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.disk.check()?;
        let content = self.content.lock();
        let from = offset as usize;
        let part = content.current.get(from..from + buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(part);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.check()?;
        {
            let mut state = self.disk.0.lock();
            let now = state.syncs;
            state.syncs += 1;
            if now == state.fail_at_sync {
                self.content.lock().unsynced.clear(); // as Linux does: read back as if all were well, and never written
                return Err(io::Error::from_raw_os_error(5));
            }
        }
        let mut content = self.content.lock();
        for (offset, bytes) in std::mem::take(&mut content.unsynced) {
            put(&mut content.durable, offset as usize, &bytes);
        }
        Ok(())
    }

    fn sync_and_drop_cache(&self, len: u64) -> io::Result<()> {
        self.sync_data()?;
        let mut content = self.content.lock();
        let Content { durable, current, .. } = &mut *content;
        let upto = (len.min(durable.len() as u64) as usize).min(current.len());
        current[..upto].copy_from_slice(&durable[..upto]);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.content.lock().current.len() as u64)
    }
}

/// What a disk writes whole or not at all, in bytes.
const SECTOR: usize = 512;

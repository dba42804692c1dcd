//! The bytes of one file: as they are on the disk, and as a process sees them.
use std::sync::Arc;

#[derive(Default)]
pub(super) struct Content {
    pub(super) durable: Vec<u8>,
    pub(super) current: Vec<u8>,
    /// Ranges written since the last sync.
    pub(super) unsynced: Vec<(u64, Vec<u8>)>,
}

pub(super) type Shared = Arc<parking_lot::Mutex<Content>>;

impl Content {
    /// A file that holds `bytes`, all of them on the disk.
    pub(super) fn of(bytes: Vec<u8>) -> Shared {
        let content = Self { durable: bytes.clone(), current: bytes, unsynced: Vec::new() };
        Arc::new(parking_lot::Mutex::new(content))
    }

    pub(super) fn write(&mut self, offset: u64, bytes: Vec<u8>) {
        put(&mut self.current, offset as usize, &bytes);
        self.unsynced.push((offset, bytes));
    }

    pub(super) fn sync(&mut self) {
        for (offset, bytes) in std::mem::take(&mut self.unsynced) {
            put(&mut self.durable, offset as usize, &bytes);
        }
    }

    /// The cache of the first `len` bytes goes: what is read from now on is what the disk has.
    pub(super) fn drop_cache(&mut self, len: u64) {
        let Self { durable, current, .. } = self;
        let upto = (len.min(durable.len() as u64) as usize).min(current.len());
        current[..upto].copy_from_slice(&durable[..upto]);
    }

    /// The power went: of what was not synced each sector is there or not, as `kept` says.
    pub(super) fn crash(&mut self, mut kept: impl FnMut() -> bool) {
        for (offset, bytes) in std::mem::take(&mut self.unsynced) {
            for (at, sector) in bytes.chunks(SECTOR).enumerate() {
                if kept() {
                    put(&mut self.durable, offset as usize + at * SECTOR, sector);
                }
            }
        }
        self.current.clone_from(&self.durable);
    }

    /// Bytes on the disk have changed without a write.
    pub(super) fn rot(&mut self, change: impl Fn(&mut Vec<u8>)) {
        change(&mut self.durable);
        change(&mut self.current);
    }
}

fn put(bytes: &mut Vec<u8>, at: usize, part: &[u8]) {
    if bytes.len() < at + part.len() {
        bytes.resize(at + part.len(), 0);
    }
    bytes[at..at + part.len()].copy_from_slice(part);
}

/// What a disk writes whole or not at all, in bytes.
const SECTOR: usize = 512;

//! The bytes of one file of the simulated disk: those that are durable, and those that a process sees.
use std::sync::Arc;

#[derive(Default)]
pub(super) struct Content {
    pub(super) durable: Vec<u8>,
    pub(super) current: Vec<u8>,
    /// Offset and bytes of each write since the last sync.
    pub(super) unsynced: Vec<(u64, Vec<u8>)>,
}

pub(super) type Shared = Arc<parking_lot::Mutex<Content>>;

impl Content {
    /// Returns a file that holds `bytes`, all of them durable.
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

    /// Drops the first `len` bytes from the cache: later reads return what is durable.
    pub(super) fn drop_cache(&mut self, len: u64) {
        let Self { durable, current, .. } = self;
        let upto = (len.min(durable.len() as u64) as usize).min(current.len());
        current[..upto].copy_from_slice(&durable[..upto]);
    }

    /// A loss of power: of the unsynced writes, the sectors for which `kept` returns true become durable, and all
    /// others are lost.
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

    /// Changes bytes on the disk and in the cache, without a write.
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

/// Size of a sector in bytes: a disk writes all of it or nothing.
const SECTOR: usize = 512;

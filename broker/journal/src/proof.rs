//! What is known to be durable, in the file `wal.proof` beside the log: by it a start tells rot from a torn tail.
//!
//! The file has three slots, each in a block of its own and each written in place, which needs no space on a full disk:
//! `magic u64, version u32, stopped u32, node u64, generation u64, durable u64, segment u64, released u64, 0 u32, crc32 of
//! these u32`, little-endian. `durable` is the last sequence known to be synced, `segment` the newest segment that was
//! begun, `released` as in a segment's header, `stopped` 1 after a stop in order.
//!
//! Slots 0 and 1 are written in turn and synced: when a segment was begun, when the log falls idle, before a file leaves the
//! log, and at a stop. Slot 2 is written after every sync of the log and not synced: it outlives the process, though not
//! always the power. Each slot was true when it was written, and what it says only grows. So the largest of what the whole
//! slots say holds, and a slot that is torn or damaged makes the proof older, never wrong.
use crate::disk::{Disk, DiskFile};
use crate::format::{VERSION, long, word};
use crate::recover::OpenError;
use parking_lot::Mutex;
use std::io::{self, IoSlice};
use std::sync::Arc;

/// What is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Known {
    /// Records up to this sequence are durable.
    pub(crate) durable: u64,
    /// The newest segment that was begun.
    pub(crate) segment: u64,
    /// Segments below this number may be gone.
    pub(crate) released: u64,
    /// The log was stopped in order, and nothing was written since.
    pub(crate) stopped: bool,
}

/// The file, open.
pub(crate) struct Proof {
    file: Arc<dyn DiskFile>,
    node: u64,
    state: Mutex<State>,
    /// Held while a slot is written and synced.
    noting: Mutex<()>,
}

struct State {
    known: Known,
    generation: u64,
}

/// The file as it was found.
pub(crate) struct Found {
    file: Option<Arc<dyn DiskFile>>,
    generation: u64,
    /// None if no slot is whole.
    pub(crate) known: Option<Known>,
}

impl Found {
    pub(crate) fn is_there(&self) -> bool {
        self.file.is_some()
    }
}

/// Reads the file; changes nothing.
pub(crate) fn read(disk: &dyn Disk, node: u64) -> Result<Found, OpenError> {
    let failed = |error| OpenError::Disk { file: NAME.to_owned(), error };
    let file = match disk.open(NAME) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(Found { file: None, generation: 0, known: None });
        }
        file => file.map_err(failed)?,
    };
    let mut found = Found { file: None, generation: 0, known: None };
    let len = file.len().map_err(failed)?;
    for at in (0..SLOTS).map(|slot| slot * BLOCK).filter(|at| at + SLOT as u64 <= len) {
        let mut bytes = [0; SLOT];
        file.read_at(&mut bytes, at).map_err(failed)?;
        let Some(slot) = Slot::decode(&bytes) else { continue };
        if slot.version > VERSION {
            return Err(OpenError::Newer { file: NAME.to_owned(), version: slot.version });
        }
        if slot.node != node {
            return Err(OpenError::OtherNode { file: NAME.to_owned(), found: slot.node, node });
        }
        let before = found.known.unwrap_or_default();
        let newer = slot.generation >= found.generation;
        found.generation = found.generation.max(slot.generation);
        found.known = Some(Known {
            durable: before.durable.max(slot.known.durable),
            segment: before.segment.max(slot.known.segment),
            released: before.released.max(slot.known.released),
            stopped: if newer { slot.known.stopped } else { before.stopped },
        });
    }
    // A shorter file was not made to its end: then nothing was ever written to the log.
    found.file = (len >= SLOTS * BLOCK).then_some(file);
    Ok(found)
}

impl Proof {
    /// Goes on with the file that was found, or makes it; what is known from here on is `known`.
    pub(crate) fn begin(disk: &dyn Disk, node: u64, found: Found, known: Known) -> io::Result<Self> {
        let file = match found.file {
            Some(file) => file,
            None => disk.create(NAME, SLOTS * BLOCK, true)?,
        };
        disk.sync_folder("")?; // also for a file that was found: whoever made it may have failed here
        let state = Mutex::new(State { known, generation: found.generation });
        let proof = Self { file, node, state, noting: Mutex::default() };
        proof.note(|_| ())?;
        Ok(proof)
    }

    /// Says what is known now, durably.
    pub(crate) fn note(&self, change: impl FnOnce(&mut Known)) -> io::Result<()> {
        let _noting = self.noting.lock();
        let (known, generation) = {
            let mut state = self.state.lock();
            change(&mut state.known);
            state.generation += 1;
            (state.known, state.generation)
        };
        let slot = Slot { version: VERSION, node: self.node, generation, known };
        self.file.write_at(&mut [IoSlice::new(&slot.encode())], generation % 2 * BLOCK)?;
        self.file.sync_data()
    }

    /// Says that records up to `durable` are, so that it is known even if the process ends now.
    pub(crate) fn hint(&self, durable: u64) -> io::Result<()> {
        let known = {
            let mut state = self.state.lock();
            state.known.durable = state.known.durable.max(durable);
            state.known
        };
        let slot = Slot { version: VERSION, node: self.node, generation: 0, known };
        self.file.write_at(&mut [IoSlice::new(&slot.encode())], 2 * BLOCK)
    }

    /// Whether the file still has a name.
    pub(crate) fn is_linked(&self) -> io::Result<bool> {
        self.file.is_linked()
    }
}

struct Slot {
    version: u32,
    node: u64,
    generation: u64,
    known: Known,
}

impl Slot {
    fn encode(&self) -> [u8; SLOT] {
        let Self { version, node, generation, known } = self;
        let mut bytes = [0; SLOT];
        bytes[..8].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[8..12].copy_from_slice(&version.to_le_bytes());
        bytes[12..16].copy_from_slice(&u32::from(known.stopped).to_le_bytes());
        let longs = [*node, *generation, known.durable, known.segment, known.released];
        for (at, long) in longs.iter().enumerate() {
            bytes[16 + at * 8..24 + at * 8].copy_from_slice(&long.to_le_bytes());
        }
        let crc = crc32fast::hash(&bytes[..60]);
        bytes[60..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; SLOT]) -> Option<Self> {
        if long(bytes, 0) != MAGIC || crc32fast::hash(&bytes[..60]) != word(bytes, 60) {
            return None;
        }
        let known = Known {
            durable: long(bytes, 32),
            segment: long(bytes, 40),
            released: long(bytes, 48),
            stopped: word(bytes, 12) == 1,
        };
        Some(Self { version: word(bytes, 8), node: long(bytes, 16), generation: long(bytes, 24), known })
    }
}

/// Name of the file.
pub(crate) const NAME: &str = "wal.proof";
const MAGIC: u64 = u64::from_le_bytes(*b"LVRTPRF\0");
const SLOT: usize = 64;
const SLOTS: u64 = 3;
/// A slot never shares with another what a disk writes at once.
const BLOCK: u64 = 4096;

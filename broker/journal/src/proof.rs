//! The proof: the file `wal.proof` beside the log, which says up to where the log is known to be durable. With it a start
//! distinguishes rot from a torn tail.
//!
//! The file has three slots. Each has a block of its own and is overwritten in place, which needs no space on a full
//! disk: `magic u64, version u32, stopped u32, node u64, generation u64, durable u64, segment u64, released u64, 0 u32,
//! crc32 of the bytes before it u32`, little-endian. `durable` is the highest sequence known to be synced, `segment`
//! the number of the newest segment that was begun, `released` is as in a segment's header, and `stopped` is 1 after a
//! stop in order.
//!
//! Slots 0 and 1 are written alternately and synced: when a segment is begun, when the log falls idle, before the
//! header of a free file is overwritten, and at a stop. Slot 2 is written after every sync of the log and not synced:
//! it survives the end of the process, but not always a loss of power. The claims of a slot were true when it was
//! written, and their numbers only grow. So the largest number of all intact slots holds, and a torn or damaged slot
//! makes the proof older, never wrong.
use crate::disk::{Disk, DiskFile};
use crate::format::{PROOF_FILE, VERSION, long, word};
use crate::open_error::JournalOpenError;
use parking_lot::Mutex;
use std::io::{self, IoSlice};
use std::sync::Arc;

/// The statements of the proof about the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Claims {
    /// Records up to this sequence are durable.
    pub(crate) durable: u64,
    /// Number of the newest segment that was begun.
    pub(crate) segment: u64,
    /// The files of segments below this number may have been reused.
    pub(crate) released: u64,
    /// True if the log was stopped in order and nothing was written since.
    pub(crate) stopped: bool,
}

/// The open proof file, and its current claims.
pub(crate) struct Proof {
    file: Arc<dyn DiskFile>,
    node: u64,
    state: Mutex<ProofState>,
    /// Held while slot 0 or 1 is written and synced.
    noting: Mutex<()>,
}

struct ProofState {
    claims: Claims,
    generation: u64,
}

/// The proof file as a start finds it.
pub(crate) struct ProofFile {
    file: Option<Arc<dyn DiskFile>>,
    generation: u64,
    /// The claims of all intact slots together; `None` if no slot is intact.
    pub(crate) claims: Option<Claims>,
}

impl ProofFile {
    /// Returns whether the file exists and has its full length.
    pub(crate) fn is_there(&self) -> bool {
        self.file.is_some()
    }
}

/// Reads the proof file. Changes nothing on the disk.
pub(crate) fn read(disk: &dyn Disk, node: u64) -> Result<ProofFile, JournalOpenError> {
    let failed = |error| JournalOpenError::Disk { file: PROOF_FILE.to_owned(), error };
    let file = match disk.open(PROOF_FILE) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(ProofFile { file: None, generation: 0, claims: None });
        }
        file => file.map_err(failed)?,
    };
    let mut found = ProofFile { file: None, generation: 0, claims: None };
    let len = file.len().map_err(failed)?;
    for at in (0..SLOTS).map(|slot| slot * BLOCK).filter(|at| at + SLOT as u64 <= len) {
        let mut bytes = [0; SLOT];
        file.read_at(&mut bytes, at).map_err(failed)?;
        let Some(slot) = ProofSlot::decode(&bytes) else { continue };
        if slot.version > VERSION {
            return Err(JournalOpenError::Newer { file: PROOF_FILE.to_owned(), version: slot.version });
        }
        if slot.node != node {
            return Err(JournalOpenError::OtherNode { file: PROOF_FILE.to_owned(), found: slot.node, node });
        }
        let before = found.claims.unwrap_or_default();
        let newer = slot.generation >= found.generation;
        found.generation = found.generation.max(slot.generation);
        found.claims = Some(Claims {
            durable: before.durable.max(slot.claims.durable),
            segment: before.segment.max(slot.claims.segment),
            released: before.released.max(slot.claims.released),
            stopped: if newer { slot.claims.stopped } else { before.stopped },
        });
    }
    // The creation of a shorter file was interrupted: then nothing was ever written to the log.
    found.file = (len >= SLOTS * BLOCK).then_some(file);
    Ok(found)
}

impl Proof {
    /// Continues with the file that was found, or creates it, and writes `claims` to it durably.
    pub(crate) fn begin(disk: &dyn Disk, node: u64, found: ProofFile, claims: Claims) -> io::Result<Self> {
        let file = match found.file {
            Some(file) => file,
            None => disk.create(PROOF_FILE, SLOTS * BLOCK, true)?,
        };
        disk.sync_folder("")?; // also for a file that was found: the process that created it may have ended before this
        let state = Mutex::new(ProofState { claims, generation: found.generation });
        let proof = Self { file, node, state, noting: Mutex::default() };
        proof.note(|_| ())?;
        Ok(proof)
    }

    /// Changes the claims and writes them to slot 0 or 1 durably.
    pub(crate) fn note(&self, change: impl FnOnce(&mut Claims)) -> io::Result<()> {
        let _noting = self.noting.lock();
        let (claims, generation) = {
            let mut state = self.state.lock();
            change(&mut state.claims);
            state.generation += 1;
            (state.claims, state.generation)
        };
        let slot = ProofSlot { version: VERSION, node: self.node, generation, claims };
        self.file.write_at(&mut [IoSlice::new(&slot.encode())], generation % 2 * BLOCK)?;
        self.file.sync_data()
    }

    /// Writes to slot 2, without a sync, that records up to sequence `durable` are durable. The next start knows it
    /// even if the process ends now.
    pub(crate) fn hint(&self, durable: u64) -> io::Result<()> {
        let claims = {
            let mut state = self.state.lock();
            state.claims.durable = state.claims.durable.max(durable);
            state.claims
        };
        let slot = ProofSlot { version: VERSION, node: self.node, generation: 0, claims };
        self.file.write_at(&mut [IoSlice::new(&slot.encode())], 2 * BLOCK)
    }

    /// Returns whether the file still has a name.
    pub(crate) fn is_linked(&self) -> io::Result<bool> {
        self.file.is_linked()
    }
}

struct ProofSlot {
    version: u32,
    node: u64,
    generation: u64,
    claims: Claims,
}

impl ProofSlot {
    fn encode(&self) -> [u8; SLOT] {
        let Self { version, node, generation, claims } = self;
        let mut bytes = [0; SLOT];
        bytes[..8].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[8..12].copy_from_slice(&version.to_le_bytes());
        bytes[12..16].copy_from_slice(&u32::from(claims.stopped).to_le_bytes());
        let longs = [*node, *generation, claims.durable, claims.segment, claims.released];
        for (at, long) in longs.iter().enumerate() {
            bytes[16 + at * 8..24 + at * 8].copy_from_slice(&long.to_le_bytes());
        }
        let crc = crc32fast::hash(&bytes[..60]);
        bytes[60..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Decodes a slot. Returns `None` if the magic number or the checksum does not match.
    fn decode(bytes: &[u8; SLOT]) -> Option<Self> {
        if long(bytes, 0) != MAGIC || crc32fast::hash(&bytes[..60]) != word(bytes, 60) {
            return None;
        }
        let claims = Claims {
            durable: long(bytes, 32),
            segment: long(bytes, 40),
            released: long(bytes, 48),
            stopped: word(bytes, 12) == 1,
        };
        Some(Self { version: word(bytes, 8), node: long(bytes, 16), generation: long(bytes, 24), claims })
    }
}

const MAGIC: u64 = u64::from_le_bytes(*b"LVRTPRF\0");
/// Length of a slot in bytes.
const SLOT: usize = 64;
/// The number of slots.
const SLOTS: u64 = 3;
/// Distance from slot to slot in bytes. It is large enough that no two slots share a unit in which a disk writes.
const BLOCK: u64 = 4096;

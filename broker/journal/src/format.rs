//! Bytes on disk. Integers little-endian.
//!
//! A segment file begins with its header, twice, so that one damaged copy is no harm: `magic u64, version u32, 0 u32, node u64,
//! segment u64, first sequence u64, released u64, 0 u64, 0 u32, crc32 of these u32`. Records follow, each on a multiple of 8:
//! `magic u32, crc32 of the body u32, node u64, segment u64, sequence u64, durable u64, index u64, term u64, body length u32,
//! group u16, kind u8, 0 u8, note u32, crc32 of these u32`, then the body.
//!
//! `sequence` counts the records of the node; `durable` is the highest sequence known to be synced when the record was
//! made: what tells a torn tail from rot (see `proof` for what else does). Segment numbers only grow; a file is used again
//! under a new number, so what is left of an earlier use is not taken for a record. `released`: segments below this number
//! may be gone, since their files may have been used again; all others have to be there.
//!
//! A file that holds no segment begins with `magic u64` of its own instead. One that begins with neither was made by a process
//! that ended before it had written either, was freed by an older version, or is damaged: what its records say decides.
//!
//! Version 1 has no `released` (it is 0) and no proof beside the log; it is read, and everything new is written as version 2.

/// What the caller says of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The group that it belongs to.
    pub group: u16,
    /// What it is to the group; 0 is the journal's own.
    pub kind: u8,
    /// Its index in the group's log.
    pub index: u64,
    /// The term of its leader.
    pub term: u64,
    /// What the group wants to find beside it.
    pub note: u32,
}

impl Head {
    /// Whether the newest record of this kind and group stays in the log, whatever else is released: it is written again at
    /// the beginning of every segment. Such records have no body.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.kind >= KEPT_FROM
    }
}

/// Where the body of a record lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Number of the segment.
    pub segment: u64,
    /// Offset in the segment's file.
    pub offset: u32,
    /// Length in bytes.
    pub len: u32,
}

/// A record's header as it is on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordHeader {
    pub(crate) node: u64,
    pub(crate) segment: u64,
    pub(crate) sequence: u64,
    pub(crate) durable: u64,
    pub(crate) head: Head,
    pub(crate) body_len: u32,
    pub(crate) body_crc: u32,
}

/// A segment's header as it is on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) version: u32,
    pub(crate) node: u64,
    pub(crate) segment: u64,
    pub(crate) first_sequence: u64,
    /// Segments below this number may be gone.
    pub(crate) released: u64,
}

impl RecordHeader {
    pub(crate) fn encode(&self) -> [u8; RECORD_HEAD] {
        let mut bytes = [0; RECORD_HEAD];
        bytes[..4].copy_from_slice(&RECORD_MAGIC.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.body_crc.to_le_bytes());
        let longs = [self.node, self.segment, self.sequence, self.durable, self.head.index, self.head.term];
        for (at, long) in longs.iter().enumerate() {
            bytes[8 + at * 8..16 + at * 8].copy_from_slice(&long.to_le_bytes());
        }
        bytes[56..60].copy_from_slice(&self.body_len.to_le_bytes());
        bytes[60..62].copy_from_slice(&self.head.group.to_le_bytes());
        bytes[62] = self.head.kind;
        bytes[64..68].copy_from_slice(&self.head.note.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..68]);
        bytes[68..72].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The header at the beginning of `bytes`, if that is one.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..RECORD_HEAD)?;
        if word(bytes, 0) != RECORD_MAGIC || crc32fast::hash(&bytes[..68]) != word(bytes, 68) {
            return None;
        }
        let head = Head {
            group: (word(bytes, 60) & 0xffff) as u16,
            kind: bytes[62],
            index: long(bytes, 40),
            term: long(bytes, 48),
            note: word(bytes, 64),
        };
        Some(Self {
            node: long(bytes, 8),
            segment: long(bytes, 16),
            sequence: long(bytes, 24),
            durable: long(bytes, 32),
            head,
            body_len: word(bytes, 56),
            body_crc: word(bytes, 4),
        })
    }

    /// Bytes from this header to the next.
    pub(crate) fn stride(&self) -> u32 {
        stride(self.body_len)
    }
}

impl SegmentHeader {
    /// Both copies.
    pub(crate) fn encode(&self) -> [u8; SEGMENT_HEAD] {
        let mut bytes = [0; SEGMENT_HEAD];
        bytes[..8].copy_from_slice(&SEGMENT_MAGIC.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.version.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.node.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.segment.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.first_sequence.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.released.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..60]);
        bytes[60..64].copy_from_slice(&crc.to_le_bytes());
        bytes.copy_within(..COPY, COPY);
        bytes
    }

    /// The header of a segment file: the first copy that is whole.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        bytes.get(..SEGMENT_HEAD)?.chunks(COPY).find_map(|copy| {
            if long(copy, 0) != SEGMENT_MAGIC || crc32fast::hash(&copy[..60]) != word(copy, 60) {
                return None;
            }
            let (version, node) = (word(copy, 8), long(copy, 16));
            let (segment, first_sequence, released) = (long(copy, 24), long(copy, 32), long(copy, 40));
            Some(Self { version, node, segment, first_sequence, released })
        })
    }
}

/// What a file begins with that holds no segment.
pub(crate) fn free_header() -> [u8; SEGMENT_HEAD] {
    let mut bytes = [0; SEGMENT_HEAD];
    bytes.chunks_mut(COPY).for_each(|copy| copy[..8].copy_from_slice(&FREE_MAGIC.to_le_bytes()));
    bytes
}

/// Whether a file begins with that.
pub(crate) fn is_free(bytes: &[u8; SEGMENT_HEAD]) -> bool {
    bytes.chunks(COPY).any(|copy| long(copy, 0) == FREE_MAGIC)
}

/// Bytes that a record with a body of this length takes.
pub(crate) fn stride(body_len: u32) -> u32 {
    (RECORD_HEAD as u32 + body_len).next_multiple_of(ALIGN)
}

pub(crate) fn long(bytes: &[u8], at: usize) -> u64 {
    let mut eight = [0; 8];
    eight.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(eight)
}

pub(crate) fn word(bytes: &[u8], at: usize) -> u32 {
    let mut four = [0; 4];
    four.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(four)
}

/// The version that is written, and the newest that is read.
pub(crate) const VERSION: u32 = 2;
/// The version before, which left no proof beside the log.
pub(crate) const WITHOUT_PROOF: u32 = 1;
/// Kinds of records from here on are kept.
pub const KEPT_FROM: u8 = 128;
pub(crate) const RECORD_HEAD: usize = 72;
/// Where the first record of a segment begins.
pub(crate) const SEGMENT_HEAD: usize = 2 * COPY;
const COPY: usize = 64;
pub(crate) const ALIGN: u32 = 8;
const RECORD_MAGIC: u32 = 0x4c56_5231;
const FREE_MAGIC: u64 = u64::from_le_bytes(*b"LVRTFREE");
const SEGMENT_MAGIC: u64 = u64::from_le_bytes(*b"LVRTWAL\0");

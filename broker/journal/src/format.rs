//! The format of the log's files. All integers are little-endian.
//!
//! A segment file begins with two copies of its header, so that damage to one copy does no harm: `magic u64, version
//! u32, 0 u32, node u64, segment u64, first sequence u64, released u64, 0 u64, 0 u32, crc32 of the bytes before it
//! u32`. Records follow, each at an offset that is a multiple of 8: `magic u32, crc32 of the body u32, node u64,
//! segment u64, sequence u64, durable u64, index u64, term u64, body length u32, group u16, kind u8, 0 u8, note u32,
//! crc32 of the bytes before it u32`, then the body.
//!
//! `sequence` numbers all records of the node. `durable` is the highest sequence that was known to be synced when the
//! record was made; recovery uses it to distinguish a torn tail from rot (`proof` is the other source for that).
//! Segment numbers only grow: a file is reused under a new number, and recovery ignores the records of its earlier use
//! because they carry the old number. `released`: the files of segments below this number may have been reused; all
//! other segments have to be there.
//!
//! A file that holds no segment begins with a `magic u64` of its own instead of a header. A file that begins with
//! neither was created by a process that ended before it had written either, or was freed by an older version, or is
//! damaged: whether it holds a segment is then found out from its records.
//!
//! Version 1 has no `released` (the field is 0) and no proof file. It is still read; everything new is written as
//! version 2.

/// The part of a record's header that the caller supplies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Number of the Raft group that the record belongs to.
    pub group: u16,
    /// The meaning of the record to the group. Kind 0 is reserved for the journal itself and is not returned by recovery.
    pub kind: u8,
    /// Index of the entry in the group's log. Other kinds of records may use the field for another number.
    pub index: u64,
    /// Raft term of the entry or vote.
    pub term: u64,
    /// A number that the group stores with the record.
    pub note: u32,
}

impl Head {
    /// Returns whether this is a kept record. The journal writes the newest kept record of each group and kind again at
    /// the beginning of every segment, so it survives the release of older segments. Kept records have no body.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.kind >= KEPT_FROM
    }
}

/// The place of a record's body in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct RecordPlace {
    /// Number of the segment.
    pub segment: u64,
    /// Offset of the body in the segment's file, in bytes.
    pub offset: u32,
    /// Length of the body in bytes.
    pub len: u32,
}

/// A record found in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// The head that the record was appended with.
    pub head: Head,
    /// The place of its body.
    pub place: RecordPlace,
}

/// The header of a record, as stored on disk.
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

/// The header of a segment, as stored on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) version: u32,
    pub(crate) node: u64,
    pub(crate) segment: u64,
    /// Sequence of the segment's first record.
    pub(crate) first_sequence: u64,
    /// The files of segments below this number may have been reused when the header was written.
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

    /// Decodes the header at the beginning of `bytes`. Returns `None` if the magic number or the checksum does not match.
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

    /// Returns the number of bytes from the beginning of this record to the beginning of the next one.
    pub(crate) fn stride(&self) -> u32 {
        stride(self.body_len)
    }

    /// Returns whether the record was written by this node into this segment, so is not left over from an earlier use
    /// of the file.
    pub(crate) fn is_of(&self, node: u64, segment: u64) -> bool {
        self.node == node && self.segment == segment
    }
}

impl SegmentHeader {
    /// Returns the bytes of both copies of the header.
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

    /// Decodes the first copy of the header whose checksum matches. Returns `None` if neither copy is intact.
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

/// Returns the first bytes of a file that holds no segment.
pub(crate) fn free_header() -> [u8; SEGMENT_HEAD] {
    let mut bytes = [0; SEGMENT_HEAD];
    bytes.chunks_mut(COPY).for_each(|copy| copy[..8].copy_from_slice(&FREE_MAGIC.to_le_bytes()));
    bytes
}

/// Returns whether these first bytes of a file are those of [`free_header`].
pub(crate) fn is_free(bytes: &[u8; SEGMENT_HEAD]) -> bool {
    bytes.chunks(COPY).any(|copy| long(copy, 0) == FREE_MAGIC)
}

/// Returns the number of bytes that a record with a body of this length takes in its segment, padding included.
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

/// Name of the proof file.
pub(crate) const PROOF_FILE: &str = "wal.proof";
/// The format version of new files, and the newest that can be read.
pub(crate) const VERSION: u32 = 2;
/// The previous format version, which had no proof file.
pub(crate) const WITHOUT_PROOF: u32 = 1;
/// Records of this kind and above are kept records, see [`Head::is_kept`].
pub const KEPT_FROM: u8 = 128;
/// Length of a record's header in bytes.
pub(crate) const RECORD_HEAD: usize = 72;
/// Length of both copies of a segment's header in bytes; the segment's first record begins there.
pub(crate) const SEGMENT_HEAD: usize = 2 * COPY;
/// Length of one copy of a segment's header in bytes.
const COPY: usize = 64;
/// Records begin at multiples of this many bytes.
pub(crate) const ALIGN: u32 = 8;
const RECORD_MAGIC: u32 = 0x4c56_5231;
const FREE_MAGIC: u64 = u64::from_le_bytes(*b"LVRTFREE");
const SEGMENT_MAGIC: u64 = u64::from_le_bytes(*b"LVRTWAL\0");

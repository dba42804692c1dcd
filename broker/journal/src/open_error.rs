//! The reasons why a log cannot be opened.
use crate::format::{PROOF_FILE, VERSION};
use crate::ring::FOLDER;
use std::io;

/// The reason why a log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum JournalOpenError {
    /// A record that was durable is not intact.
    #[error(
        "{file} is damaged at offset {offset}: durable record {sequence}, after one of group {group}, is not intact"
    )]
    Corrupt {
        /// Name of the file.
        file: String,
        /// Offset of the record's header in the file, in bytes.
        offset: u32,
        /// Group of the last record found before it; 0 if there is none.
        group: u16,
        /// Sequence of the record.
        sequence: u64,
    },
    /// The header of a segment is damaged.
    #[error("{file} is damaged at offset 0: it holds records of segment {segment} of the log without a valid header")]
    Header {
        /// Name of the file.
        file: String,
        /// Number of the segment.
        segment: u64,
    },
    /// A segment that has to be there is in none of the files.
    #[error("segment {segment} of the log is missing: no file in {FOLDER}/ holds it, and it was not released")]
    Missing {
        /// Number of the segment.
        segment: u64,
    },
    /// The proof file is missing, or all of its slots are damaged.
    #[error("{} {state}: without it nothing shows whether the log is complete", PROOF_FILE)]
    NoProof {
        /// "is missing" or "is damaged".
        state: &'static str,
    },
    /// The log was written by a newer version of the program.
    #[error("{file} has format version {version}, this program knows up to {VERSION}")]
    Newer {
        /// Name of the file.
        file: String,
        /// Format version of the file.
        version: u32,
    },
    /// The log belongs to another node.
    #[error("{file} belongs to node {found:016x}, this is node {node:016x}")]
    OtherNode {
        /// Name of the file.
        file: String,
        /// Identity of the node that wrote the file.
        found: u64,
        /// Identity of this node.
        node: u64,
    },
    /// The disk returned an error, or a file has the wrong length.
    #[error("{file}: {error}")]
    Disk {
        /// Name of the file.
        file: String,
        /// The error.
        error: io::Error,
    },
}

/// Returns the conversion of an error of the disk into [`JournalOpenError::Disk`] for a file.
pub(crate) fn failed(file: &str) -> impl FnOnce(io::Error) -> JournalOpenError {
    let file = file.to_owned();
    move |error| JournalOpenError::Disk { file, error }
}

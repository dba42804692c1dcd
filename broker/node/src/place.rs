//! The location of contents on the disk of this node.

/// The location of a run: a slice of a record in a file of the log or the archive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    /// The number of the file.
    pub(crate) file: u64,
    /// Offset of the record in the file.
    pub(crate) offset: u32,
    /// Length of the record in bytes.
    pub(crate) len: u32,
    /// Offset of the run in the record.
    pub(crate) at: u32,
    /// Length of the run in bytes.
    pub(crate) run_len: u32,
}

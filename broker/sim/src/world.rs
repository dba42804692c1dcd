//! The state that lasts from one life of the node to the next.
use crate::checker::Checker;
use crate::random::Random;
use crate::scenario::Report;
use leveret_journal::Disk;
use leveret_journal::faulty::FaultyDisk;

/// The disk, the random numbers, the record of what clients know, and the report.
pub(crate) struct World {
    pub(crate) disk: FaultyDisk,
    pub(crate) random: Random,
    pub(crate) checker: Checker,
    pub(crate) report: Report,
    /// The digest and the number of messages of each durable queue when the node was last stopped in order; `None` if the
    /// node has been open since.
    pub(crate) before: Option<Vec<(u64, u64)>>,
    /// The number of the last message.
    pub(crate) number: u64,
    /// True if a node has been open on this disk.
    pub(crate) opened: bool,
}

impl World {
    /// Returns the number of free bytes of the volume.
    pub(crate) fn free(&self) -> u64 {
        self.disk.free_bytes().unwrap_or_default()
    }

    /// Adds a line to the trace.
    pub(crate) fn note(&mut self, line: String) {
        self.report.trace.push(line);
    }
}

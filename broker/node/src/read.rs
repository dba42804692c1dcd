//! Reads contents from the log or the archive. Each run is checked, and no more memory is kept afterwards than the runs are
//! long.
use crate::archive::{self, ARCHIVE};
use crate::place::Place;
use crate::read_failure::ReadFailure;
use bytes::Bytes;
use leveret_journal::{Disk, Journal, RecordPlace};

/// Reads runs. A record is read once for all runs in a row that lie in it.
pub(crate) struct RunReader<'r> {
    journal: &'r Journal,
    /// The record that was read last.
    last: Option<(RecordPlace, Bytes)>,
}

impl<'r> RunReader<'r> {
    pub(crate) fn new(journal: &'r Journal) -> Self {
        Self { journal, last: None }
    }

    /// Reads the run at `place` and checks it. The run that is returned does not keep much more memory than its own length.
    ///
    /// # Errors
    /// [`ReadFailure`] if the run cannot be read or is damaged.
    pub(crate) fn read(&mut self, place: &Place) -> Result<Bytes, ReadFailure> {
        let disk: &dyn Disk = &**self.journal.disk();
        if place.file & ARCHIVE != 0 {
            return archive::read(disk, place);
        }
        let record = RecordPlace { segment: place.file, offset: place.offset, len: place.len };
        let bytes = match &self.last {
            Some((last, bytes)) if *last == record => bytes.clone(),
            _ => {
                self.last = None; // one record at a time is in memory
                self.journal.read(record)?
            }
        };
        let (from, upto) = (place.at as usize, place.at as usize + place.run_len as usize);
        let run = bytes.get(from..upto).ok_or_else(|| outside(place))?;
        let run = if run.len() >= bytes.len() / 8 * 7 { bytes.slice(from..upto) } else { Bytes::copy_from_slice(run) };
        self.last = Some((record, bytes));
        Ok(run)
    }
}

fn outside(place: &Place) -> ReadFailure {
    ReadFailure::Damaged(format!(
        "a run is said to lie outside its record at offset {} of segment {}",
        place.offset, place.file
    ))
}

//! Contents read from the log or the archive: each run checked, and no more memory held afterwards than the runs are long.
use crate::archive::{self, ARCHIVE};
use bytes::Bytes;
use leveret_engine::queue as engine;
use leveret_journal::{Disk, Journal, Place, ReadError};
use std::io::{self, ErrorKind};

/// Why a run was not read.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Its bytes are not what was written, or are not there any more: reading again changes nothing.
    #[error("{0}")]
    Damaged(String),
    /// The disk or the system says no at this moment: out of descriptors or memory, an error on the way.
    #[error("{0}")]
    Passing(String),
}

impl Failure {
    pub(crate) fn of_disk(file: &str, error: &io::Error) -> Self {
        match error.kind() {
            ErrorKind::NotFound => Self::Damaged(format!("{file} is not there any more")),
            ErrorKind::UnexpectedEof => Self::Damaged(format!("{file} is damaged: it is shorter than it was")),
            _ => Self::Passing(format!("{file}: {error}")),
        }
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Disk { file, error } => Self::of_disk(&file, &error),
            ReadError::Released(_) | ReadError::Damaged { .. } => Self::Damaged(error.to_string()),
        }
    }
}

/// Reads runs; those of one record in a row read it once.
pub(crate) struct Reader<'r> {
    journal: &'r Journal,
    /// The record read last.
    last: Option<(Place, Bytes)>,
}

impl<'r> Reader<'r> {
    pub(crate) fn new(journal: &'r Journal) -> Self {
        Self { journal, last: None }
    }

    /// Reads a run, and checks it. It does not hold much more memory than its length.
    ///
    /// # Errors
    /// [`Failure`].
    pub(crate) fn read(&mut self, place: &engine::Place) -> Result<Bytes, Failure> {
        let disk: &dyn Disk = &**self.journal.disk();
        if place.file & ARCHIVE != 0 {
            return archive::read(disk, place);
        }
        let record = Place { segment: place.file, offset: place.offset, len: place.len };
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

fn outside(place: &engine::Place) -> Failure {
    Failure::Damaged(format!(
        "a run is said to lie outside its record at offset {} of segment {}",
        place.offset, place.file
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_gone_or_too_short_is_damage_and_other_errors_pass() {
        let of = |kind: ErrorKind| Failure::of_disk("archive/1", &kind.into());
        assert!(matches!(of(ErrorKind::NotFound), Failure::Damaged(text) if text.contains("archive/1")));
        assert!(matches!(of(ErrorKind::UnexpectedEof), Failure::Damaged(_)));
        assert!(matches!(of(ErrorKind::Other), Failure::Passing(_)));
    }
}

//! Reads contents from the log or the archive. Each run is checked, and no more memory is kept afterwards than the runs are
//! long.
use crate::archive::{self, ARCHIVE};
use bytes::Bytes;
use leveret_engine::queue as engine;
use leveret_journal::{Disk, Journal, Place, ReadError};
use std::io::{self, ErrorKind};

/// The reason why a run was not read.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The bytes of the run are not those that were written, or they are missing: reading again changes nothing.
    #[error("{0}")]
    Damaged(String),
    /// The disk or the system refuses at the moment: out of descriptors or memory, or a read error. Reading again may
    /// succeed.
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

/// Reads runs. A record is read once for all runs in a row that lie in it.
pub(crate) struct Reader<'r> {
    journal: &'r Journal,
    /// The record that was read last.
    last: Option<(Place, Bytes)>,
}

impl<'r> Reader<'r> {
    pub(crate) fn new(journal: &'r Journal) -> Self {
        Self { journal, last: None }
    }

    /// Reads the run at `place` and checks it. The run that is returned does not keep much more memory than its own length.
    ///
    /// # Errors
    /// [`Failure`] if the run cannot be read or is damaged.
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
    fn a_missing_or_short_file_is_damage_and_other_errors_are_passing() {
        let of = |kind: ErrorKind| Failure::of_disk("archive/1", &kind.into());
        assert!(matches!(of(ErrorKind::NotFound), Failure::Damaged(text) if text.contains("archive/1")));
        assert!(matches!(of(ErrorKind::UnexpectedEof), Failure::Damaged(_)));
        assert!(matches!(of(ErrorKind::Other), Failure::Passing(_)));
    }
}

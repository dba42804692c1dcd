//! The reason why contents could not be read, which decides whether reading them again may help.
use leveret_journal::ReadError;
use std::io::{self, ErrorKind};

/// The reason why a run was not read.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum ReadFailure {
    /// The bytes of the run are not those that were written, or they are missing: reading again changes nothing.
    #[error("{0}")]
    Damaged(String),
    /// The disk or the system refuses at the moment: out of descriptors or memory, or a read error. Reading again may
    /// succeed.
    #[error("{0}")]
    Passing(String),
}

impl ReadFailure {
    pub(crate) fn of_disk(file: &str, error: &io::Error) -> Self {
        match error.kind() {
            ErrorKind::NotFound => Self::Damaged(format!("{file} is not there any more")),
            ErrorKind::UnexpectedEof => Self::Damaged(format!("{file} is damaged: it is shorter than it was")),
            _ => Self::Passing(format!("{file}: {error}")),
        }
    }
}

impl From<ReadError> for ReadFailure {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Disk { file, error } => Self::of_disk(&file, &error),
            ReadError::Released(_) | ReadError::Damaged { .. } => Self::Damaged(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_or_short_file_is_damage_and_other_errors_are_passing() {
        let of = |kind: ErrorKind| ReadFailure::of_disk("archive/1", &kind.into());
        assert!(matches!(of(ErrorKind::NotFound), ReadFailure::Damaged(text) if text.contains("archive/1")));
        assert!(matches!(of(ErrorKind::UnexpectedEof), ReadFailure::Damaged(_)));
        assert!(matches!(of(ErrorKind::Other), ReadFailure::Passing(_)));
    }
}

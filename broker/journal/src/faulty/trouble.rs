//! Calls to the simulated disk that fail: of which kinds, after how many calls, how often, and with which error.
use std::io;

/// A kind of call to a disk or a file on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Creating a file.
    Create,
    /// Opening an existing file.
    Open,
    /// Listing the names in a folder.
    List,
    /// Renaming a file.
    Rename,
    /// Removing a file.
    Remove,
    /// Reading bytes of a file.
    Read,
    /// Writing bytes to a file.
    Write,
    /// Making the bytes of a file durable.
    Sync,
    /// Making the names in a folder durable.
    SyncFolder,
}

impl Call {
    /// All kinds of calls.
    pub const ALL: [Self; 9] = [
        Self::Create,
        Self::Open,
        Self::List,
        Self::Rename,
        Self::Remove,
        Self::Read,
        Self::Write,
        Self::Sync,
        Self::SyncFolder,
    ];
    /// The kinds of calls that need a further file descriptor.
    pub const OPENING: [Self; 4] = [Self::Create, Self::Open, Self::List, Self::SyncFolder];
}

/// An error of the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Errno {
    /// EIO: the disk has failed.
    Io,
    /// ENOSPC: the volume has no space left.
    NoSpace,
    /// EMFILE: the process has too many open files.
    TooManyFiles,
    /// EINTR: a signal interrupted the call before it did anything.
    Interrupted,
}

impl From<Errno> for io::Error {
    fn from(errno: Errno) -> Self {
        let number = match errno {
            Errno::Interrupted => 4,
            Errno::Io => 5,
            Errno::TooManyFiles => 24,
            Errno::NoSpace => 28,
        };
        Self::from_raw_os_error(number)
    }
}

/// A series of calls that are going to fail.
#[derive(Clone, Debug)]
pub struct DiskTrouble {
    /// The kinds of calls that fail.
    pub calls: Vec<Call>,
    /// The error of these calls.
    pub error: Errno,
    /// The number of calls of these kinds that succeed before the first one fails.
    pub after: u64,
    /// The number of calls that fail, at least 1. Later calls succeed again.
    pub times: u64,
}

#[derive(Default)]
pub(super) struct Troubles {
    /// The troubles that are not over yet.
    ahead: Vec<DiskTrouble>,
    /// The number of calls that have failed.
    pub(super) met: u64,
}

impl Troubles {
    pub(super) fn add(&mut self, trouble: DiskTrouble) {
        self.ahead.push(trouble);
    }

    pub(super) fn clear(&mut self) {
        self.ahead.clear();
    }

    /// Counts a call. Returns the error that it fails with, or `None` if it succeeds.
    pub(super) fn meet(&mut self, call: Call) -> Option<Errno> {
        let mut failed = None;
        for trouble in self.ahead.iter_mut().filter(|trouble| trouble.calls.contains(&call)) {
            if trouble.after > 0 {
                trouble.after -= 1;
            } else if failed.is_none() {
                trouble.times -= 1;
                failed = Some(trouble.error);
            }
        }
        self.ahead.retain(|trouble| trouble.times > 0);
        self.met += u64::from(failed.is_some());
        failed
    }
}

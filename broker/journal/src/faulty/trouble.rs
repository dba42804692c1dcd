//! Calls that fail: which kinds, from when on, how often, and with what.
use std::io;

/// A kind of call to a disk or a file on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// A file is made.
    Create,
    /// A file that is there is opened.
    Open,
    /// The names in a folder are read.
    List,
    /// A file gets another name.
    Rename,
    /// A file is removed.
    Remove,
    /// Bytes are read.
    Read,
    /// Bytes are written.
    Write,
    /// What was written to a file is made durable.
    Sync,
    /// The names in a folder are made durable.
    SyncFolder,
}

impl Call {
    /// All kinds.
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
    /// Those that need a further file descriptor.
    pub const OPENING: [Self; 4] = [Self::Create, Self::Open, Self::List, Self::SyncFolder];
}

/// What the system says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Errno {
    /// EIO: the disk failed.
    Io,
    /// ENOSPC: there is no space.
    NoSpace,
    /// EMFILE: the process has too many files open.
    TooManyFiles,
    /// EINTR: a signal came in between, and nothing was done.
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

/// Calls that are going to fail.
#[derive(Clone, Debug)]
pub struct Trouble {
    /// Their kinds.
    pub calls: Vec<Call>,
    /// How each fails.
    pub error: Errno,
    /// As many of these calls go well before.
    pub after: u64,
    /// How many fail; what comes later goes well again.
    pub times: u64,
}

#[derive(Default)]
pub(super) struct Troubles {
    ahead: Vec<Trouble>,
    pub(super) met: u64,
}

impl Troubles {
    pub(super) fn add(&mut self, trouble: Trouble) {
        self.ahead.push(trouble);
    }

    pub(super) fn clear(&mut self) {
        self.ahead.clear();
    }

    /// How the call fails, if it does.
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

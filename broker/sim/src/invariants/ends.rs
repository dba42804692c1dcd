//! A node ends, or does not start, only for a reason: the disk failed, or durable bytes have changed. A full volume, a want of
//! descriptors for a while, a signal, a slow disk and a leap of the clock are none.
use crate::life::End;
use crate::scenario::{Fault, Weather};

/// What happened to a life: its fault, the weather, and whether a call failed as it was told to.
pub(crate) struct Circumstances<'a> {
    pub(crate) fault: Fault,
    pub(crate) weather: &'a [Weather],
    pub(crate) met: bool,
    /// Bytes of the volume that were free when the node started.
    pub(crate) free: u64,
    /// A node had been open on this disk before.
    pub(crate) opened: bool,
}

impl Circumstances<'_> {
    /// Why the life was not to end like that, if it was not.
    pub(crate) fn wrong(&self, end: &End) -> Option<String> {
        let allowed = match end {
            End::Refused(reason) if !self.opened && is_out_of_space(reason) => true, // there is nothing yet that has to start
            End::Refused(_) => self.failed_disk() || self.met && self.is(&[Weather::ReadsFail, Weather::TooManyFiles]),
            End::Failed(_) => self.failed_disk(),
            _ => true,
        };
        let Self { fault, weather, free, .. } = self;
        (!allowed).then(|| {
            format!("a life with {fault:?}, {weather:?} and {free} bytes free at its start ended with {end:?}")
        })
    }

    fn failed_disk(&self) -> bool {
        matches!(self.fault, Fault::PowerLossAtWrite | Fault::SyncFails) || self.met && self.is(&[Weather::WritesFail])
    }

    fn is(&self, any_of: &[Weather]) -> bool {
        self.weather.iter().any(|weather| any_of.contains(weather))
    }
}

/// Whether a start was refused since there was no space for what it has to write.
pub(crate) fn is_out_of_space(reason: &str) -> bool {
    reason.contains("No space left") || reason.contains("no room for a record")
}

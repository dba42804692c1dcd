//! Promise: a node ends itself, or refuses to start, only because the disk failed or durable bytes have changed. A full
//! volume, a temporary lack of file descriptors, a slow disk and a leap of the clock are no reasons.
use crate::life::End;
use crate::scenario::{Fault, Weather};

/// The circumstances of a life.
pub(crate) struct Circumstances<'a> {
    pub(crate) fault: Fault,
    pub(crate) weather: &'a [Weather],
    /// True if the weather made a call of the disk fail.
    pub(crate) call_failed: bool,
    /// The number of free bytes of the volume when the node started.
    pub(crate) free: u64,
    /// True if a node had been open on this disk before.
    pub(crate) opened: bool,
}

impl Circumstances<'_> {
    /// Returns a description of the broken promise if the life had no reason to end like that.
    pub(crate) fn wrong(&self, end: &End) -> Option<String> {
        let allowed = match end {
            End::Refused(reason) if !self.opened && is_out_of_space(reason) => true, // nothing is stored yet
            End::Refused(_) => {
                self.failed_disk() || self.call_failed && self.is(&[Weather::ReadsFail, Weather::TooManyFiles])
            }
            End::Failed(_) => self.failed_disk(),
            _ => true,
        };
        let Self { fault, weather, free, .. } = self;
        (!allowed).then(|| {
            format!("a life with {fault:?}, {weather:?} and {free} bytes free at its start ended with {end:?}")
        })
    }

    fn failed_disk(&self) -> bool {
        let by_fault = matches!(self.fault, Fault::PowerLossAtWrite | Fault::SyncFails);
        by_fault || self.call_failed && self.is(&[Weather::WritesFail])
    }

    fn is(&self, any_of: &[Weather]) -> bool {
        self.weather.iter().any(|weather| any_of.contains(weather))
    }
}

/// Returns whether a start was refused because there was no space for the files that it has to write.
pub(crate) fn is_out_of_space(reason: &str) -> bool {
    reason.contains("No space left") || reason.contains("no room for a record")
}

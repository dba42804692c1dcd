//! Whether the work goes on: what is under way, and when it last came a step further. A pass that hangs is seen by the
//! kubelet, which starts the operator anew.
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Shared between those who work and who asks.
#[derive(Clone, Default)]
pub(crate) struct Pulse(Arc<Mutex<BTreeMap<String, Instant>>>);

/// Something that is under way, until it is dropped.
pub(crate) struct Beat {
    pulse: Pulse,
    what: String,
}

impl Pulse {
    /// Something begins: named, for whoever asks what hangs.
    pub(crate) fn begin(&self, what: String) -> Beat {
        let beat = Beat { pulse: self.clone(), what };
        beat.goes_on();
        beat
    }

    /// What has come no step further for longer than it may take.
    pub(crate) fn hangs(&self, now: Instant) -> Option<String> {
        let late = |since: &Instant| now.saturating_duration_since(*since) > STEP_MAX;
        self.with(|under_way| under_way.iter().find(|(_, since)| late(since)).map(|(what, _)| what.clone()))
    }

    fn with<T>(&self, with: impl FnOnce(&mut BTreeMap<String, Instant>) -> T) -> T {
        with(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Beat {
    /// It has come a step further.
    pub(crate) fn goes_on(&self) {
        self.pulse.with(|under_way| under_way.insert(self.what.clone(), Instant::now()));
    }
}

impl Drop for Beat {
    fn drop(&mut self) {
        self.pulse.with(|under_way| under_way.remove(&self.what));
    }
}

/// How long a step may take: each call in it has an end of its own that comes sooner.
const STEP_MAX: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_no_step_further_hangs() {
        let pulse = Pulse::default();
        let later = Instant::now() + STEP_MAX + Duration::from_secs(1);
        assert_eq!(pulse.hangs(later), None, "nothing is under way");
        let beat = pulse.begin("Broker n/shop".to_owned());
        assert_eq!(pulse.hangs(Instant::now()), None);
        assert_eq!(pulse.hangs(later).as_deref(), Some("Broker n/shop"));
        drop(beat);
        assert_eq!(pulse.hangs(later), None);
    }
}

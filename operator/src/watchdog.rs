//! The watchdog keeps the jobs that are under way and the time when each of them last made progress. `/healthz` fails
//! when one hangs, so that the kubelet restarts the operator.
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The jobs that are under way by name, with the time of their last progress. Clones share the jobs.
#[derive(Clone, Default)]
pub(crate) struct Watchdog(Arc<Mutex<BTreeMap<String, Instant>>>);

/// A job that is under way until this is dropped.
pub(crate) struct Job {
    watchdog: Watchdog,
    name: String,
}

impl Watchdog {
    /// Begins a job. `/healthz` names the job if it hangs.
    pub(crate) fn begin(&self, name: String) -> Job {
        let job = Job { watchdog: self.clone(), name };
        job.progressed();
        job
    }

    /// Returns the name of a job that has made no progress for longer than [`STEP_MAX`].
    pub(crate) fn hanging(&self, now: Instant) -> Option<String> {
        let is_late = |progress: &Instant| now.saturating_duration_since(*progress) > STEP_MAX;
        self.with(|jobs| jobs.iter().find(|(_, progress)| is_late(progress)).map(|(name, _)| name.clone()))
    }

    fn with<T>(&self, with: impl FnOnce(&mut BTreeMap<String, Instant>) -> T) -> T {
        with(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Job {
    /// Notes that the job has made progress.
    pub(crate) fn progressed(&self) {
        self.watchdog.with(|jobs| jobs.insert(self.name.clone(), Instant::now()));
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.watchdog.with(|jobs| jobs.remove(&self.name));
    }
}

/// The longest time that a step of a job may take: each call in it has a shorter limit of its own.
const STEP_MAX: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_without_progress_hangs() {
        let watchdog = Watchdog::default();
        let later = Instant::now() + STEP_MAX + Duration::from_secs(1);
        assert_eq!(watchdog.hanging(later), None, "no job is under way");
        let job = watchdog.begin("Broker n/shop".to_owned());
        assert_eq!(watchdog.hanging(Instant::now()), None);
        assert_eq!(watchdog.hanging(later).as_deref(), Some("Broker n/shop"));
        drop(job);
        assert_eq!(watchdog.hanging(later), None);
    }
}

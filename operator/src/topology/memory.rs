//! What a worker remembers of its resources between two passes.
//!
//! The store that a pass reads from follows the API server with a delay: a pass that runs before our own write has come
//! back would write it again. And what the broker refused is not asked again every two seconds.
use super::index::Seen;
use super::kinds::Numbers;
use super::outcome::{Outcome, REFUSED};
use crate::kubernetes::conditions;
use leveret_api::{FINALIZER, TopologyStatus};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// By uid.
#[derive(Default)]
pub(super) struct Memory(HashMap<String, Remembered>);

#[derive(Default)]
struct Remembered {
    /// The resource's version after our last write: what is older in the store is out of date.
    version: u64,
    /// Our finalizer is on it.
    held: bool,
    /// The status that was last written, until the store has it.
    written: Option<TopologyStatus>,
    /// When that was.
    written_at: Option<Instant>,
    /// The generation that was on the broker.
    declared: Option<i64>,
    /// The generation that the broker refused, when, and what it said.
    refused: Option<(i64, Instant, Outcome)>,
}

impl Memory {
    /// Resources as they are by what is remembered of them; what is gone is forgotten.
    pub(super) fn recall(&mut self, mut all: Vec<Seen>, now: Instant) -> Vec<Seen> {
        let uids: HashSet<&str> = all.iter().map(Seen::uid).collect();
        self.0.retain(|uid, _| uids.contains(&**uid));
        for seen in &mut all {
            let Some(known) = self.0.get_mut(seen.uid()) else { continue };
            if version(seen.resource_version.as_deref()) >= known.version {
                known.written = None;
            } else {
                if let Some(status) = &known.written {
                    seen.status = status.clone();
                }
                if known.held && !seen.is_held() {
                    seen.finalizers.push(FINALIZER.to_owned());
                }
            }
            let generation = seen.object.generation;
            // Nobody else has it yet: nothing is copied.
            let object = Arc::make_mut(&mut seen.object);
            object.was_declared |= known.declared == Some(generation);
            if let Some((refused, then, outcome)) = &known.refused
                && *refused == generation
                && now - *then < RETRY_AFTER
            {
                object.refused = Some(outcome.clone());
            }
        }
        all
    }

    /// The finalizer was put on it.
    pub(super) fn held(&mut self, seen: &Seen, written: Option<&str>) {
        let known = self.0.entry(seen.uid().to_owned()).or_default();
        known.held = true;
        known.version = known.version.max(version(written));
    }

    /// A status was written.
    pub(super) fn wrote(&mut self, seen: &Seen, status: TopologyStatus, written: Option<&str>, now: Instant) {
        let known = self.0.entry(seen.uid().to_owned()).or_default();
        known.version = known.version.max(version(written));
        known.written = Some(status);
        known.written_at = Some(now);
    }

    /// What became of it in a pass.
    pub(super) fn became(&mut self, seen: &Seen, outcome: &Outcome, now: Instant) {
        let known = self.0.entry(seen.uid().to_owned()).or_default();
        match outcome {
            Outcome::Ready { .. } => {
                known.declared = Some(seen.object.generation);
                known.refused = None;
            }
            Outcome::Refused { reason: REFUSED, .. } if seen.object.refused.is_none() => {
                known.refused = Some((seen.object.generation, now, outcome.clone()));
            }
            _ => {}
        }
    }

    /// The status to write for an outcome, unless there is nothing new in it. Numbers alone are not new if some were
    /// written a moment ago.
    pub(super) fn news(&self, seen: &Seen, outcome: &Outcome, now: Instant) -> Option<TopologyStatus> {
        let generation = Some(seen.object.generation);
        let condition = conditions::condition(&seen.status.conditions, "Ready", outcome.condition(), generation);
        let numbers = match outcome {
            Outcome::Ready { numbers, .. } => *numbers,
            _ => None,
        };
        let number = |of: fn(Numbers) -> i64| numbers.map(of);
        let next = TopologyStatus {
            observed_generation: generation,
            conditions: vec![condition],
            messages_ready: number(|numbers| numbers.ready),
            messages_unacked: number(|numbers| numbers.unacked),
            consumers: number(|numbers| numbers.consumers),
        };
        let said = |status: &TopologyStatus| (status.observed_generation, status.conditions.clone());
        let written_at = self.0.get(seen.uid()).and_then(|known| known.written_at);
        let is_recent = written_at.is_some_and(|then| now - then < NUMBERS_EVERY);
        (said(&seen.status) != said(&next) || next != seen.status && !is_recent).then_some(next)
    }
}

/// Versions of one resource are numbers that grow; one that is none makes nothing out of date.
fn version(text: Option<&str>) -> u64 {
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// How long the broker is not asked again for what it refused.
const RETRY_AFTER: Duration = Duration::from_secs(30);
/// How often changed numbers are written into a status.
const NUMBERS_EVERY: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::outcome::Done;
    use crate::topology::tests::object;

    fn seen(version: &str) -> Seen {
        Seen {
            object: Arc::new(object("q", "q", 1, false)),
            reference: Default::default(),
            resource_version: Some(version.to_owned()),
            finalizers: Vec::new(),
            status: TopologyStatus::default(),
        }
    }

    fn ready(ready: i64) -> Outcome {
        Outcome::Ready { done: Done::Nothing, numbers: Some(Numbers { ready, ..Numbers::default() }) }
    }

    #[test]
    fn nothing_is_written_twice_while_the_store_is_behind() {
        let (mut memory, now) = (Memory::default(), Instant::now());
        let status = memory.news(&seen("7"), &ready(0), now).unwrap();
        memory.held(&seen("7"), Some("8"));
        memory.wrote(&seen("7"), status, Some("9"), now);
        for behind in ["7", "8"] {
            let recalled = memory.recall(vec![seen(behind)], now).remove(0);
            assert!(recalled.is_held());
            assert_eq!(memory.news(&recalled, &ready(0), now), None, "{behind}");
        }
        // The store has caught up, and somebody has taken the status away.
        let recalled = memory.recall(vec![seen("10")], now).remove(0);
        assert!(!recalled.is_held() && memory.news(&recalled, &ready(0), now).is_some());
    }

    #[test]
    fn numbers_wait_and_conditions_do_not() {
        let (mut memory, now) = (Memory::default(), Instant::now());
        let mut q = seen("1");
        q.status = memory.news(&q, &ready(0), now).unwrap();
        memory.wrote(&q, q.status.clone(), Some("1"), now);
        assert_eq!(memory.news(&q, &ready(5), now + Duration::from_secs(4)), None);
        let later = memory.news(&q, &ready(5), now + NUMBERS_EVERY).unwrap();
        assert_eq!(later.messages_ready, Some(5));
        assert!(memory.news(&q, &Outcome::waiting("Missing", "x"), now).is_some());
    }

    #[test]
    fn what_was_refused_rests_until_it_is_changed() {
        let (mut memory, now) = (Memory::default(), Instant::now());
        let refused = Outcome::Refused { reason: REFUSED, message: "no".to_owned() };
        memory.became(&seen("1"), &refused, now);
        let recall =
            |memory: &mut Memory, seen, after| memory.recall(vec![seen], now + after).remove(0).object.refused.clone();
        assert_eq!(recall(&mut memory, seen("1"), Duration::from_secs(2)), Some(refused));
        assert_eq!(recall(&mut memory, seen("1"), RETRY_AFTER), None);
        let mut changed = seen("2");
        Arc::make_mut(&mut changed.object).generation = 2;
        assert_eq!(recall(&mut memory, changed, Duration::from_secs(2)), None);
    }
}

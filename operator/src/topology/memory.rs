//! What a worker remembers of its resources between two passes.
//!
//! The store that a pass reads from follows the API server with a delay: a pass that runs before our own write has come
//! back would write it again. And what the broker refused is not asked again every two seconds.
use super::index::Seen;
use super::kinds::{Numbers, Wanted};
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

    /// Has all statuses written so much earlier.
    #[cfg(test)]
    pub(super) fn age(&mut self, by: Duration) {
        for known in self.0.values_mut() {
            known.written_at = known.written_at.and_then(|then| then.checked_sub(by));
        }
    }

    /// When a status of it was last written.
    pub(super) fn written_at(&self, seen: &Seen) -> Option<Instant> {
        self.0.get(seen.uid()).and_then(|known| known.written_at)
    }

    /// What is new in an outcome. Numbers alone are not new if some were written a moment ago.
    pub(super) fn news(&self, seen: &Seen, outcome: &Outcome, now: Instant) -> News {
        let generation = Some(seen.object.generation);
        let condition = conditions::condition(&seen.status.conditions, "Ready", outcome.condition(), generation);
        let numbers = match outcome {
            Outcome::Ready { numbers, .. } => *numbers,
            _ => None,
        };
        let number = |of: fn(Numbers) -> i64| numbers.map(of);
        let arguments = match (outcome, &seen.object.wanted) {
            (Outcome::Ready { .. }, Wanted::Binding(binding)) => Some(binding.arguments.clone()),
            _ => seen.status.arguments.clone(),
        };
        let next = TopologyStatus {
            observed_generation: generation,
            conditions: vec![condition],
            messages_ready: number(|numbers| numbers.ready),
            messages_unacked: number(|numbers| numbers.unacked),
            consumers: number(|numbers| numbers.consumers),
            arguments,
        };
        let said = |status: &TopologyStatus| (status.observed_generation, status.conditions.clone());
        let is_recent = self.written_at(seen).is_some_and(|then| now - then < NUMBERS_EVERY);
        if said(&seen.status) != said(&next) {
            News::Condition(next)
        } else if next != seen.status && !is_recent {
            News::Numbers(next)
        } else {
            News::None
        }
    }
}

/// What there is to write into a status.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum News {
    /// Another condition: it is written at once.
    Condition(TopologyStatus),
    /// Other numbers, and nothing else: they wait for their turn.
    Numbers(TopologyStatus),
    /// Nothing.
    None,
}

/// How many statuses may be written for their numbers alone. Each is a write of etcd and goes to all who watch: with many
/// queues that are busy, numbers come less often instead of more.
pub(super) struct Budget {
    left: f64,
    since: Instant,
}

impl Budget {
    pub(super) fn new(now: Instant) -> Self {
        Self { left: BURST_MAX, since: now }
    }

    /// Takes as many as there are of those that are `wanted`.
    pub(super) fn take(&mut self, wanted: usize, now: Instant) -> usize {
        let come = now.saturating_duration_since(self.since).as_secs_f64() * NUMBERS_PER_SECOND;
        (self.left, self.since) = ((self.left + come).min(BURST_MAX), now);
        let taken = wanted.min(self.left as usize);
        self.left -= taken as f64;
        taken
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
/// Writes of numbers alone for all resources of a broker.
const NUMBERS_PER_SECOND: f64 = 10.0;
/// Those that were not used: so many can be made at once.
const BURST_MAX: f64 = 50.0;

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

    fn written(news: News) -> TopologyStatus {
        match news {
            News::Condition(status) | News::Numbers(status) => status,
            News::None => panic!("there is nothing new"),
        }
    }

    fn ready(ready: i64) -> Outcome {
        Outcome::Ready { done: Done::Nothing, numbers: Some(Numbers { ready, ..Numbers::default() }) }
    }

    #[test]
    fn nothing_is_written_twice_while_the_store_is_behind() {
        let (mut memory, now) = (Memory::default(), Instant::now());
        let status = written(memory.news(&seen("7"), &ready(0), now));
        memory.held(&seen("7"), Some("8"));
        memory.wrote(&seen("7"), status, Some("9"), now);
        for behind in ["7", "8"] {
            let recalled = memory.recall(vec![seen(behind)], now).remove(0);
            assert!(recalled.is_held());
            assert_eq!(memory.news(&recalled, &ready(0), now), News::None, "{behind}");
        }
        // The store has caught up, and somebody has taken the status away.
        let recalled = memory.recall(vec![seen("10")], now).remove(0);
        assert!(!recalled.is_held() && memory.news(&recalled, &ready(0), now) != News::None);
    }

    #[test]
    fn numbers_wait_and_conditions_do_not() {
        let (mut memory, now) = (Memory::default(), Instant::now());
        let mut q = seen("1");
        q.status = written(memory.news(&q, &ready(0), now));
        memory.wrote(&q, q.status.clone(), Some("1"), now);
        assert_eq!(memory.news(&q, &ready(5), now + Duration::from_secs(4)), News::None);
        let News::Numbers(later) = memory.news(&q, &ready(5), now + NUMBERS_EVERY) else { panic!("they are new") };
        assert_eq!(later.messages_ready, Some(5));
        assert!(matches!(memory.news(&q, &Outcome::waiting("Missing", "x"), now), News::Condition(_)));
    }

    #[test]
    fn numbers_of_many_queues_have_a_budget() {
        let begin = Instant::now();
        let mut budget = Budget::new(begin);
        assert_eq!(budget.take(7, begin), 7);
        assert_eq!(budget.take(1000, begin), 43);
        assert_eq!(budget.take(1000, begin), 0);
        let seconds = 600;
        let taken: usize = (1..=seconds / 2).map(|pass| budget.take(1000, begin + Duration::from_secs(2 * pass))).sum();
        assert_eq!(taken, 10 * seconds as usize);
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

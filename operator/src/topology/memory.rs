//! The memory of a worker: what it has to remember about its resources from one pass to the next.
//!
//! The index that a pass reads follows the API server with a delay. Without the memory, a pass would repeat a write
//! that the index does not show yet, and would ask the broker every two seconds for what it refused.
use super::cluster_resource::ClusterResource;
use super::kinds::Numbers;
use super::outcome::{Outcome, REFUSED};
use crate::kubernetes::conditions;
use leveret_api::{FINALIZER, TopologyStatus};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The resources of one broker, by uid, of which there is something to remember.
#[derive(Default)]
pub(super) struct Memory(HashMap<String, ResourceMemory>);

#[derive(Default)]
struct ResourceMemory {
    /// The resource's version after our last write. If the index has an older one, the index is out of date.
    version: u64,
    /// Set once our finalizer has been put on the resource.
    has_finalizer: bool,
    /// The status that was last written, until the index has it.
    status: Option<TopologyStatus>,
    /// The time of the last write of a status.
    written_at: Option<Instant>,
    /// The generation of the spec whose object was on the broker as wanted.
    declared: Option<i64>,
    refusal: Option<Refusal>,
}

/// The broker's last refusal.
struct Refusal {
    /// The generation of the resource that was refused.
    generation: i64,
    at: Instant,
    outcome: Outcome,
}

impl Memory {
    /// Overlays our own recent writes on resources from an index that may lag behind, and forgets the resources that no
    /// longer exist.
    pub(super) fn overlay(&mut self, mut resources: Vec<ClusterResource>, now: Instant) -> Vec<ClusterResource> {
        let uids: HashSet<&str> = resources.iter().map(ClusterResource::uid).collect();
        self.0.retain(|uid, _| uids.contains(&**uid));
        for resource in &mut resources {
            let Some(entry) = self.0.get_mut(resource.uid()) else { continue };
            if version(resource.resource_version.as_deref()) >= entry.version {
                entry.status = None;
            } else {
                if let Some(status) = &entry.status {
                    resource.status = status.clone();
                }
                if entry.has_finalizer && !resource.has_finalizer() {
                    resource.finalizers.push(FINALIZER.to_owned());
                }
            }
            let generation = resource.resource.generation;
            let was_declared = entry.declared == Some(generation);
            let is_recent = |refusal: &&Refusal| refusal.generation == generation && now - refusal.at < RETRY_AFTER;
            let refusal = entry.refusal.as_ref().filter(is_recent);
            // The index shares the resource, so changing it makes a copy: it is changed only if there is something new.
            if was_declared && !resource.resource.was_declared || refusal.is_some() {
                let reduced = Arc::make_mut(&mut resource.resource);
                reduced.was_declared |= was_declared;
                reduced.recent_refusal = refusal.map(|refusal| refusal.outcome.clone());
            }
        }
        resources
    }

    /// Remembers that our finalizer was put on a resource, which has had the version `written` since then.
    pub(super) fn record_finalizer(&mut self, resource: &ClusterResource, written: Option<&str>) {
        let entry = self.entry(resource);
        entry.has_finalizer = true;
        entry.version = entry.version.max(version(written));
    }

    /// Remembers that a status was written to a resource, which has had the version `written` since then.
    pub(super) fn record_status(
        &mut self,
        resource: &ClusterResource,
        status: TopologyStatus,
        written: Option<&str>,
        now: Instant,
    ) {
        let entry = self.entry(resource);
        entry.version = entry.version.max(version(written));
        entry.status = Some(status);
        entry.written_at = Some(now);
    }

    /// Remembers the outcome of a pass for a resource.
    pub(super) fn record_outcome(&mut self, resource: &ClusterResource, outcome: &Outcome, now: Instant) {
        let generation = resource.resource.generation;
        let was_refused = resource.resource.recent_refusal.is_some();
        let entry = self.entry(resource);
        match outcome {
            Outcome::Ready { .. } => {
                entry.declared = Some(generation);
                entry.refusal = None;
            }
            Outcome::Refused { reason: REFUSED, .. } if !was_refused => {
                entry.refusal = Some(Refusal { generation, at: now, outcome: outcome.clone() });
            }
            _ => {}
        }
    }

    fn entry(&mut self, resource: &ClusterResource) -> &mut ResourceMemory {
        self.0.entry(resource.uid().to_owned()).or_default()
    }

    /// Makes the last writes of all statuses older by this time.
    #[cfg(test)]
    pub(super) fn age(&mut self, by: Duration) {
        for entry in self.0.values_mut() {
            entry.written_at = entry.written_at.and_then(|then| then.checked_sub(by));
        }
    }

    /// Returns the time of the last write of a status of the resource.
    pub(super) fn written_at(&self, resource: &ClusterResource) -> Option<Instant> {
        self.0.get(resource.uid()).and_then(|entry| entry.written_at)
    }

    /// Compares the status that follows from an outcome with the present one. Changed numbers alone do not count if a
    /// status was written a moment ago.
    pub(super) fn status_change(&self, resource: &ClusterResource, outcome: &Outcome, now: Instant) -> StatusChange {
        let next = next_status(resource, outcome);
        let without_numbers = |status: &TopologyStatus| (status.observed_generation, status.conditions.clone());
        let is_recent = self.written_at(resource).is_some_and(|then| now - then < NUMBERS_EVERY);
        if without_numbers(&resource.status) != without_numbers(&next) {
            StatusChange::Condition(next)
        } else if next != resource.status && !is_recent {
            StatusChange::Numbers(next)
        } else {
            StatusChange::None
        }
    }
}

/// Returns the status of a resource that follows from an outcome.
fn next_status(resource: &ClusterResource, outcome: &Outcome) -> TopologyStatus {
    let (before, generation) = (&resource.status, Some(resource.resource.generation));
    let ready = outcome.condition();
    let state = conditions::State::new(ready.status, ready.reason, ready.message);
    let condition = conditions::condition(&before.conditions, "Ready", state, generation);
    let (numbers, declared) = match outcome {
        Outcome::Ready { numbers, .. } => (*numbers, resource.resource.wanted.declared_arguments()),
        _ => (None, None),
    };
    let number = |of: fn(Numbers) -> i64| numbers.map(of);
    TopologyStatus {
        observed_generation: generation,
        conditions: vec![condition],
        messages_ready: number(|numbers| numbers.ready),
        messages_unacked: number(|numbers| numbers.unacked),
        consumers: number(|numbers| numbers.consumers),
        arguments: declared.or_else(|| before.arguments.clone()),
    }
}

/// A change of a status.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum StatusChange {
    /// The condition changed: the status is written at once.
    Condition(TopologyStatus),
    /// Only numbers changed: the status is written when the [`Budget`] allows it.
    Numbers(TopologyStatus),
    /// Nothing changed.
    None,
}

/// The number of statuses that may be written only because their numbers changed. Each write goes to etcd and is sent
/// to everybody who watches: with many busy queues, the numbers of one queue are written less often instead of more in
/// total.
pub(super) struct Budget {
    left: f64,
    since: Instant,
}

impl Budget {
    pub(super) fn new(now: Instant) -> Self {
        Self { left: BURST_MAX, since: now }
    }

    /// Takes up to `wanted` writes from the budget and returns how many it has taken.
    pub(super) fn take(&mut self, wanted: usize, now: Instant) -> usize {
        let earned = now.saturating_duration_since(self.since).as_secs_f64() * NUMBERS_PER_SECOND;
        (self.left, self.since) = ((self.left + earned).min(BURST_MAX), now);
        let taken = wanted.min(self.left as usize);
        self.left -= taken as f64;
        taken
    }
}

/// Reads the version of a resource: versions of one resource are numbers that grow. A text that is not a number counts
/// as older than all versions, so that it makes nothing out of date.
fn version(text: Option<&str>) -> u64 {
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// How long the broker is not asked again for something that it refused.
const RETRY_AFTER: Duration = Duration::from_secs(30);
/// How often changed numbers are written into a status.
const NUMBERS_EVERY: Duration = Duration::from_secs(5);
/// The writes of statuses per second, for all resources of a broker, in which only numbers change.
const NUMBERS_PER_SECOND: f64 = 10.0;
/// The number of unused writes that are kept for later: this many can be made at once.
const BURST_MAX: f64 = 50.0;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::outcome::Effect;
    use crate::topology::tests::resource;

    fn at_version(version: &str) -> ClusterResource {
        ClusterResource {
            resource: Arc::new(resource("q", "q", 1, false)),
            reference: Default::default(),
            resource_version: Some(version.to_owned()),
            finalizers: Vec::new(),
            status: TopologyStatus::default(),
        }
    }

    fn written(change: StatusChange) -> TopologyStatus {
        match change {
            StatusChange::Condition(status) | StatusChange::Numbers(status) => status,
            StatusChange::None => panic!("there is nothing new"),
        }
    }

    fn ready(ready: i64) -> Outcome {
        Outcome::Ready { effect: Effect::Unchanged, numbers: Some(Numbers { ready, ..Numbers::default() }) }
    }

    #[test]
    fn nothing_is_written_twice_while_the_index_lags_behind() {
        let (mut memory, now) = (Memory::default(), Instant::now());
        let status = written(memory.status_change(&at_version("7"), &ready(0), now));
        memory.record_finalizer(&at_version("7"), Some("8"));
        memory.record_status(&at_version("7"), status, Some("9"), now);
        for behind in ["7", "8"] {
            let recalled = memory.overlay(vec![at_version(behind)], now).remove(0);
            assert!(recalled.has_finalizer());
            assert_eq!(memory.status_change(&recalled, &ready(0), now), StatusChange::None, "{behind}");
        }
        // The index has caught up, and somebody has removed the status.
        let recalled = memory.overlay(vec![at_version("10")], now).remove(0);
        assert!(!recalled.has_finalizer() && memory.status_change(&recalled, &ready(0), now) != StatusChange::None);
    }

    #[test]
    fn a_resource_of_which_nothing_new_is_known_is_not_copied() {
        let (mut memory, now) = (Memory::default(), Instant::now());
        let known = at_version("1");
        memory.record_finalizer(&known, Some("1"));
        let recalled = memory.overlay(vec![known.clone()], now).remove(0);
        assert!(Arc::ptr_eq(&recalled.resource, &known.resource));
        memory.record_outcome(&known, &ready(0), now);
        let recalled = memory.overlay(vec![known.clone()], now).remove(0);
        assert!(recalled.resource.was_declared && !known.resource.was_declared, "the index keeps what it has");
    }

    #[test]
    fn numbers_wait_and_conditions_do_not() {
        let (mut memory, now) = (Memory::default(), Instant::now());
        let mut q = at_version("1");
        q.status = written(memory.status_change(&q, &ready(0), now));
        memory.record_status(&q, q.status.clone(), Some("1"), now);
        assert_eq!(memory.status_change(&q, &ready(5), now + Duration::from_secs(4)), StatusChange::None);
        let StatusChange::Numbers(later) = memory.status_change(&q, &ready(5), now + NUMBERS_EVERY) else {
            panic!("they are new")
        };
        assert_eq!(later.messages_ready, Some(5));
        assert!(matches!(memory.status_change(&q, &Outcome::waiting("Missing", "x"), now), StatusChange::Condition(_)));
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
    fn a_refused_resource_is_not_tried_again_until_it_is_changed() {
        let (mut memory, now) = (Memory::default(), Instant::now());
        let refused = Outcome::Refused { reason: REFUSED, message: "no".to_owned() };
        memory.record_outcome(&at_version("1"), &refused, now);
        let recall = |memory: &mut Memory, resource, after| {
            memory.overlay(vec![resource], now + after).remove(0).resource.recent_refusal.clone()
        };
        assert_eq!(recall(&mut memory, at_version("1"), Duration::from_secs(2)), Some(refused));
        assert_eq!(recall(&mut memory, at_version("1"), RETRY_AFTER), None);
        let mut changed = at_version("2");
        Arc::make_mut(&mut changed.resource).generation = 2;
        assert_eq!(recall(&mut memory, changed, Duration::from_secs(2)), None);
    }
}

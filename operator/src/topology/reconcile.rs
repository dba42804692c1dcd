//! One pass over one broker: list what is there, compare, declare and delete, report.
use super::drift::{self, Step};
use super::kinds::Inventory;
use super::outcome::{BROKER_UNAVAILABLE, CHANGED, Effect, INTERRUPTED, NOT_ON_BROKER, Outcome, REFUSED};
use super::resource::TopologyResource;
use super::{conflict, deletion};
use leveret_client::{Client, DeleteOnly, Error, Made};
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Brings the objects of all resources to what is wanted. Returns one outcome per resource, in their order. Nothing is
/// changed on a broker that is `paused`.
///
/// # Errors
/// The broker does not answer the lists, or refuses them.
pub(crate) async fn pass(
    client: &Client,
    resources: Vec<Arc<TopologyResource>>,
    paused: bool,
) -> Result<Vec<Outcome>, Error> {
    let end = Instant::now() + PASS_MAX;
    let inventory = Inventory::list(client, resources.iter().map(|resource| &resource.wanted)).await?;
    let owners = conflict::owners(&resources);
    let mut pass = Pass {
        client,
        inventory,
        limits: Arc::new(Limits { end, unavailable: OnceLock::new() }),
        outcomes: vec![None; resources.len()],
    };
    let mut phases: BTreeMap<u8, Vec<Task>> = BTreeMap::new();
    for (index, (resource, owner)) in resources.into_iter().zip(owners).enumerate() {
        let decide = if resource.deleting { deletion::decide } else { drift::decide };
        match decide(&resource, owner.as_ref(), &pass.inventory) {
            Step::Report(outcome) => pass.outcomes[index] = Some(outcome),
            step if paused => pass.outcomes[index] = Some(paused_outcome(&resource, &step)),
            step => {
                let phase = resource.wanted.phase(resource.deleting);
                phases.entry(phase).or_default().push(Task { index, resource, step });
            }
        }
    }
    for tasks in phases.into_values() {
        pass.run(tasks).await;
    }
    let missed = || Outcome::waiting(INTERRUPTED, "not looked at yet");
    Ok(pass.outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(missed)).collect())
}

fn paused_outcome(resource: &TopologyResource, step: &Step) -> Outcome {
    let is_not = match step {
        Step::Delete(_) => "is not deleted",
        _ => "is not declared",
    };
    Outcome::waiting("Paused", format!("{} {is_not}: spec.paused of the Broker is set", resource.wanted.describe()))
}

/// The work for one resource.
struct Task {
    /// The place of the resource in the list of the pass.
    index: usize,
    resource: Arc<TopologyResource>,
    step: Step,
}

/// The limits that end a pass early. Without them, each request to a broker that hangs would wait for its own timeout.
struct Limits {
    end: Instant,
    /// The outcome of the first request that got no answer; all later requests have the same.
    unavailable: OnceLock<Outcome>,
}

impl Limits {
    /// Awaits `work`, unless the pass has to end.
    async fn apply(&self, work: impl Future<Output = Outcome>) -> Outcome {
        if let Some(unavailable) = self.unavailable.get() {
            return unavailable.clone();
        }
        if Instant::now() >= self.end {
            return Outcome::waiting(INTERRUPTED, "the broker takes long to answer: not looked at yet");
        }
        let outcome = work.await;
        if matches!(outcome, Outcome::Waiting { reason: BROKER_UNAVAILABLE, .. }) {
            let _ = self.unavailable.set(outcome.clone());
        }
        outcome
    }
}

/// A pass between its phases.
struct Pass<'a> {
    client: &'a Client,
    /// The objects on the broker, including those that earlier phases have declared.
    inventory: Inventory,
    limits: Arc<Limits>,
    /// The outcomes that are known, in the order of the resources.
    outcomes: Vec<Option<Outcome>>,
}

impl Pass<'_> {
    /// Does the work of one phase, at most [`REQUESTS_MAX`] tasks at a time.
    async fn run(&mut self, tasks: Vec<Task>) {
        let inventory = Arc::new(std::mem::take(&mut self.inventory));
        let slots = Arc::new(Semaphore::new(REQUESTS_MAX));
        let mut running = JoinSet::new();
        for Task { index, resource, step } in tasks {
            let (client, inventory) = (self.client.clone(), inventory.clone());
            let (slots, limits) = (slots.clone(), self.limits.clone());
            running.spawn(async move {
                let _slot = slots.acquire_owned().await;
                let outcome = limits.apply(act(&client, &inventory, &resource, step)).await;
                (index, resource, outcome)
            });
        }
        let mut declared = Vec::new();
        while let Some(ended) = running.join_next().await {
            let Ok((index, resource, outcome)) = ended else { continue };
            if matches!(outcome, Outcome::Ready { .. }) {
                declared.push(resource);
            }
            self.outcomes[index] = Some(outcome);
        }
        // All tasks have ended, so nobody else holds the inventory.
        self.inventory = Arc::into_inner(inventory).unwrap_or_default();
        declared.iter().for_each(|resource| self.inventory.insert(&resource.wanted));
    }
}

async fn act(client: &Client, inventory: &Inventory, resource: &TopologyResource, step: Step) -> Outcome {
    match step {
        Step::Report(outcome) => outcome,
        Step::Declare => {
            let effect = if resource.was_declared { Effect::Restored } else { Effect::Created };
            declare(client, inventory, resource, effect).await
        }
        Step::Replace(fields) => {
            let only = DeleteOnly { if_empty: true, if_unused: true };
            match resource.wanted.delete(client, inventory, only).await {
                Ok(()) | Err(Error::NotFound(_)) => {
                    declare(client, inventory, resource, Effect::Replaced(fields)).await
                }
                Err(error @ Error::Unreachable { .. }) => Outcome::waiting(BROKER_UNAVAILABLE, error.to_string()),
                Err(error) => {
                    let what = resource.wanted.describe();
                    let message = format!("{what} was changed on the broker: {fields}. It cannot be put back: {error}");
                    Outcome::waiting(CHANGED, message)
                }
            }
        }
        Step::Delete(only) => {
            let answer = resource.wanted.delete(client, inventory, only).await;
            deletion::outcome(resource, only.if_empty, answer)
        }
    }
}

async fn declare(client: &Client, inventory: &Inventory, resource: &TopologyResource, effect: Effect) -> Outcome {
    let object = &resource.wanted;
    if let Some(missing) = object.missing_requirements(inventory) {
        return Outcome::waiting("Missing", format!("waits for {missing}: not on the broker yet"));
    }
    match object.declare(client).await {
        // The list did not have the object, but the broker says that it existed: only an object that can be read back
        // counts. The same holds for an object that was lost, because the broker may not have created it again.
        Ok(made) if made == Made::Unchanged || effect == Effect::Restored => match object.exists(client).await {
            Ok(true) => Outcome::Ready { effect, numbers: object.empty_numbers() },
            Ok(false) => {
                let what = object.describe();
                let message = format!("the broker accepts the declaration of {what}, and does not have it");
                Outcome::waiting(NOT_ON_BROKER, message)
            }
            Err(error) => Outcome::waiting(BROKER_UNAVAILABLE, error.to_string()),
        },
        Ok(_) => Outcome::Ready { effect, numbers: object.empty_numbers() },
        // Something that the object needs was deleted after the list was made.
        Err(Error::NotFound(message)) => Outcome::waiting("Missing", message),
        Err(Error::Refused { reason: message, .. }) => Outcome::Refused { reason: REFUSED, message },
        Err(error @ Error::Unauthorized { .. }) => Outcome::Refused { reason: REFUSED, message: error.to_string() },
        Err(error) => Outcome::waiting(BROKER_UNAVAILABLE, error.to_string()),
    }
}

/// The most requests to one broker at a time.
const REQUESTS_MAX: usize = 16;
/// The longest time that a pass may take: resources that it has not reached by then wait for the next one.
const PASS_MAX: Duration = Duration::from_secs(30);

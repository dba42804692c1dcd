//! One pass over one broker: gather what is there, compare, do what is missing, report.
use super::drift::{self, Step};
use super::kinds::Actual;
use super::object::Object;
use super::outcome::{BROKER_UNAVAILABLE, Done, INTERRUPTED, NOT_THERE, Outcome, REFUSED};
use super::{conflict, deletion};
use leveret_client::{Client, DeleteOnly, Error, Made};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Has every object on the broker as wanted, or says why not: an outcome an object, in their order. Nothing is changed on a
/// broker that is `paused`.
///
/// # Errors
/// The broker cannot be asked at all.
pub(crate) async fn pass(client: &Client, objects: Vec<Arc<Object>>, paused: bool) -> Result<Vec<Outcome>, Error> {
    let end = Instant::now() + PASS_MAX;
    let mut actual = Actual::list(client, objects.iter().map(|object| &object.wanted)).await?;
    let owners = conflict::owners(&objects);
    let mut outcomes: Vec<Option<Outcome>> = vec![None; objects.len()];
    let mut phases: [Vec<Task>; 2] = Default::default();
    for (at, (object, owner)) in objects.into_iter().zip(owners).enumerate() {
        let decide = if object.deleting { deletion::decide } else { drift::decide };
        match decide(&object, owner.as_ref(), &actual) {
            Step::Report(outcome) => outcomes[at] = Some(outcome),
            step if paused => outcomes[at] = Some(while_paused(&object, &step)),
            // Declared in the order of need, deleted in the opposite one.
            step => {
                phases[usize::from(object.wanted.comes_second() != object.deleting)].push(Task { at, object, step })
            }
        }
    }
    let limits = Arc::new(Limits { end, away: OnceLock::new() });
    for phase in phases {
        actual = run(client, actual, phase, (&limits, &mut outcomes)).await;
    }
    let missed = || Outcome::waiting(INTERRUPTED, "not looked at yet");
    Ok(outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(missed)).collect())
}

fn while_paused(object: &Object, step: &Step) -> Outcome {
    let is_not = match step {
        Step::Delete(_) => "is not deleted",
        _ => "is not declared",
    };
    Outcome::waiting("Paused", format!("{} {is_not}: spec.paused of the Broker is set", object.wanted.describe()))
}

/// What is to be done for the object at a place in the list.
struct Task {
    at: usize,
    object: Arc<Object>,
    step: Step,
}

/// What ends a pass before its time: each request to a broker that hangs would wait for its own end otherwise.
struct Limits {
    end: Instant,
    /// What the first said that got no answer: the others are told the same.
    away: OnceLock<Outcome>,
}

impl Limits {
    /// Does something, unless the pass is to end.
    async fn keep(&self, act: impl Future<Output = Outcome>) -> Outcome {
        if let Some(away) = self.away.get() {
            return away.clone();
        }
        if Instant::now() >= self.end {
            return Outcome::waiting(INTERRUPTED, "the broker takes long to answer: not looked at yet");
        }
        let outcome = act.await;
        if matches!(outcome, Outcome::Waiting { reason: BROKER_UNAVAILABLE, .. }) {
            let _ = self.away.set(outcome.clone());
        }
        outcome
    }
}

/// Does all of a phase, a bounded number at a time; what is on the broker then.
async fn run(
    client: &Client,
    actual: Actual,
    phase: Vec<Task>,
    (limits, outcomes): (&Arc<Limits>, &mut [Option<Outcome>]),
) -> Actual {
    let actual = Arc::new(actual);
    let slots = Arc::new(Semaphore::new(REQUESTS_MAX));
    let mut tasks = JoinSet::new();
    for task in phase {
        let (client, actual, slots, limits) = (client.clone(), actual.clone(), slots.clone(), limits.clone());
        tasks.spawn(async move {
            let _slot = slots.acquire_owned().await;
            let outcome = limits.keep(act(&client, &actual, &task.object, task.step)).await;
            (task.at, task.object, outcome)
        });
    }
    let mut declared = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        let Ok((at, object, outcome)) = ended else { continue };
        if matches!(outcome, Outcome::Ready { .. }) {
            declared.push(object);
        }
        outcomes[at] = Some(outcome);
    }
    // The tasks have ended, and with them what they held of it.
    let mut actual = Arc::into_inner(actual).unwrap_or_default();
    declared.iter().for_each(|object| actual.declared(&object.wanted));
    actual
}

async fn act(client: &Client, actual: &Actual, object: &Object, step: Step) -> Outcome {
    match step {
        Step::Report(outcome) => outcome,
        Step::Declare => {
            let done = if object.was_declared { Done::Restored } else { Done::Created };
            declare(client, actual, object, done).await
        }
        Step::Replace(named) => {
            let only = DeleteOnly { if_empty: true, if_unused: true };
            match object.wanted.delete(client, actual, only).await {
                Ok(()) | Err(Error::NotFound(_)) => declare(client, actual, object, Done::Replaced(named)).await,
                Err(error @ Error::Unreachable { .. }) => Outcome::waiting(BROKER_UNAVAILABLE, error.to_string()),
                Err(error) => {
                    let what = object.wanted.describe();
                    let message = format!("{what} was changed on the broker: {named}. It cannot be put back: {error}");
                    Outcome::waiting(super::outcome::CHANGED, message)
                }
            }
        }
        Step::Delete(only) => {
            deletion::deleted(object, only.if_empty, object.wanted.delete(client, actual, only).await)
        }
    }
}

async fn declare(client: &Client, actual: &Actual, object: &Object, done: Done) -> Outcome {
    if let Some(missing) = object.wanted.waits_for(actual) {
        return Outcome::waiting("Missing", format!("waits for {missing}: not on the broker yet"));
    }
    match object.wanted.declare(client).await {
        // It was missing in the list and is said to be there: what counts is what can be read back. So it is for what was
        // there before and went: it may never have come back.
        Ok(made) if made == Made::Unchanged || done == Done::Restored => match object.wanted.is_there(client).await {
            Ok(true) => Outcome::Ready { done, numbers: object.wanted.nothing_yet() },
            Ok(false) => {
                let what = object.wanted.describe();
                Outcome::waiting(
                    NOT_THERE,
                    format!("the broker accepts the declaration of {what}, and does not have it"),
                )
            }
            Err(error) => Outcome::waiting(BROKER_UNAVAILABLE, error.to_string()),
        },
        Ok(_) => Outcome::Ready { done, numbers: object.wanted.nothing_yet() },
        // It went in this moment.
        Err(Error::NotFound(message)) => Outcome::waiting("Missing", message),
        Err(Error::Refused { reason: message, .. }) => Outcome::Refused { reason: REFUSED, message },
        Err(error @ Error::Unauthorized { .. }) => Outcome::Refused { reason: REFUSED, message: error.to_string() },
        Err(error) => Outcome::waiting(BROKER_UNAVAILABLE, error.to_string()),
    }
}

/// Requests to one broker at a time.
const REQUESTS_MAX: usize = 16;
/// How long a pass may take: what it has not come to by then waits for the next one.
const PASS_MAX: Duration = Duration::from_secs(30);

//! One pass over one broker: gather what is there, compare, do what is missing, report.
use super::conflict;
use super::deletion;
use super::kinds::{Actual, Found};
use super::object::{Key, Object};
use super::outcome::{Done, Outcome};
use leveret_client::{Client, Error};
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Has every object on the broker as wanted, or says why not: an outcome an object, in their order.
///
/// # Errors
/// The broker cannot be asked at all.
pub(crate) async fn pass(client: &Client, objects: Vec<Object>) -> Result<Vec<Outcome>, Error> {
    let actual = Arc::new(Actual::list(client).await?);
    let owners = conflict::owners(&objects);
    let mut outcomes: Vec<Option<Outcome>> = vec![None; objects.len()];
    let mut todo: [Vec<(usize, Object, Option<Key>)>; 2] = Default::default();
    for (at, (object, owner)) in objects.into_iter().zip(owners).enumerate() {
        match settled(&object, owner.as_ref(), &actual) {
            Some(outcome) => outcomes[at] = Some(outcome),
            None => todo[usize::from(object.wanted.comes_second() != object.deleting)].push((at, object, owner)),
        }
    }
    // Declared in the order of need, deleted in the opposite one.
    for phase in todo {
        run(client, &actual, phase, &mut outcomes).await;
    }
    let missed = || Outcome::Waiting { reason: "Interrupted", message: "not looked at yet".to_owned() };
    Ok(outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(missed)).collect())
}

/// What needs no word with the broker.
fn settled(object: &Object, owner: Option<&Key>, actual: &Actual) -> Option<Outcome> {
    if object.deleting {
        return None;
    }
    if let Some(owner) = owner {
        let message = format!("{} belongs to {owner}, which is older", object.wanted.describe());
        return Some(Outcome::Refused { reason: "Conflict", message });
    }
    match object.wanted.find(actual) {
        Found::Missing => None,
        Found::Equal(numbers) => Some(Outcome::Ready { done: Done::Nothing, numbers }),
        Found::Different(named) => {
            let what = object.wanted.describe();
            let message = format!("{what} differs on the broker: {named}. Delete it there, or change this resource");
            Some(Outcome::Refused { reason: "Different", message })
        }
    }
}

async fn run(
    client: &Client,
    actual: &Arc<Actual>,
    phase: Vec<(usize, Object, Option<Key>)>,
    outcomes: &mut [Option<Outcome>],
) {
    let slots = Arc::new(Semaphore::new(REQUESTS_MAX));
    let mut tasks = JoinSet::new();
    for (at, object, owner) in phase {
        let (client, actual, slots) = (client.clone(), actual.clone(), slots.clone());
        tasks.spawn(async move {
            let _slot = slots.acquire_owned().await;
            let outcome = if object.deleting {
                deletion::delete(&client, &actual, &object, owner.as_ref()).await
            } else {
                declare(&client, &object).await
            };
            (at, outcome)
        });
    }
    while let Some(done) = tasks.join_next().await {
        if let Ok((at, outcome)) = done {
            outcomes[at] = Some(outcome);
        }
    }
}

async fn declare(client: &Client, object: &Object) -> Outcome {
    match object.wanted.declare(client).await {
        Ok(_) => {
            let done = if object.was_ready { Done::Restored } else { Done::Created };
            let numbers = matches!(object.wanted, super::kinds::Wanted::Queue(_)).then_some((0, 0, 0));
            Outcome::Ready { done, numbers }
        }
        // An end of a binding, or a virtual host: it may come yet.
        Err(Error::NotFound(message)) => Outcome::Waiting { reason: "Missing", message },
        Err(Error::Refused { reason: message, .. }) => Outcome::Refused { reason: "Refused", message },
        Err(error) => Outcome::Waiting { reason: "BrokerUnavailable", message: error.to_string() },
    }
}

/// Requests to one broker at a time.
const REQUESTS_MAX: usize = 16;

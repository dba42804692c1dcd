//! One Broker: gather, validate, build, apply, status.
use super::build::{self, Children};
use super::status::{self, Observed};
use super::{Work, connect, volumes};
use crate::kubernetes::apply;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Secret;
use kube::runtime::controller::Action;
use kube::{Api, Resource, ResourceExt};
use leveret_api::{Broker, BrokerStatus};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Has the cluster as the Broker says, and reports.
pub(super) async fn reconcile(broker: Arc<Broker>, work: Arc<Work>) -> kube::Result<Action> {
    let started = Instant::now();
    let result = Box::pin(step(&broker, &work)).await;
    work.context.metrics.reconciled("broker", started.elapsed(), result.is_err());
    result
}

async fn step(broker: &Broker, work: &Work) -> kube::Result<Action> {
    // Its children go by their owner references; the volumes as their retention says.
    if broker.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let mut observed = gather(broker, work).await?;
    if !broker.spec.paused {
        observed.problem = match build::children(broker, &image(work, &observed), observed.secret.as_ref()) {
            Ok(children) => {
                let growth = volumes::grow(work, broker, observed.set.as_ref()).await?;
                observed.growing = growth.waiting;
                match growth.problem {
                    problem @ Some(_) => problem,
                    None => Box::pin(apply_all(work, broker, children, growth.set_goes, &mut observed)).await?,
                }
            }
            Err(problem) => Some(("InvalidSpec", problem)),
        };
    }
    if status::is_up(broker, &observed) {
        observed.overview = match connect::client(&work.context.client, broker).await {
            Ok(client) => client.overview().await.ok(),
            Err(_) => None,
        };
    }
    report(broker, work, &observed).await?;
    let is_settled = status::is_up(broker, &observed) && observed.growing.is_none();
    Ok(Action::requeue(if is_settled { LOOK_EVERY } else { LOOK_SOON }))
}

/// The image of a Broker that names none: the one that it runs, so that a newer operator restarts no broker by itself;
/// the operator's for one that is new.
fn image(work: &Work, observed: &Observed) -> String {
    let spec = observed.set.as_ref().and_then(|set| set.spec.as_ref());
    let container = spec.and_then(|spec| spec.template.spec.as_ref()).and_then(|pod| pod.containers.first());
    container.and_then(|container| container.image.clone()).unwrap_or_else(|| work.default_image.clone())
}

async fn gather(broker: &Broker, work: &Work) -> kube::Result<Observed> {
    let namespace = broker.namespace().unwrap_or_default();
    let secrets: Api<Secret> = Api::namespaced(work.context.client.clone(), &namespace);
    let sets: Api<StatefulSet> = Api::namespaced(work.context.client.clone(), &namespace);
    let secret_name = build::secret::name(broker);
    let set_name = broker.name_any();
    let (secret, set) = tokio::try_join!(secrets.get_opt(&secret_name), sets.get_opt(&set_name))?;
    Ok(Observed { secret, set, ..Observed::default() })
}

/// Applies all children; what the API server refuses is a problem to report, not a reason to stop.
async fn apply_all(
    work: &Work,
    broker: &Broker,
    children: Children,
    set_goes: bool,
    observed: &mut Observed,
) -> kube::Result<Option<(&'static str, String)>> {
    let namespace = broker.namespace().unwrap_or_default();
    let client = &work.context.client;
    let is_new = observed.secret.is_none();
    let Children { secret, config, account, nodes, service, budget, set } = children;
    if let Some(secret) = secret {
        apply::object(client, &namespace, &secret).await?;
    }
    tokio::try_join!(
        apply::object(client, &namespace, &config),
        apply::object(client, &namespace, &account),
        apply::object(client, &namespace, &nodes),
        apply::object(client, &namespace, &service),
        apply::object(client, &namespace, &budget),
    )?;
    if set_goes {
        return Ok(None); // its end is a reason to look again
    }
    match apply::object(client, &namespace, &set).await {
        Ok(applied) => observed.set = Some(applied),
        Err(kube::Error::Api(refusal)) if refusal.code == 422 => {
            let message = format!(
                "the StatefulSet cannot be changed so: {}. Undo the change of spec.storage, or delete the Broker (its \
                 volumes are kept unless storage.retention is Delete) and create it anew",
                refusal.message
            );
            return Ok(Some(("ChangeRefused", message)));
        }
        Err(error) => return Err(error),
    }
    if is_new {
        let note = format!("StatefulSet {}, its Services and its Secret were made", broker.name_any());
        work.context.event(&broker.object_ref(&()), false, "Created", note).await;
    }
    Ok(None)
}

async fn report(broker: &Broker, work: &Work, observed: &Observed) -> kube::Result<()> {
    let before = broker.status.clone().unwrap_or_default();
    let after = status::next(broker, &before, observed);
    if before == after || only_numbers_differ(&before, &after) && !work.numbers_are_due(broker) {
        return Ok(());
    }
    let (namespace, name) = (broker.namespace().unwrap_or_default(), broker.name_any());
    match apply::status::<Broker>(&work.context.client, (&namespace, &name), &after).await {
        Err(kube::Error::Api(refusal)) if refusal.code == 404 => return Ok(()),
        written => drop(written?),
    }
    events(broker, work, &before, &after).await;
    Ok(())
}

/// Numbers change with every message: each write of them would be a reason to look again.
fn only_numbers_differ(before: &BrokerStatus, after: &BrokerStatus) -> bool {
    let BrokerStatus { queues, messages, connections, .. } = before.clone();
    BrokerStatus { queues, messages, connections, ..after.clone() } == *before
}

async fn events(broker: &Broker, work: &Work, before: &BrokerStatus, after: &BrokerStatus) {
    for condition in &after.conditions {
        let changed =
            before.conditions.iter().all(|old| old.type_ != condition.type_ || old.reason != condition.reason);
        let is_bad = condition.type_ == "Degraded" && condition.status == "True";
        let is_good = condition.type_ == "Ready" && condition.status == "True";
        if changed && (is_bad || is_good) {
            let about = broker.object_ref(&());
            work.context.event(&about, is_bad, &condition.reason, condition.message.clone()).await;
        }
    }
}

/// How often the numbers in the status are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);
const LOOK_SOON: Duration = Duration::from_secs(5);

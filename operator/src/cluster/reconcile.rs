//! The reconciliation of one Broker in five steps: gather, validate, build, apply, status.
use super::apply::{AppliedChildren, apply};
use super::build::Secrets;
use super::gather::{Prerequisites, gather};
use super::health::{self, Health};
use super::login::{Decision, Login, Logins};
use super::nodes::BrokerNodes;
use super::operate::operate;
use super::pods::PodCounts;
use super::shared_secret::SharedSecret;
use super::validate::{ImageChoice, Valid, validate};
use super::{Work, ask, build, connect, size, status};
use crate::kubernetes::events::Notice;
use crate::kubernetes::guard::Guard;
use crate::kubernetes::place::Place;
use crate::kubernetes::{self, unreadable};
use kube::runtime::controller::Action;
use kube::{Resource, ResourceExt};
use leveret_api::{Broker, BrokerStatus};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Brings the cluster to what the Broker says and reports the result in its status.
pub(super) async fn reconcile(broker: Arc<Guard<Broker>>, work: Arc<Work>) -> kube::Result<Action> {
    let broker = match &broker.0 {
        Ok(broker) => broker,
        Err(invalid) => {
            unreadable::report::<Broker>(&work.context, invalid).await;
            return Ok(Action::await_change());
        }
    };
    let started = Instant::now();
    let name = format!("Broker {}/{}", broker.namespace().unwrap_or_default(), broker.name_any());
    let _job = work.context.watchdog.begin(name);
    let result = Box::pin(reconcile_broker(broker, &work)).await;
    work.context.metrics.reconciled("broker", started.elapsed(), result.is_err());
    result
}

async fn reconcile_broker(broker: &Broker, work: &Work) -> kube::Result<Action> {
    // The children are deleted by their owner references, the volumes as their retention says.
    if broker.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let client = &work.context.client;
    let gathered = gather(client, broker).await?;
    let nodes = ask::observe(work, broker, gathered.private.as_ref().and_then(Logins::read).as_ref()).await?;
    let applied = if broker.spec.paused {
        AppliedChildren::paused(gathered.set)
    } else {
        build_and_apply(broker, work, gathered, &nodes).await?
    };
    let health = health::observe(client, broker, applied.set.as_ref(), &nodes).await?;
    write_status(broker, work, &applied, &health).await?;
    Ok(Action::requeue(next_reconciliation(broker, work, &applied, &health)))
}

/// Goes through the steps from the gathered state to what was applied. A problem ends them early.
async fn build_and_apply(
    broker: &Broker,
    work: &Work,
    gathered: Prerequisites,
    nodes: &BrokerNodes,
) -> kube::Result<AppliedChildren> {
    let image = ImageChoice::of(broker, &work.defaults.image);
    let sized = build::with_pods(broker, size::pods(broker.spec.replicas, gathered.set.as_ref(), nodes));
    let Valid { config, pod } = match validate(&sized, &gathered, &image, &work.defaults) {
        Ok(valid) => valid,
        Err(problem) => return Ok(AppliedChildren::refused(gathered.set, image, problem)),
    };
    let logins = decide_logins(broker, work, &gathered).await;
    let shared = SharedSecret::decide(gathered.shared.as_ref(), gathered.private.as_ref(), &rand::random());
    let secrets = Secrets { logins, shared };
    let children = match build::children(&sized, &config, pod, &secrets) {
        Ok(children) => children,
        Err(problem) => return Ok(AppliedChildren::refused(gathered.set, image, problem)),
    };
    let mut applied = Box::pin(apply(&sized, work, children, image, gathered.set)).await?;
    if let Some(set) = &applied.set {
        applied.operation = Box::pin(operate(broker, work, set, nodes, &secrets.logins)).await?;
    }
    Ok(applied)
}

/// Decides which logins follow from the Secrets. Asks the broker if the Secrets alone do not decide it.
async fn decide_logins(broker: &Broker, work: &Work, gathered: &Prerequisites) -> Logins {
    let carried = gathered.set.as_ref().and_then(build::login_version);
    let kept = gathered.private.as_ref().and_then(Logins::read);
    let is_current = kept.as_ref().is_some_and(|kept| carried.as_ref() == Some(&kept.version));
    let are_rolled_out = PodCounts::of(broker, gathered.set.as_ref()).are_rolled_out();
    // The previous login is kept until the new one is seen to work.
    let is_proven = match &kept {
        Some(Logins { current, previous: Some(_), .. }) if is_current && are_rolled_out => {
            connect::login(broker, current).await.is_ok()
        }
        _ => false,
    };
    // Only if the Secret for the pods is lost, the broker is asked whether it accepts the login of the other Secret.
    let running = match (&kept, gathered.public.as_ref().and_then(Login::read)) {
        (None, Some(login)) if carried.is_some() => connect::login(broker, &login).await.ok().and(carried),
        _ => None,
    };
    let (public, private) = (gathered.public.as_ref(), gathered.private.as_ref());
    let Decision { logins, notice } = Logins::decide(public, private, &rand::random(), running.as_deref(), is_proven);
    if let Some(notice) = notice {
        let message = format!("Secret {}: {}", build::secret::name(broker), notice.message);
        let notice = Notice { message: message.into(), ..notice };
        work.context.event(&broker.object_ref(&()), notice).await;
    }
    logins
}

/// Writes the status if it has changed, and records the events that follow from the change.
async fn write_status(broker: &Broker, work: &Work, applied: &AppliedChildren, health: &Health) -> kube::Result<()> {
    let before = broker.status.clone().unwrap_or_default();
    let after = status::next(broker, &before, applied, health);
    if before == after || only_numbers_differ(&before, &after) && !work.numbers_are_due(broker) {
        return Ok(());
    }
    let place = Place::of::<Broker>(&broker.namespace().unwrap_or_default(), &broker.name_any());
    match kubernetes::apply::status(&work.context.client, &place, &after).await {
        Err(kube::Error::Api(refusal)) if refusal.code == 404 => return Ok(()),
        written => drop(written?),
    }
    record_events(broker, work, &before, &after).await;
    Ok(())
}

/// Returns the time until the next reconciliation, unless something changes before.
fn next_reconciliation(broker: &Broker, work: &Work, applied: &AppliedChildren, health: &Health) -> Duration {
    let AppliedChildren { set, problem, growing, missing_address, operation, .. } = applied;
    if operation.is_under_way {
        return work.stalled.next_try(broker);
    }
    work.stalled.end(broker);
    let is_settled = PodCounts::of(broker, set.as_ref()).are_rolled_out()
        && problem.is_none()
        && growing.is_none()
        && missing_address.is_none();
    if health.is_answering() || !health.is_up() {
        work.silent.end(broker);
    }
    match (is_settled, health.is_answering()) {
        (true, true) => SETTLED_EVERY,
        (true, false) if health.is_up() => work.silent.next_try(broker),
        _ => UNSETTLED_EVERY,
    }
}

/// Returns whether two statuses differ only in numbers, or in texts that may have numbers in them. Numbers change with every
/// message, and each write of a status leads to another reconciliation.
fn only_numbers_differ(before: &BrokerStatus, after: &BrokerStatus) -> bool {
    let BrokerStatus { queues, messages, connections, waits_for, .. } = before.clone();
    let mut conditions = after.conditions.clone();
    for (condition, old) in conditions.iter_mut().zip(&before.conditions) {
        if (&condition.type_, &condition.status, &condition.reason) == (&old.type_, &old.status, &old.reason) {
            condition.message.clone_from(&old.message);
        }
    }
    let is_waiting = waits_for.is_some() == after.waits_for.is_some();
    is_waiting && BrokerStatus { queues, messages, connections, waits_for, conditions, ..after.clone() } == *before
}

/// Records an event for each condition that has become bad or good.
async fn record_events(broker: &Broker, work: &Work, before: &BrokerStatus, after: &BrokerStatus) {
    for condition in &after.conditions {
        let changed =
            before.conditions.iter().all(|old| old.type_ != condition.type_ || old.reason != condition.reason);
        let is_bad = condition.type_ == "Degraded" && condition.status == "True";
        let is_good = condition.type_ == "Ready" && condition.status == "True";
        if changed && (is_bad || is_good) {
            let (reason, message) = (condition.reason.clone(), condition.message.clone());
            let notice = if is_bad { Notice::warning(reason, message) } else { Notice::normal(reason, message) };
            work.context.event(&broker.object_ref(&()), notice).await;
        }
    }
}

/// How often a Broker that is as specified is reconciled.
const SETTLED_EVERY: Duration = Duration::from_secs(10);
/// How often a Broker that is not as specified is reconciled.
const UNSETTLED_EVERY: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Defaults;
    use crate::kubernetes::Context;
    use crate::kubernetes::fake::Fake;
    use crate::metrics::Metrics;
    use serde_json::json;

    #[test]
    fn a_broker_keeps_its_image_whatever_becomes_of_its_stateful_set() {
        let with = |image: Option<&str>, status: Option<&BrokerStatus>| {
            let mut broker = build::tests::broker(json!({"image": image}));
            broker.status = status.cloned();
            broker
        };
        let remembered = |broker: &Broker, default: &str, ready: i32| {
            let image = Some(ImageChoice::of(broker, default));
            let set = json!({
                "metadata": {"name": "shop", "generation": 1},
                "status": {"replicas": 1, "readyReplicas": ready, "updatedReplicas": ready, "observedGeneration": 1},
            });
            let health = if ready > 0 {
                Health { answer: Some(Ok(leveret_client::Overview::default())), ..Health::up() }
            } else {
                Health::default()
            };
            let applied =
                AppliedChildren { image, set: serde_json::from_value(set).unwrap(), ..AppliedChildren::default() };
            status::next(broker, &broker.status.clone().unwrap_or_default(), &applied, &health)
        };
        // One that has never run is corrected by another operator.
        let wrong = remembered(&with(None, None), "operator:wrong", 0);
        assert_eq!((wrong.image.as_deref(), wrong.default_image.as_deref()), (Some("operator:wrong"), None));
        let first = remembered(&with(None, Some(&wrong)), "operator:1", 1);
        assert_eq!((first.image.as_deref(), first.default_image.as_deref()), (Some("operator:1"), Some("operator:1")));
        // There is no StatefulSet, since volumes grow, and the operator is a newer one.
        let later = remembered(&with(None, Some(&first)), "operator:2", 0);
        assert_eq!((later.image.as_deref(), later.default_image.as_deref()), (Some("operator:1"), Some("operator:1")));
        let own = remembered(&with(Some("mine:1"), Some(&later)), "operator:2", 1);
        assert_eq!((own.image.as_deref(), own.default_image.as_deref()), (Some("mine:1"), None));
        // Its own image is taken back: it follows the operator that is there then.
        assert_eq!(remembered(&with(None, Some(&own)), "operator:2", 1).image.as_deref(), Some("operator:2"));
    }

    fn work(fake: &Fake) -> Work {
        let context = Context::new(fake.client(), Vec::new(), "i", Metrics::new().unwrap());
        Work::new(context, Defaults { image: "i:1".to_owned(), pull_secrets: Vec::new() })
    }

    /// Gathers, builds and applies, against the fake API server that `work` writes to.
    async fn applied(fake: &Fake, work: &Work, broker: &Broker) -> AppliedChildren {
        let gathered = gather(&fake.client(), broker).await.unwrap();
        let nodes = Box::pin(ask::observe(work, broker, None)).await.unwrap();
        Box::pin(build_and_apply(broker, work, gathered, &nodes)).await.unwrap()
    }

    #[tokio::test]
    async fn a_stateful_set_that_is_made_anew_around_its_pods_is_not_announced() {
        for (ready_replicas, is_news) in [(0, true), (1, false)] {
            let fake = Fake::default();
            let mut broker = build::tests::broker(json!({}));
            broker.status = Some(BrokerStatus { ready_replicas, ..BrokerStatus::default() });
            assert_eq!(applied(&fake, &work(&fake), &broker).await.problem, None);
            let writes = fake.writes();
            assert!(writes.iter().any(|write| write.contains("statefulsets")), "{writes:?}");
            assert_eq!(writes.iter().any(|write| write.contains("/events")), is_news, "{writes:?}");
        }
    }

    #[tokio::test]
    async fn everything_but_the_volumes_is_written_while_they_cannot_be_changed() {
        let fake = Fake::default();
        let work = work(&fake);
        let apply = async |spec| {
            let problem = applied(&fake, &work, &build::tests::broker(spec)).await.problem;
            let set = fake.get("/apis/apps/v1/namespaces/trade/statefulsets/shop").unwrap();
            (problem.map(|problem| problem.reason), set["spec"].clone())
        };
        let (problem, first) = apply(json!({})).await;
        assert_eq!(problem, None);
        let claim = "/api/v1/namespaces/trade/persistentvolumeclaims/data-shop-0";
        let labels = json!({"app.kubernetes.io/name": "leveret", "app.kubernetes.io/instance": "shop"});
        let resources = json!({"requests": {"storage": "1Gi"}});
        fake.put(
            claim,
            json!({"metadata": {"name": "data-shop-0", "labels": labels}, "spec": {"resources": resources}}),
        );
        fake.refuse(&format!("PATCH {claim}"), 403, "Forbidden", "only dynamically provisioned pvc can be resized");
        for (storage, memory, reason) in [
            (json!({"size": "512Mi"}), "2Gi", "InvalidSpec"),
            (json!({"size": "2Gi"}), "3Gi", "VolumesCannotGrow"),
            (json!({"className": "fast"}), "4Gi", "ChangeRefused"),
        ] {
            // Another password goes the same way: the pods are restarted with it.
            let secret = "/api/v1/namespaces/trade/secrets/shop-default-user";
            let mut edited = fake.get(secret).unwrap();
            edited["data"]["password"] = json!(k8s_openapi::ByteString(memory.as_bytes().to_vec()));
            fake.put(secret, edited);
            let (problem, set) = apply(json!({"storage": storage, "resources": {"limits": {"memory": memory}}})).await;
            assert_eq!(problem.as_deref(), Some(reason));
            assert_eq!(set["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"], memory);
            assert_eq!(set["volumeClaimTemplates"], first["volumeClaimTemplates"], "{reason}");
            let login =
                |set: &serde_json::Value| set["template"]["metadata"]["annotations"]["leveret.dev/login"].clone();
            assert_ne!(login(&set), login(&first), "{reason}");
        }
    }

    #[tokio::test]
    async fn an_edited_login_is_announced_only_when_it_is_applied() {
        let fake = Fake::default();
        let work = work(&fake);
        let apply = async |spec| {
            let problem = applied(&fake, &work, &build::tests::broker(spec)).await.problem;
            (
                problem.map(|problem| problem.reason),
                fake.writes().iter().filter(|write| write.contains("/events")).count(),
            )
        };
        apply(json!({})).await;
        let secret = "/api/v1/namespaces/trade/secrets/shop-default-user";
        let mut edited = fake.get(secret).unwrap();
        edited["data"]["password"] = json!(k8s_openapi::ByteString(b"another".to_vec()));
        fake.put(secret, edited);
        assert_eq!(apply(json!({"config": {"amqp": "x"}})).await, (Some("InvalidSpec".to_owned()), 0));
        assert_eq!(apply(json!({})).await, (None, 1));
    }
}

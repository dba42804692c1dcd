//! One Broker: gather, validate, build, apply, status.
use super::login::{Login, Logins};
use super::status::{self, Observed, Problem};
use super::{Work, address, build, children, connect, pods, volumes};
use crate::kubernetes::guard::Guard;
use crate::kubernetes::{apply, unreadable};
use kube::runtime::controller::Action;
use kube::{Resource, ResourceExt};
use leveret_api::{Broker, BrokerStatus};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Has the cluster as the Broker says, and reports.
pub(super) async fn reconcile(broker: Arc<Guard<Broker>>, work: Arc<Work>) -> kube::Result<Action> {
    let broker = match &broker.0 {
        Ok(broker) => broker,
        Err(invalid) => {
            unreadable::report::<Broker>(&work.context, invalid).await;
            return Ok(Action::await_change());
        }
    };
    let started = Instant::now();
    let what = format!("Broker {}/{}", broker.namespace().unwrap_or_default(), broker.name_any());
    let _beat = work.context.pulse.begin(what);
    let result = Box::pin(step(broker, &work)).await;
    work.context.metrics.reconciled("broker", started.elapsed(), result.is_err());
    result
}

async fn step(broker: &Broker, work: &Work) -> kube::Result<Action> {
    // Its children go by their owner references; the volumes as their retention says.
    if broker.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let client = &work.context.client;
    let mut observed = Observed::default();
    let found = children::find(client, broker).await?;
    observed.set = found.set.clone();
    if !broker.spec.paused {
        (observed.image, observed.default_image) = image(broker, &work.defaults.image);
        observed.problem = match found.problem() {
            Some(problem) => Some(problem),
            None => Box::pin(shape(broker, work, &found, &mut observed)).await?,
        };
    }
    look(broker, work, &mut observed).await?;
    report(broker, work, &observed).await?;
    let is_settled = status::is_rolled_out(broker, &observed)
        && observed.growing.is_none()
        && observed.problem.is_none()
        && observed.address.is_none();
    let is_answering = matches!(observed.overview, Some(Ok(_)));
    if is_answering || !status::is_up(broker, &observed) {
        work.is_not_silent(broker);
    }
    Ok(Action::requeue(match (is_settled, is_answering) {
        (true, true) => LOOK_EVERY,
        (true, false) if status::is_up(broker, &observed) => work.look_again(broker),
        _ => LOOK_SOON,
    }))
}

/// The image that a Broker runs, and the operator's that it keeps once it has been ready with it: the one that was the
/// default then, so that a newer operator restarts no broker that runs.
fn image(broker: &Broker, default_image: &str) -> (Option<String>, Option<String>) {
    if let Some(image) = &broker.spec.image {
        return (Some(image.clone()), None);
    }
    let kept = broker.status.as_ref().and_then(|status| status.default_image.clone());
    let image = kept.unwrap_or_else(|| default_image.to_owned());
    (Some(image.clone()), Some(image))
}

/// Brings the children to what the Broker says; what cannot be done.
async fn shape(
    broker: &Broker,
    work: &Work,
    found: &children::Found,
    observed: &mut Observed,
) -> kube::Result<Option<Problem>> {
    let client = &work.context.client;
    let logins = logins(broker, work, found, observed).await;
    let image =
        build::Image { name: observed.image.as_deref().unwrap_or_default(), pull_secrets: &work.defaults.pull_secrets };
    let children = match build::children(broker, image, &logins) {
        Ok(children) => children,
        Err(problem) => return Ok(Some(Problem::new("InvalidSpec", problem))),
    };
    let looked = match children::look(client, broker, children).await? {
        Ok(looked) => looked,
        Err(problem) => return Ok(Some(problem)),
    };
    let growth = volumes::grow(work, broker, observed.set.as_ref()).await?;
    observed.growing = growth.waiting;
    // The end of a StatefulSet that goes is a reason to look again. One whose volumes cannot grow keeps its claims as they
    // are, and gets everything else.
    let written = children::write(client, looked, !growth.set_goes).await?;
    if let Some(set) = written.set {
        observed.set = Some(set);
    }
    if let Some(service) = &written.without_address {
        observed.address = Some(address::missing(client, service).await?);
    }
    // One that is made anew around its pods, since volumes grow, is nothing new.
    if written.is_new && broker.status.as_ref().is_none_or(|status| status.ready_replicas == 0) {
        let note = format!("StatefulSet {}, its Services and its Secrets were made", broker.name_any());
        work.context.event(&broker.object_ref(&()), false, "Created", note).await;
    }
    Ok(growth.problem.or(written.problem))
}

/// The logins that follow from the Secrets.
async fn logins(broker: &Broker, work: &Work, found: &children::Found, observed: &Observed) -> Logins {
    let carried = observed.set.as_ref().and_then(build::login_version);
    let kept = found.private.as_ref().and_then(Logins::read);
    let is_current = kept.as_ref().is_some_and(|kept| carried.as_ref() == Some(&kept.version));
    // Until the new login is seen to work, the one before it is kept.
    let is_proven = match &kept {
        Some(Logins { current, previous: Some(_), .. }) if is_current && status::is_rolled_out(broker, observed) => {
            connect::login(broker, current).await.is_ok()
        }
        _ => false,
    };
    // Whether the pods run with what the Secret for applications says has to be asked only when the other one is lost.
    let running = match (&kept, found.public.as_ref().and_then(Login::read)) {
        (None, Some(login)) if carried.is_some() => connect::login(broker, &login).await.ok().and(carried),
        _ => None,
    };
    let (public, private) = (found.public.as_ref(), found.private.as_ref());
    let (logins, news) = Logins::decide(public, private, &rand::random(), running.as_deref(), is_proven);
    if let Some((is_warning, reason, text)) = news {
        let note = format!("Secret {}: {text}", build::secret::name(broker));
        work.context.event(&broker.object_ref(&()), is_warning, reason, note).await;
    }
    logins
}

/// Looks at what runs: the pods that are not ready, and the broker in those that are.
async fn look(broker: &Broker, work: &Work, observed: &mut Observed) -> kube::Result<()> {
    let client = &work.context.client;
    if !status::is_up(broker, observed) {
        if let Some(set) = &observed.set {
            observed.trouble = pods::trouble(client, broker, set).await?;
        }
        return Ok(());
    }
    let (answer, greeting) = tokio::join!(connect::client(client, broker), connect::amqp(broker));
    observed.overview = Some(match answer {
        Ok((client, overview)) => {
            observed.alarms = client.alarms().await.unwrap_or_default();
            greeting.map(|()| overview).map_err(|error| format!("{error:#}"))
        }
        Err(error) => Err(format!("{error:#}")),
    });
    Ok(())
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

/// How often the children and the numbers in the status are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// As long as something is not as specified.
const LOOK_SOON: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Defaults;
    use crate::kubernetes::Context;
    use crate::kubernetes::fake::Fake;
    use crate::metrics::Metrics;
    use serde_json::json;
    use std::sync::Mutex;

    #[test]
    fn a_broker_keeps_its_image_whatever_becomes_of_its_stateful_set() {
        let with = |image: Option<&str>, status: Option<&BrokerStatus>| {
            let mut broker = build::tests::broker(json!({"image": image}));
            broker.status = status.cloned();
            broker
        };
        let remembered = |broker: &Broker, default: &str, ready: i32| {
            let (image, default_image) = image(broker, default);
            let set = json!({
                "metadata": {"name": "shop", "generation": 1},
                "status": {"replicas": 1, "readyReplicas": ready, "updatedReplicas": ready, "observedGeneration": 1},
            });
            let overview = (ready > 0).then(|| Ok(leveret_client::Overview::default()));
            let set = serde_json::from_value(set).unwrap();
            let observed = Observed { image, default_image, set, overview, ..Observed::default() };
            status::next(broker, &broker.status.clone().unwrap_or_default(), &observed)
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
        let defaults = Defaults { image: "i:1".to_owned(), pull_secrets: Vec::new() };
        Work { context, defaults, numbers_written: Mutex::default(), silent_since: Mutex::default() }
    }

    #[tokio::test]
    async fn a_stateful_set_that_is_made_anew_around_its_pods_is_no_news() {
        for (ready_replicas, is_news) in [(0, true), (1, false)] {
            let fake = Fake::default();
            let mut broker = build::tests::broker(json!({}));
            broker.status = Some(BrokerStatus { ready_replicas, ..BrokerStatus::default() });
            let found = children::find(&fake.client(), &broker).await.unwrap();
            let mut observed = Observed { image: Some("i:1".to_owned()), ..Observed::default() };
            assert_eq!(Box::pin(shape(&broker, &work(&fake), &found, &mut observed)).await.unwrap(), None);
            let writes = fake.writes();
            assert!(writes.iter().any(|write| write.contains("statefulsets")), "{writes:?}");
            assert_eq!(writes.iter().any(|write| write.contains("/events")), is_news, "{writes:?}");
        }
    }

    #[tokio::test]
    async fn everything_but_the_volumes_is_written_while_they_cannot_be_changed() {
        let fake = Fake::default();
        let work = work(&fake);
        let shaped = async |spec| {
            let broker = build::tests::broker(spec);
            let found = children::find(&fake.client(), &broker).await.unwrap();
            let mut observed =
                Observed { set: found.set.clone(), image: Some("i:1".to_owned()), ..Observed::default() };
            let problem = Box::pin(shape(&broker, &work, &found, &mut observed)).await.unwrap();
            let set = fake.get("/apis/apps/v1/namespaces/trade/statefulsets/shop").unwrap();
            (problem.map(|problem| problem.reason), set["spec"].clone())
        };
        let (problem, first) = shaped(json!({})).await;
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
            let (problem, set) = shaped(json!({"storage": storage, "resources": {"limits": {"memory": memory}}})).await;
            assert_eq!(problem.as_deref(), Some(reason));
            assert_eq!(set["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"], memory);
            assert_eq!(set["volumeClaimTemplates"], first["volumeClaimTemplates"], "{reason}");
            let login =
                |set: &serde_json::Value| set["template"]["metadata"]["annotations"]["leveret.dev/login"].clone();
            assert_ne!(login(&set), login(&first), "{reason}");
        }
    }
}

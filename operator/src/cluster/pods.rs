//! The pods of a Broker: how many are ready, and why one is not, in the words of the kubelet, the scheduler or the
//! container.
use super::build::{self, pod};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ContainerStatus, Event, PersistentVolumeClaim, Pod, PodCondition, PodStatus};
use k8s_openapi::jiff::Timestamp;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use leveret_api::Broker;

/// The pods of a StatefulSet.
#[derive(Clone, Copy, Debug)]
pub(super) struct PodCounts {
    pub(super) wanted: i32,
    pub(super) ready: i32,
    /// Pods of the newest template.
    pub(super) updated: i32,
}

impl PodCounts {
    pub(super) fn of(broker: &Broker, set: Option<&StatefulSet>) -> Self {
        let wanted = broker.spec.replicas;
        let Some(set) = set else { return Self { wanted, ready: 0, updated: 0 } };
        let status = set.status.as_ref();
        let Some((status, observed)) = status.and_then(|status| Some((status, status.observed_generation?))) else {
            // The StatefulSet was created again around its pods, which have not been counted since: the last count
            // still holds.
            let before = broker.status.as_ref().map_or(0, |status| status.ready_replicas);
            return Self { wanted, ready: before, updated: before };
        };
        let is_current = Some(observed) >= set.metadata.generation;
        let updated = status.updated_replicas.filter(|_| is_current).unwrap_or(0);
        Self { wanted, ready: status.ready_replicas.unwrap_or(0), updated }
    }

    /// Returns the numbers when all pods are ready, whatever the StatefulSet has counted so far.
    pub(super) fn all_ready(self) -> Self {
        if self.are_ready() { self } else { Self { ready: self.wanted, updated: self.wanted, ..self } }
    }

    /// Returns whether all pods are ready.
    pub(super) fn are_ready(&self) -> bool {
        self.ready >= self.wanted
    }

    /// Returns whether all pods are ready and of the newest template.
    pub(super) fn are_rolled_out(&self) -> bool {
        self.are_ready() && self.updated >= self.wanted
    }
}

/// Something that keeps a pod from being ready, or a Service from having an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    /// One word for programs.
    pub(super) reason: String,
    /// A sentence for people.
    pub(super) message: String,
    /// Set if somebody has to do something: the trouble does not pass by itself.
    pub(super) is_wrong: bool,
}

/// Returns the trouble of the first pod that is not ready and about which something is known. `said` returns what the
/// broker in a pod says that it lacks.
pub(super) async fn trouble(
    client: &Client,
    broker: &Broker,
    set: &StatefulSet,
    said: &(dyn Fn(i32) -> Option<String> + Sync),
) -> kube::Result<Option<Trouble>> {
    let namespace = broker.namespace().unwrap_or_default();
    let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    for ordinal in 0..broker.spec.replicas {
        let name = build::pod_name(broker, ordinal);
        let Some(pod) = pods.get_opt(&name).await? else {
            let warning = newest_warning(client, &namespace, &set.uid().unwrap_or_default()).await?;
            return Ok(warning.map(|message| Trouble { reason: "PodNotCreated".to_owned(), message, is_wrong: true }));
        };
        let trouble = match foreign_pod_trouble(&pod, set) {
            Some(trouble) => Some(trouble),
            None => with_warning(client, &pod, pod_trouble(&pod)).await?,
        };
        let Some(mut trouble) = trouble else { continue };
        if let Some(words) = said(ordinal).filter(|_| is_running(&pod)) {
            trouble.message = format!("{}; it says: {}", trouble.message, shortened(&words));
        }
        if trouble.reason == UNSCHEDULABLE {
            let claim = build::claim_name(broker, ordinal);
            if let Some(warning) = claim_warning(client, &namespace, &claim).await? {
                trouble.message = format!("{}; {warning}", trouble.message);
            }
            if broker.spec.replicas > 1 && trouble.message.contains("volume node affinity") {
                let advice =
                    format!("if the node with the volume is gone for good, delete the claim {claim} and the pod");
                trouble.message = format!("{}; {advice}: an empty member then takes its place", trouble.message);
            }
        }
        return Ok(Some(trouble));
    }
    Ok(None)
}

/// Returns whether all pods are ready although the StatefulSet counts none: it was made anew around its pods, and has not
/// taken them over yet.
pub(super) async fn are_uncounted(client: &Client, broker: &Broker, set: &StatefulSet) -> kube::Result<bool> {
    if set.status.as_ref().is_none_or(|status| status.replicas > 0) {
        return Ok(false);
    }
    let pods: Api<Pod> = Api::namespaced(client.clone(), &broker.namespace().unwrap_or_default());
    for ordinal in 0..broker.spec.replicas {
        let pod = pods.get_opt(&build::pod_name(broker, ordinal)).await?;
        if !pod.is_some_and(|pod| is_ready(&pod) && foreign_pod_trouble(&pod, set).is_none()) {
            return Ok(false);
        }
    }
    Ok(broker.spec.replicas > 0)
}

/// Returns whether the broker's container runs in a pod.
pub(super) fn is_running(pod: &Pod) -> bool {
    let containers = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    let mut ours = containers.into_iter().flatten().filter(|container| container.name == pod::CONTAINER);
    ours.any(|container| container.state.as_ref().is_some_and(|state| state.running.is_some()))
}

/// Returns whether a pod is ready and is not being stopped.
pub(super) fn is_ready(pod: &Pod) -> bool {
    let is_ready = condition(pod, "Ready").is_some_and(|condition| condition.status == "True");
    is_ready && pod.metadata.deletion_timestamp.is_none()
}

/// Returns a condition of a pod.
fn condition<'p>(pod: &'p Pod, type_: &str) -> Option<&'p PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == type_)
}

/// Returns the trouble of a pod that has the name of one of the StatefulSet's pods but is not controlled by it: the
/// status of that pod says nothing about this Broker.
fn foreign_pod_trouble(pod: &Pod, set: &StatefulSet) -> Option<Trouble> {
    let controller = pod.owner_references().iter().find(|reference| reference.controller == Some(true))?;
    if Some(&controller.uid) == set.metadata.uid.as_ref() {
        return None;
    }
    let (name, kind, other) = (pod.name_any(), &controller.kind, &controller.name);
    Some(if kind == "StatefulSet" && *other == set.name_any() {
        let message = format!("pod {name}: it is left of a StatefulSet that is gone, and goes too");
        Trouble { reason: TERMINATING.to_owned(), message, is_wrong: false }
    } else {
        let message = format!("pod {name} is controlled by {kind} {other}: the StatefulSet cannot make its own");
        Trouble { reason: "NameTaken".to_owned(), message, is_wrong: true }
    })
}

/// Adds the newest warning about a pod to its trouble if the pod has not been ready for a while. The warning may say
/// that a volume is not mounted, or that a probe fails.
async fn with_warning(client: &Client, pod: &Pod, trouble: Option<Trouble>) -> kube::Result<Option<Trouble>> {
    let is_wrong = trouble.as_ref().is_some_and(|trouble| trouble.is_wrong);
    if is_wrong || !is_late(pod) {
        return Ok(trouble);
    }
    let (name, uid) = (pod.name_any(), pod.uid().unwrap_or_default());
    let mut events = warnings(client, &pod.namespace().unwrap_or_default(), &uid).await?;
    // Warnings about scheduling are over: without a node, the pod's trouble would be wrong already.
    events.retain(|event| event.reason.as_deref() != Some("FailedScheduling"));
    let Some(warning) = newest(events) else { return Ok(trouble) };
    let trouble = trouble.unwrap_or_else(|| {
        let message = format!("pod {name}: nothing is known of its containers");
        Trouble { reason: CREATING.to_owned(), message, is_wrong: true }
    });
    let message = format!("{}; {}", trouble.message, shortened(&warning));
    Ok(Some(Trouble { message, is_wrong: true, ..trouble }))
}

/// Returns whether a pod that is to run has not been ready for more than [`READY_SECONDS_MAX`].
fn is_late(pod: &Pod) -> bool {
    let ready = condition(pod, "Ready");
    if pod.metadata.deletion_timestamp.is_some() || ready.is_some_and(|condition| condition.status == "True") {
        return false;
    }
    let changed = ready.and_then(|condition| condition.last_transition_time.as_ref());
    let since = pod.metadata.creation_timestamp.as_ref().max(changed);
    since.is_some_and(|since| Timestamp::now().as_second() - since.0.as_second() > READY_SECONDS_MAX)
}

/// Returns the newest warning about a claim that has no volume yet.
async fn claim_warning(client: &Client, namespace: &str, name: &str) -> kube::Result<Option<String>> {
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
    let Some(claim) = claims.get_opt(name).await? else { return Ok(None) };
    if claim.status.as_ref().and_then(|status| status.phase.as_deref()) != Some("Pending") {
        return Ok(None);
    }
    let warning = newest_warning(client, namespace, &claim.uid().unwrap_or_default()).await?;
    Ok(warning.map(|message| format!("volume {name}: {message}")))
}

/// Returns the newest warning about an object.
pub(super) async fn newest_warning(client: &Client, namespace: &str, uid: &str) -> kube::Result<Option<String>> {
    warnings(client, namespace, uid).await.map(newest)
}

async fn warnings(client: &Client, namespace: &str, uid: &str) -> kube::Result<Vec<Event>> {
    let events: Api<Event> = Api::namespaced(client.clone(), namespace);
    let about = ListParams::default().fields(&format!("involvedObject.uid={uid},type=Warning"));
    Ok(events.list(&about).await?.items)
}

fn newest(mut events: Vec<Event>) -> Option<String> {
    let time = |event: &Event| {
        let last = event.last_timestamp.as_ref().map(|time| time.0);
        let series = event.event_time.as_ref().map(|time| time.0);
        last.max(series).max(event.metadata.creation_timestamp.as_ref().map(|time| time.0))
    };
    events.sort_by_key(time);
    events.pop().and_then(|event| event.message)
}

/// Returns the trouble of a pod; `None` if the pod is ready or if nothing is known yet.
fn pod_trouble(pod: &Pod) -> Option<Trouble> {
    let name = pod.name_any();
    let status = pod.status.as_ref()?;
    if condition(pod, "Ready").is_some_and(|condition| condition.status == "True") {
        return None;
    }
    let trouble = |reason: &str, text: String, is_wrong| {
        let message = format!("pod {name}: {}", shortened(&text));
        Some(Trouble { reason: reason.to_owned(), message, is_wrong })
    };
    if pod.metadata.deletion_timestamp.is_some() {
        return trouble(TERMINATING, "it is being stopped".to_owned(), false);
    }
    if let (Some("Failed"), reason) = (status.phase.as_deref(), status.reason.as_deref()) {
        let text = status.message.clone().unwrap_or_else(|| "it has failed".to_owned());
        return trouble(reason.unwrap_or("PodFailed"), text, true);
    }
    if let Some(scheduled) = condition(pod, "PodScheduled")
        && scheduled.status == "False"
    {
        let text = scheduled.message.clone().unwrap_or_else(|| "no node takes it".to_owned());
        return trouble(scheduled.reason.as_deref().unwrap_or(UNSCHEDULABLE), text, true);
    }
    let first = containers_trouble(status)?;
    trouble(&first.reason, first.message, first.is_wrong)
}

/// Returns the trouble of the container that keeps the pod from being ready: the broker's, or one that somebody has
/// added to the pod and that the broker's container waits for.
fn containers_trouble(status: &PodStatus) -> Option<Trouble> {
    let (ours, added): (Vec<_>, Vec<_>) =
        status.container_statuses.iter().flatten().partition(|container| container.name == pod::CONTAINER);
    let before = status.init_container_statuses.iter().flatten();
    let waiting = ours.into_iter().chain(before).chain(added).filter(|container| !container.ready);
    let mut all = waiting.filter_map(|container| {
        let trouble = container_trouble(container)?;
        Some(match &*container.name {
            pod::CONTAINER => trouble,
            name => Trouble { message: format!("container {name}: {}", trouble.message), ..trouble },
        })
    });
    let first = all.next()?;
    // A container that needs somebody's help says more than one that only takes its time to start.
    if first.is_wrong { Some(first) } else { Some(all.find(|trouble| trouble.is_wrong).unwrap_or(first)) }
}

/// Returns the trouble of a container that is not ready.
fn container_trouble(container: &ContainerStatus) -> Option<Trouble> {
    let trouble = |reason: &str, message, is_wrong| Some(Trouble { reason: reason.to_owned(), message, is_wrong });
    let state = container.state.as_ref();
    let last = container.last_state.as_ref().and_then(|state| state.terminated.as_ref());
    let ended = state.and_then(|state| state.terminated.as_ref()).or(last);
    let end = ended.map(|end| {
        let words = end.message.as_deref().map(str::trim).filter(|words| !words.is_empty());
        let how =
            format!("it ended with exit code {} ({})", end.exit_code, end.reason.as_deref().unwrap_or("no reason"));
        words.map_or_else(|| how.clone(), |words| format!("{how}: {words}"))
    });
    if let Some(waiting) = state.and_then(|state| state.waiting.as_ref()) {
        // The kubelet gives the first reason after a try and the second one while it waits for the next.
        let reason = match waiting.reason.as_deref() {
            Some("ErrImagePull") => "ImagePullBackOff",
            reason => reason.unwrap_or("ContainerWaiting"),
        };
        let is_wrong = !matches!(reason, CREATING | "PodInitializing");
        // A crash is explained by the last lines that the container printed; the kubelet only says how long it waits.
        let message = match (reason, end) {
            (CRASH, Some(end)) => end,
            _ => waiting.message.clone().unwrap_or_else(|| reason.to_owned()),
        };
        return trouble(reason, message, is_wrong);
    }
    let has_failed = ended.is_some_and(|end| end.exit_code != 0);
    match end {
        // A container that ends again and again is in a crash loop also while it happens to run.
        Some(end) if has_failed && container.restart_count > 1 => trouble(CRASH, end, true),
        Some(end) if state.is_some_and(|state| state.terminated.is_some()) => {
            trouble("ContainerEnded", end, has_failed)
        }
        Some(end) => trouble("Restarting", format!("it was started anew, and is not ready yet; before, {end}"), false),
        None => trouble("Starting", "it runs, and is not ready yet".to_owned(), false),
    }
}

/// Shortens a text to its end, because the last lines of a program say why it ended.
fn shortened(text: &str) -> String {
    let characters = text.chars().count();
    let cut: String = text.chars().skip(characters.saturating_sub(TEXT_MAX)).collect();
    if characters > TEXT_MAX { format!("...{cut}") } else { cut }
}

const CREATING: &str = "ContainerCreating";
const TERMINATING: &str = "PodTerminating";
/// How long a pod may take to be ready before warnings about it count, in seconds.
const READY_SECONDS_MAX: i64 = 15;
const CRASH: &str = "CrashLoopBackOff";
const UNSCHEDULABLE: &str = "Unschedulable";
/// The longest text of a pod in a condition, in characters.
const TEXT_MAX: usize = 800;

#[cfg(test)]
#[path = "pods_tests.rs"]
mod tests;

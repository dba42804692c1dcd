//! Why pods are not ready, in the words of whoever knows: the kubelet, the scheduler, the container itself.
use super::build::{self, pod};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ContainerStatus, Event, PersistentVolumeClaim, Pod, PodStatus};
use k8s_openapi::jiff::Timestamp;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use leveret_api::Broker;

/// What keeps a pod from being ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    /// One word for programs.
    pub(super) reason: String,
    /// For people.
    pub(super) message: String,
    /// It does not pass by itself.
    pub(super) is_wrong: bool,
}

/// What keeps the first pod that is not ready from being so.
pub(super) async fn trouble(client: &Client, broker: &Broker, set: &StatefulSet) -> kube::Result<Option<Trouble>> {
    let namespace = broker.namespace().unwrap_or_default();
    let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    for ordinal in 0..broker.spec.replicas {
        let name = build::pod_name(broker, ordinal);
        let Some(pod) = pods.get_opt(&name).await? else {
            let told = warning(client, &namespace, &set.uid().unwrap_or_default()).await?;
            return Ok(told.map(|message| Trouble { reason: "PodNotCreated".to_owned(), message, is_wrong: true }));
        };
        let trouble = match of_another(&pod, set) {
            Some(trouble) => Some(trouble),
            None => with_warning(client, &pod, of_pod(&pod)).await?,
        };
        let Some(mut trouble) = trouble else { continue };
        if trouble.reason == UNSCHEDULABLE
            && let Some(told) = claim(client, &namespace, &build::claim_name(broker, ordinal)).await?
        {
            trouble.message = format!("{}; {told}", trouble.message);
        }
        return Ok(Some(trouble));
    }
    Ok(None)
}

/// A pod of the name that is not controlled by the StatefulSet: what it says is not about this Broker.
fn of_another(pod: &Pod, set: &StatefulSet) -> Option<Trouble> {
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

/// A pod that is not ready for a while, and that there is a warning about, has the warning in its trouble: a volume that
/// is not mounted, a probe that fails.
async fn with_warning(client: &Client, pod: &Pod, trouble: Option<Trouble>) -> kube::Result<Option<Trouble>> {
    let is_told = trouble.as_ref().is_some_and(|trouble| trouble.is_wrong);
    if is_told || !is_late(pod) {
        return Ok(trouble);
    }
    let (name, uid) = (pod.name_any(), pod.uid().unwrap_or_default());
    let mut events = warnings(client, &pod.namespace().unwrap_or_default(), &uid).await?;
    // It has a node by now.
    events.retain(|event| event.reason.as_deref() != Some("FailedScheduling"));
    let Some(told) = newest(events) else { return Ok(trouble) };
    let unknown = || (CREATING.to_owned(), format!("pod {name}: nothing is known of its containers"));
    let (reason, message) = trouble.map_or_else(unknown, |trouble| (trouble.reason, trouble.message));
    Ok(Some(Trouble { reason, message: format!("{message}; {}", shortened(&told)), is_wrong: true }))
}

/// Whether a pod that is to run is not ready for longer than it takes.
fn is_late(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let ready = conditions.into_iter().find(|condition| condition.type_ == "Ready");
    if pod.metadata.deletion_timestamp.is_some() || ready.is_some_and(|condition| condition.status == "True") {
        return false;
    }
    let changed = ready.and_then(|condition| condition.last_transition_time.as_ref());
    let since = pod.metadata.creation_timestamp.as_ref().max(changed);
    since.is_some_and(|since| Timestamp::now().as_second() - since.0.as_second() > READY_SECONDS_MAX)
}

/// What a claim waits for that has no volume.
async fn claim(client: &Client, namespace: &str, name: &str) -> kube::Result<Option<String>> {
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
    let Some(claim) = claims.get_opt(name).await? else { return Ok(None) };
    if claim.status.as_ref().and_then(|status| status.phase.as_deref()) != Some("Pending") {
        return Ok(None);
    }
    let told = warning(client, namespace, &claim.uid().unwrap_or_default()).await?;
    Ok(told.map(|message| format!("volume {name}: {message}")))
}

/// The newest warning about an object.
pub(super) async fn warning(client: &Client, namespace: &str, uid: &str) -> kube::Result<Option<String>> {
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

/// What keeps a pod from being ready; none if it is, or if nothing is known yet.
pub(super) fn of_pod(pod: &Pod) -> Option<Trouble> {
    let name = pod.name_any();
    let status = pod.status.as_ref()?;
    let condition = |type_: &str| status.conditions.iter().flatten().find(|condition| condition.type_ == type_);
    if condition("Ready").is_some_and(|condition| condition.status == "True") {
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
    if let Some(scheduled) = condition("PodScheduled")
        && scheduled.status == "False"
    {
        let text = scheduled.message.clone().unwrap_or_else(|| "no node takes it".to_owned());
        return trouble(scheduled.reason.as_deref().unwrap_or(UNSCHEDULABLE), text, true);
    }
    let (reason, text, is_wrong) = of_containers(status)?;
    trouble(&reason, text, is_wrong)
}

/// Reason, words, whether it is wrong, of the container that keeps the pod from being ready: the broker, unless others are
/// in its way, which somebody has added to the pod.
fn of_containers(status: &PodStatus) -> Option<(String, String, bool)> {
    let (ours, added): (Vec<_>, Vec<_>) =
        status.container_statuses.iter().flatten().partition(|container| container.name == pod::CONTAINER);
    let before = status.init_container_statuses.iter().flatten();
    let waiting = ours.into_iter().chain(before).chain(added).filter(|container| !container.ready);
    let mut all = waiting.filter_map(|container| {
        let (reason, text, is_wrong) = of_container(container)?;
        let text = match &*container.name {
            pod::CONTAINER => text,
            name => format!("container {name}: {text}"),
        };
        Some((reason, text, is_wrong))
    });
    let first = all.next()?;
    // What is wrong says more than what only takes its time.
    if first.2 { Some(first) } else { Some(all.find(|(.., is_wrong)| *is_wrong).unwrap_or(first)) }
}

/// Reason, words, whether it is wrong.
fn of_container(container: &ContainerStatus) -> Option<(String, String, bool)> {
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
        // The kubelet says the one when it has tried, the other while it waits.
        let reason = match waiting.reason.as_deref() {
            Some("ErrImagePull") => "ImagePullBackOff",
            reason => reason.unwrap_or("ContainerWaiting"),
        };
        let reason = reason.to_owned();
        let is_wrong = !matches!(&*reason, CREATING | "PodInitializing");
        // A crash is told by what the container said last; the kubelet only says how long it waits.
        let words = match (&*reason, end) {
            (CRASH, Some(end)) => end,
            _ => waiting.message.clone().unwrap_or_else(|| reason.clone()),
        };
        return Some((reason, words, is_wrong));
    }
    let has_failed = ended.is_some_and(|end| end.exit_code != 0);
    match end {
        // One that ends again and again crashes in the moment in which it runs too.
        Some(end) if has_failed && container.restart_count > 1 => Some((CRASH.to_owned(), end, true)),
        Some(end) if state.is_some_and(|state| state.terminated.is_some()) => {
            Some(("ContainerEnded".to_owned(), end, has_failed))
        }
        Some(end) => {
            Some(("Restarting".to_owned(), format!("it was started anew, and is not ready yet; before, {end}"), false))
        }
        None => Some(("Starting".to_owned(), "it runs, and is not ready yet".to_owned(), false)),
    }
}

/// The end of a text: a program says last why it ends.
fn shortened(text: &str) -> String {
    let characters = text.chars().count();
    let cut: String = text.chars().skip(characters.saturating_sub(TEXT_MAX)).collect();
    if characters > TEXT_MAX { format!("...{cut}") } else { cut }
}

const CREATING: &str = "ContainerCreating";
const TERMINATING: &str = "PodTerminating";
/// How long a pod may take to be ready before warnings about it are told.
const READY_SECONDS_MAX: i64 = 15;
const CRASH: &str = "CrashLoopBackOff";
const UNSCHEDULABLE: &str = "Unschedulable";
/// Longest text of a pod in a condition, in characters.
const TEXT_MAX: usize = 800;

#[cfg(test)]
#[path = "pods_tests.rs"]
mod tests;

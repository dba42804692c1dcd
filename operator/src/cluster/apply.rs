//! The fourth step: writes the children as they were built, and has volumes grow.
use super::build::Children;
use super::children;
use super::operate::Operation;
use super::pods::Trouble;
use super::problem::Problem;
use super::validate::ImageChoice;
use super::{Work, address, volumes};
use crate::kubernetes::events::Notice;
use k8s_openapi::api::apps::v1::StatefulSet;
use kube::{Resource, ResourceExt};
use leveret_api::Broker;

/// The result of a reconciliation in the cluster. The status of the Broker is derived from it.
#[derive(Default)]
pub(super) struct AppliedChildren {
    /// The StatefulSet as it is now.
    pub(super) set: Option<StatefulSet>,
    /// The image that the pods are to run; `None` while the Broker is paused.
    pub(super) image: Option<ImageChoice>,
    /// The reason why not everything is as specified.
    pub(super) problem: Option<Problem>,
    /// The volume whose growth is awaited, and its size so far.
    pub(super) growing: Option<String>,
    /// The reason why the Service has no address outside the cluster, if it is to have one.
    pub(super) missing_address: Option<Trouble>,
    /// The progress of what takes several steps.
    pub(super) operation: Operation,
}

impl AppliedChildren {
    /// Returns the result for a paused Broker, of which nothing was changed.
    pub(super) fn paused(set: Option<StatefulSet>) -> Self {
        Self { set, ..Self::default() }
    }

    /// Returns the result if nothing was changed because of a problem.
    pub(super) fn refused(set: Option<StatefulSet>, image: ImageChoice, problem: Problem) -> Self {
        Self { set, image: Some(image), problem: Some(problem), ..Self::default() }
    }
}

/// Applies the children; `set` is the StatefulSet that was there before.
pub(super) async fn apply(
    broker: &Broker,
    work: &Work,
    children: Children,
    image: ImageChoice,
    set: Option<StatefulSet>,
) -> kube::Result<AppliedChildren> {
    let client = &work.context.client;
    let inspected = match children::inspect_all(client, broker, children).await? {
        Ok(inspected) => inspected,
        Err(problem) => return Ok(AppliedChildren::refused(set, image, problem)),
    };
    let growth = volumes::grow(work, broker, set.as_ref()).await?;
    // A StatefulSet that is being deleted is not written: the next reconciliation comes when it is gone. A StatefulSet
    // whose volumes cannot grow keeps its claim template, and everything else in it is written.
    let written = children::write(client, inspected, !growth.set_is_deleted).await?;
    let missing_address = match &written.without_address {
        Some(service) => Some(address::missing(client, service).await?),
        None => None,
    };
    // A StatefulSet that is created again around its pods because volumes grow is not announced as new.
    if written.is_new && broker.status.as_ref().is_none_or(|status| status.ready_replicas == 0) {
        let message = format!("StatefulSet {}, its Services and its Secrets were created", broker.name_any());
        work.context.event(&broker.object_ref(&()), Notice::normal("Created", message)).await;
    }
    Ok(AppliedChildren {
        set: written.set.or(set),
        image: Some(image),
        problem: growth.problem.or(written.problem),
        growing: growth.waiting,
        missing_address,
        operation: Operation::default(),
    })
}

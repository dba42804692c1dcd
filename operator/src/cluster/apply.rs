//! The fourth step: the children are brought to what was built, and volumes grow.
use super::build::Children;
use super::children;
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
    /// Why not everything is as specified.
    pub(super) problem: Option<Problem>,
    /// The volume whose growth is awaited, and its size so far.
    pub(super) growing: Option<String>,
    /// Why the Service has no address outside the cluster, if it is to have one.
    pub(super) missing_address: Option<Trouble>,
}

impl AppliedChildren {
    /// Nothing is changed, since the Broker is paused.
    pub(super) fn paused(set: Option<StatefulSet>) -> Self {
        Self { set, ..Self::default() }
    }

    /// Nothing was changed, because of a problem.
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
    // A StatefulSet that is being deleted is not written: its end leads to the next reconciliation. One whose volumes cannot
    // grow keeps its claims as they are and gets everything else.
    let written = children::write(client, inspected, !growth.set_is_deleted).await?;
    let missing_address = match &written.without_address {
        Some(service) => Some(address::missing(client, service).await?),
        None => None,
    };
    // A StatefulSet that is made anew around its pods, since volumes grow, is nothing new.
    if written.is_new && broker.status.as_ref().is_none_or(|status| status.ready_replicas == 0) {
        let message = format!("StatefulSet {}, its Services and its Secrets were made", broker.name_any());
        work.context.event(&broker.object_ref(&()), Notice::normal("Created", message)).await;
    }
    Ok(AppliedChildren {
        set: written.set.or(set),
        image: Some(image),
        problem: growth.problem.or(written.problem),
        growing: growth.waiting,
        missing_address,
    })
}

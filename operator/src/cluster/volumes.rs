//! Enlarges volumes: patches their claims, and then has the StatefulSet created again around its pods, because its
//! claim template cannot be changed.
use super::problem::Problem;
use super::{Work, build};
use crate::kubernetes::events::Notice;
use crate::kubernetes::{only, quantity};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, VolumeResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::api::{DeleteParams, Patch, PatchParams, PropagationPolicy};
use kube::{Api, Resource, ResourceExt};
use leveret_api::Broker;
use serde_json::json;

/// The progress of growing the volumes of a Broker.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Growth {
    /// The reason why the volumes cannot grow.
    pub(super) problem: Option<Problem>,
    /// The volume whose growth is awaited, and its size so far.
    pub(super) waiting: Option<String>,
    /// Set if the StatefulSet is being deleted and must not be written now.
    pub(super) set_is_deleted: bool,
}

impl Growth {
    fn stopped(problem: Problem) -> Self {
        Self { problem: Some(problem), ..Self::default() }
    }
}

/// The progress of growing one volume.
enum ClaimGrowth {
    /// The volume is as large as wanted, or it does not exist yet.
    Done,
    /// The volume is still smaller; the text says its size so far.
    Waiting(String),
    /// The volume cannot grow.
    Stopped(Problem),
}

/// Grows the volumes of a Broker to `spec.storage.size`. Every reconciliation calls this.
pub(super) async fn grow(work: &Work, broker: &Broker, set: Option<&StatefulSet>) -> kube::Result<Growth> {
    let size = &broker.spec.storage.size;
    let Some(wanted) = bytes(size) else {
        let message = format!("spec.storage.size: '{}' is not a size such as 10Gi", size.0);
        return Ok(Growth::stopped(Problem::invalid_spec(message)));
    };
    let mut growth = Growth::default();
    for pod in 0..broker.spec.replicas {
        match grow_claim(work, broker, &build::claim_name(broker, pod), wanted).await? {
            ClaimGrowth::Done => {}
            ClaimGrowth::Waiting(message) => growth.waiting = Some(message),
            ClaimGrowth::Stopped(problem) => return Ok(Growth::stopped(problem)),
        }
    }
    match set {
        Some(set) => remake_set(work, set, wanted, growth).await,
        None => Ok(growth),
    }
}

/// Patches the claim of this name if it asks for less than `wanted` bytes.
async fn grow_claim(work: &Work, broker: &Broker, name: &str, wanted: u128) -> kube::Result<ClaimGrowth> {
    let size = &broker.spec.storage.size;
    let namespace = broker.namespace().unwrap_or_default();
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(work.context.client.clone(), &namespace);
    let Some(claim) = claims.get_opt(name).await? else { return Ok(ClaimGrowth::Done) };
    let requested = requested_bytes(claim.spec.as_ref().and_then(|spec| spec.resources.as_ref())).unwrap_or(wanted);
    if requested > wanted {
        let message = format!(
            "spec.storage.size is {}, but the volume {name} was requested with more: volumes cannot shrink. Set it back",
            size.0
        );
        return Ok(ClaimGrowth::Stopped(Problem::invalid_spec(message)));
    }
    if requested < wanted {
        let larger = json!({"spec": {"resources": {"requests": {"storage": size}}}});
        match claims.patch(name, &PatchParams::default(), &Patch::Merge(&larger)).await {
            Err(kube::Error::Api(refusal)) if matches!(refusal.code, 403 | 422) => {
                let message = format!(
                    "the volume {name} cannot grow to {}: {}. Its storage class must have allowVolumeExpansion: true",
                    size.0, refusal.message
                );
                return Ok(ClaimGrowth::Stopped(Problem::new(CANNOT_GROW, message)));
            }
            patched => drop(patched?),
        }
        let notice = Notice::normal("VolumeGrows", format!("volume {name} grows to {}", size.0));
        work.context.event(&broker.object_ref(&()), notice).await;
    }
    let capacity = claim.status.as_ref().and_then(|status| status.capacity.as_ref());
    let capacity = capacity.and_then(|capacity| capacity.get("storage"));
    Ok(match capacity {
        Some(capacity) if bytes(capacity).is_some_and(|capacity| capacity < wanted) => {
            ClaimGrowth::Waiting(format!("volume {name} has {} of {} so far", capacity.0, size.0))
        }
        _ => ClaimGrowth::Done,
    })
}

/// Deletes the StatefulSet without its pods if the size in its claim template is not `wanted`, so that the next
/// reconciliation creates it again.
async fn remake_set(work: &Work, set: &StatefulSet, wanted: u128, mut growth: Growth) -> kube::Result<Growth> {
    if set.metadata.deletion_timestamp.is_some() {
        growth.set_is_deleted = true;
        return Ok(growth);
    }
    let template =
        set.spec.as_ref().and_then(|spec| spec.volume_claim_templates.as_ref()).and_then(|list| list.first());
    let template = template.and_then(|claim| claim.spec.as_ref()).and_then(|spec| spec.resources.as_ref());
    if requested_bytes(template).is_some_and(|requested| requested != wanted) {
        let sets: Api<StatefulSet> = Api::namespaced(work.context.client.clone(), &set.namespace().unwrap_or_default());
        let orphan = DeleteParams {
            propagation_policy: Some(PropagationPolicy::Orphan), // the pods run on; the next StatefulSet adopts them
            ..only(set.uid())
        };
        match sets.delete(&set.name_any(), &orphan).await {
            Err(kube::Error::Api(refusal)) if matches!(refusal.code, 404 | 409) => {}
            Err(kube::Error::Api(refusal)) if refusal.code == 403 => {
                let message = format!(
                    "the StatefulSet has to be made anew for larger volumes, and the operator may not delete it: {}. \
                     The chart's growVolumes allows it",
                    refusal.message
                );
                return Ok(Growth::stopped(Problem::new(CANNOT_GROW, message)));
            }
            deleted => drop(deleted?),
        }
        growth.set_is_deleted = true;
    }
    Ok(growth)
}

fn requested_bytes(resources: Option<&VolumeResourceRequirements>) -> Option<u128> {
    resources?.requests.as_ref()?.get("storage").and_then(bytes)
}

/// Reads a quantity in bytes, rounded up; `None` if the text is no quantity, or negative.
fn bytes(quantity: &Quantity) -> Option<u128> {
    quantity::units(&quantity.0)
}

/// The reason if the storage class or the operator's rights do not allow volumes to grow.
const CANNOT_GROW: &str = "VolumesCannotGrow";

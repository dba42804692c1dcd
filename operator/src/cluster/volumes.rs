//! Volumes that are to be larger: the claims grow, then the StatefulSet is made anew around its pods, since its template of
//! claims cannot be changed.
use super::status::Problem;
use super::{Work, build};
use crate::kubernetes::quantity;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, VolumeResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions, PropagationPolicy};
use kube::{Api, Resource, ResourceExt};
use leveret_api::Broker;
use serde_json::json;

/// Where growing has come to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Growth {
    /// What cannot be done.
    pub(super) problem: Option<Problem>,
    /// What is being waited for.
    pub(super) waiting: Option<String>,
    /// The StatefulSet is on its way out, and is not to be applied now.
    pub(super) set_goes: bool,
}

impl Growth {
    fn problem(reason: &str, message: String) -> Self {
        Self { problem: Some(Problem::new(reason, message)), ..Self::default() }
    }
}

/// Has the volumes of `broker` as large as it says. Run again until nothing is waited for.
pub(super) async fn grow(work: &Work, broker: &Broker, set: Option<&StatefulSet>) -> kube::Result<Growth> {
    let size = &broker.spec.storage.size;
    let Some(wanted) = bytes(size) else {
        let message = format!("spec.storage.size: '{}' is no size such as 10Gi", size.0);
        return Ok(Growth::problem("InvalidSpec", message));
    };
    let client = &work.context.client;
    let namespace = broker.namespace().unwrap_or_default();
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &namespace);
    let mut growth = Growth::default();
    for pod in 0..broker.spec.replicas {
        let name = build::claim_name(broker, pod);
        let Some(claim) = claims.get_opt(&name).await? else { continue };
        let asked = requested(claim.spec.as_ref().and_then(|spec| spec.resources.as_ref())).unwrap_or(wanted);
        if asked > wanted {
            let message = format!(
                "spec.storage.size is {}, the volume {name} was asked for with more: volumes cannot shrink. Set it to what it was",
                size.0
            );
            return Ok(Growth::problem("InvalidSpec", message));
        }
        if asked < wanted {
            let larger = json!({"spec": {"resources": {"requests": {"storage": size}}}});
            match claims.patch(&name, &PatchParams::default(), &Patch::Merge(&larger)).await {
                Err(kube::Error::Api(refusal)) if matches!(refusal.code, 403 | 422) => {
                    let message = format!(
                        "the volume {name} cannot grow to {}: {}. Its storage class has to have allowVolumeExpansion",
                        size.0, refusal.message
                    );
                    return Ok(Growth::problem("VolumesCannotGrow", message));
                }
                patched => drop(patched?),
            }
            let note = format!("volume {name} grows to {}", size.0);
            work.context.event(&broker.object_ref(&()), false, "VolumeGrows", note).await;
        }
        let capacity = claim.status.as_ref().and_then(|status| status.capacity.as_ref());
        let capacity = capacity.and_then(|capacity| capacity.get("storage"));
        if capacity.and_then(bytes).is_some_and(|capacity| capacity < wanted) {
            let has = capacity.map_or("", |capacity| &capacity.0);
            growth.waiting = Some(format!("volume {name} has {has} of {} so far", size.0));
        }
    }
    match set {
        Some(set) => remake(work, set, wanted, growth).await,
        None => Ok(growth),
    }
}

/// Takes the StatefulSet away around its pods, if its template of claims is not as large as is `wanted`.
async fn remake(work: &Work, set: &StatefulSet, wanted: u128, mut growth: Growth) -> kube::Result<Growth> {
    if set.metadata.deletion_timestamp.is_some() {
        growth.set_goes = true;
        return Ok(growth);
    }
    let template =
        set.spec.as_ref().and_then(|spec| spec.volume_claim_templates.as_ref()).and_then(|list| list.first());
    let template = template.and_then(|claim| claim.spec.as_ref()).and_then(|spec| spec.resources.as_ref());
    if requested(template).is_some_and(|had| had != wanted) {
        let sets: Api<StatefulSet> = Api::namespaced(work.context.client.clone(), &set.namespace().unwrap_or_default());
        let orphan = DeleteParams {
            propagation_policy: Some(PropagationPolicy::Orphan), // its pods run on, and are the next one's
            preconditions: Some(Preconditions { uid: set.uid(), ..Preconditions::default() }),
            ..DeleteParams::default()
        };
        match sets.delete(&set.name_any(), &orphan).await {
            Err(kube::Error::Api(refusal)) if matches!(refusal.code, 404 | 409) => {}
            Err(kube::Error::Api(refusal)) if refusal.code == 403 => {
                let message = format!(
                    "the StatefulSet has to be made anew for larger volumes, and the operator may not delete it: {}. \
                     The chart's growVolumes allows it",
                    refusal.message
                );
                return Ok(Growth::problem("VolumesCannotGrow", message));
            }
            deleted => drop(deleted?),
        }
        growth.set_goes = true;
    }
    Ok(growth)
}

fn requested(resources: Option<&VolumeResourceRequirements>) -> Option<u128> {
    resources?.requests.as_ref()?.get("storage").and_then(bytes)
}

/// A quantity in bytes, rounded up; none if it is none, or negative.
fn bytes(quantity: &Quantity) -> Option<u128> {
    quantity::units(&quantity.0)
}

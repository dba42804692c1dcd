//! Volumes that are to be larger: the claims grow, then the StatefulSet is made anew around its pods, since its template of
//! claims cannot be changed.
use super::{Work, build};
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
    /// Reason and message of what cannot be done.
    pub(super) problem: Option<(&'static str, String)>,
    /// What is being waited for.
    pub(super) waiting: Option<String>,
    /// The StatefulSet is on its way out, and is not to be applied now.
    pub(super) set_goes: bool,
}

impl Growth {
    fn problem(reason: &'static str, message: String) -> Self {
        Self { problem: Some((reason, message)), ..Self::default() }
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
    let Some(set) = set else { return Ok(growth) };
    if set.metadata.deletion_timestamp.is_some() {
        growth.set_goes = true;
        return Ok(growth);
    }
    let template =
        set.spec.as_ref().and_then(|spec| spec.volume_claim_templates.as_ref()).and_then(|list| list.first());
    let template = template.and_then(|claim| claim.spec.as_ref()).and_then(|spec| spec.resources.as_ref());
    if requested(template).is_some_and(|had| had != wanted) {
        let sets: Api<StatefulSet> = Api::namespaced(client.clone(), &namespace);
        let orphan = DeleteParams {
            propagation_policy: Some(PropagationPolicy::Orphan), // its pods run on, and are the next one's
            preconditions: Some(Preconditions { uid: set.uid(), ..Preconditions::default() }),
            ..DeleteParams::default()
        };
        match sets.delete(&set.name_any(), &orphan).await {
            Err(kube::Error::Api(refusal)) if matches!(refusal.code, 404 | 409) => {}
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
/// Source: <https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/>.
fn bytes(quantity: &Quantity) -> Option<u128> {
    let text = quantity.0.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let number: f64 = number.parse().ok()?;
    let exponent = || suffix.strip_prefix(['e', 'E'])?.parse::<i32>().ok();
    let factor = match suffix {
        "" => 1.0,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 1024.0,
        "Mi" => 1024f64.powi(2),
        "Gi" => 1024f64.powi(3),
        "Ti" => 1024f64.powi(4),
        "Pi" => 1024f64.powi(5),
        "Ei" => 1024f64.powi(6),
        _ => 10f64.powi(exponent()?),
    };
    Some((number * factor).ceil() as u128)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read() {
        for (text, expected) in [
            ("10Gi", Some(10 << 30)),
            ("1.5Ki", Some(1536)),
            ("320Mi", Some(320 << 20)),
            ("2G", Some(2_000_000_000)),
            ("1e3", Some(1000)),
            ("2E", Some(2_000_000_000_000_000_000)),
            ("512", Some(512)),
            ("lots", None),
            ("", None),
            ("-1Gi", None),
            ("10Gb", None),
        ] {
            assert_eq!(bytes(&Quantity(text.to_owned())), expected, "{text}");
        }
    }
}

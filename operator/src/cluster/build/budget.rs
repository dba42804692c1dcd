//! The PodDisruptionBudget: a drain of nodes evicts one pod at a time, and only while all others are ready, so that a
//! majority of the members stays up.
use super::{label_selector, meta};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;
use leveret_api::Broker;

pub(super) fn build(broker: &Broker) -> PodDisruptionBudget {
    PodDisruptionBudget {
        metadata: meta(broker, broker.name_any()),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(label_selector(broker)),
            ..PodDisruptionBudgetSpec::default()
        }),
        ..PodDisruptionBudget::default()
    }
}

//! The StatefulSet: each pod has a name and a volume of its own.
use super::{Secrets, config, label_selector, meta, pod, service};
use k8s_openapi::api::apps::v1::{
    StatefulSet, StatefulSetPersistentVolumeClaimRetentionPolicy, StatefulSetSpec, StatefulSetUpdateStrategy,
};
use k8s_openapi::api::core::v1::{
    ConfigMap, PersistentVolumeClaim, PersistentVolumeClaimSpec, PodSpec, VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use leveret_api::{Broker, Retention};

pub(super) fn build(broker: &Broker, pod: PodSpec, config: &ConfigMap, secrets: &Secrets) -> StatefulSet {
    let when_deleted = match broker.spec.storage.retention {
        Retention::Retain => "Retain",
        Retention::Delete => "Delete",
    };
    let spec = StatefulSetSpec {
        replicas: Some(broker.spec.replicas),
        service_name: Some(service::nodes_name(broker)),
        pod_management_policy: Some("Parallel".to_owned()),
        selector: label_selector(broker),
        template: pod::template(broker, pod, &config::hash(config), secrets),
        volume_claim_templates: Some(vec![claim(broker)]),
        persistent_volume_claim_retention_policy: Some(StatefulSetPersistentVolumeClaimRetentionPolicy {
            when_deleted: Some(when_deleted.to_owned()),
            // The operator deletes the volume of a member only once that has left the cluster.
            when_scaled: Some("Retain".to_owned()),
        }),
        revision_history_limit: Some(10),
        // The StatefulSet would replace a pod while another one is not ready: the operator restarts them (see `rollout`).
        update_strategy: Some(StatefulSetUpdateStrategy { type_: Some("OnDelete".to_owned()), rolling_update: None }),
        ..StatefulSetSpec::default()
    };
    StatefulSet { metadata: meta(broker, broker.name_any()), spec: Some(spec), ..StatefulSet::default() }
}

fn claim(broker: &Broker) -> PersistentVolumeClaim {
    let storage = &broker.spec.storage;
    let requests = [("storage".to_owned(), storage.size.clone())];
    PersistentVolumeClaim {
        metadata: ObjectMeta { name: Some(pod::DATA.to_owned()), ..ObjectMeta::default() },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
            storage_class_name: storage.class_name.clone(),
            resources: Some(VolumeResourceRequirements { requests: Some(requests.into()), ..Default::default() }),
            ..PersistentVolumeClaimSpec::default()
        }),
        ..PersistentVolumeClaim::default()
    }
}

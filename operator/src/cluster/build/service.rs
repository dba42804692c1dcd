//! The Services: one for clients, one for management and metrics, and one that gives each pod a name.
use super::{AMQP, CLUSTER, HTTP, METRICS, meta, selector};
use crate::kubernetes::child::OURS;
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;
use leveret_api::{Broker, ServiceType};

/// Returns the Service that clients connect to. Outside the cluster it publishes only AMQP, because management and
/// metrics are unencrypted and metrics need no password.
pub(super) fn clients(broker: &Broker) -> Service {
    let (kind, is_inside) = match broker.spec.service.kind {
        ServiceType::ClusterIP => ("ClusterIP", true),
        ServiceType::NodePort => ("NodePort", false),
        ServiceType::LoadBalancer => ("LoadBalancer", false),
    };
    let mut metadata = meta(broker, broker.name_any());
    let mut annotations = broker.spec.service.annotations.clone();
    let names: Vec<_> = annotations.keys().cloned().collect();
    annotations.insert(OURS.to_owned(), names.join(" "));
    metadata.annotations = Some(annotations);
    let inside = [port("http", HTTP, "http"), port("metrics", METRICS, "http")];
    let ports = [port("amqp", AMQP, "amqp")].into_iter().chain(inside.into_iter().filter(|_| is_inside));
    let spec = ServiceSpec {
        type_: Some(kind.to_owned()),
        selector: Some(selector(broker)),
        session_affinity: Some("None".to_owned()),
        ports: Some(ports.collect()),
        load_balancer_source_ranges: Some(broker.spec.service.load_balancer_source_ranges.clone())
            .filter(|ranges| !ranges.is_empty()),
        ..ServiceSpec::default()
    };
    Service { metadata, spec: Some(spec), ..Service::default() }
}

/// Returns the Service for management and metrics, which is reachable inside the cluster only.
pub(super) fn management(broker: &Broker) -> Service {
    let spec = ServiceSpec {
        type_: Some("ClusterIP".to_owned()),
        selector: Some(selector(broker)),
        session_affinity: Some("None".to_owned()),
        ports: Some(vec![port("http", HTTP, "http"), port("metrics", METRICS, "http")]),
        ..ServiceSpec::default()
    };
    Service { metadata: meta(broker, management_name(broker)), spec: Some(spec), ..Service::default() }
}

/// Returns the headless Service, which gives each pod a DNS name, even before the pod is ready.
pub(super) fn nodes(broker: &Broker) -> Service {
    let spec = ServiceSpec {
        type_: Some("ClusterIP".to_owned()),
        cluster_ip: Some("None".to_owned()),
        publish_not_ready_addresses: Some(true),
        selector: Some(selector(broker)),
        session_affinity: Some("None".to_owned()),
        ports: Some(vec![port("amqp", AMQP, "amqp"), port("http", HTTP, "http"), port("cluster", CLUSTER, "tcp")]),
        ..ServiceSpec::default()
    };
    Service { metadata: meta(broker, nodes_name(broker)), spec: Some(spec), ..Service::default() }
}

pub(crate) fn management_name(broker: &Broker) -> String {
    format!("{}-management", broker.name_any())
}

pub(super) fn nodes_name(broker: &Broker) -> String {
    format!("{}-nodes", broker.name_any())
}

/// Returns the part of the address of each node that follows the name of its pod.
pub(super) fn nodes_host(broker: &Broker) -> String {
    format!("{}.{}.svc:{CLUSTER}", nodes_name(broker), broker.namespace().unwrap_or_default())
}

fn port(name: &str, port: i32, protocol: &str) -> ServicePort {
    ServicePort {
        name: Some(name.to_owned()),
        port,
        protocol: Some("TCP".to_owned()),
        target_port: Some(IntOrString::String(name.to_owned())),
        app_protocol: Some(protocol.to_owned()),
        ..ServicePort::default()
    }
}

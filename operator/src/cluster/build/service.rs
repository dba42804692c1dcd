//! The Services: one for clients, one that names each pod.
use super::{AMQP, HTTP, METRICS, meta, selector};
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;
use leveret_api::{Broker, ServiceType};

/// What clients connect to.
pub(super) fn clients(broker: &Broker) -> Service {
    let kind = match broker.spec.service.kind {
        ServiceType::ClusterIP => "ClusterIP",
        ServiceType::NodePort => "NodePort",
        ServiceType::LoadBalancer => "LoadBalancer",
    };
    let mut metadata = meta(broker, broker.name_any());
    metadata.annotations = Some(broker.spec.service.annotations.clone()).filter(|annotations| !annotations.is_empty());
    let spec = ServiceSpec {
        type_: Some(kind.to_owned()),
        selector: Some(selector(broker)),
        ports: Some(vec![port("amqp", AMQP, "amqp"), port("http", HTTP, "http"), port("metrics", METRICS, "http")]),
        ..ServiceSpec::default()
    };
    Service { metadata, spec: Some(spec), ..Service::default() }
}

/// A name for each pod, also before it is ready.
pub(super) fn nodes(broker: &Broker) -> Service {
    let spec = ServiceSpec {
        cluster_ip: Some("None".to_owned()),
        publish_not_ready_addresses: Some(true),
        selector: Some(selector(broker)),
        ports: Some(vec![port("amqp", AMQP, "amqp"), port("http", HTTP, "http")]),
        ..ServiceSpec::default()
    };
    Service { metadata: meta(broker, nodes_name(broker)), spec: Some(spec), ..Service::default() }
}

pub(super) fn nodes_name(broker: &Broker) -> String {
    format!("{}-nodes", broker.name_any())
}

fn port(name: &str, port: i32, protocol: &str) -> ServicePort {
    ServicePort {
        name: Some(name.to_owned()),
        port,
        target_port: Some(IntOrString::String(name.to_owned())),
        app_protocol: Some(protocol.to_owned()),
        ..ServicePort::default()
    }
}

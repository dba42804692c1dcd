//! A load balancer that has no address yet, and the reason in the words of the controller that has to give it one.
use super::pods::{self, Trouble};
use kube::api::DynamicObject;
use kube::{Client, ResourceExt};

/// Returns whether a child is a Service that waits for the address of a load balancer.
pub(super) fn is_awaited(child: &DynamicObject) -> bool {
    let is_empty = |list: &serde_json::Value| list.as_array().is_none_or(Vec::is_empty);
    child.data["spec"]["type"] == "LoadBalancer" && is_empty(&child.data["status"]["loadBalancer"]["ingress"])
}

/// Returns why a Service has no address. The trouble counts as wrong if there is a warning about the Service.
pub(super) async fn missing(client: &Client, service: &DynamicObject) -> kube::Result<Trouble> {
    let name = service.name_any();
    let namespace = service.namespace().unwrap_or_default();
    let warning = pods::newest_warning(client, &namespace, &service.uid().unwrap_or_default()).await?;
    let why = warning.clone().unwrap_or_else(|| "it waits for the cluster's load balancer, if there is one".to_owned());
    let message = format!("Service {name} has no address outside the cluster yet: {why}");
    Ok(Trouble { reason: "NoAddress".to_owned(), message, is_wrong: warning.is_some() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::fake::Fake;
    use serde_json::json;

    fn service(kind: &str, ingress: &serde_json::Value) -> DynamicObject {
        let meta = json!({"name": "shop", "namespace": "trade", "uid": "s"});
        let service =
            json!({"metadata": meta, "spec": {"type": kind}, "status": {"loadBalancer": {"ingress": ingress}}});
        serde_json::from_value(service).unwrap()
    }

    #[tokio::test]
    async fn a_load_balancer_without_an_address_is_explained_by_the_warning_about_it() {
        let none = json!(null);
        assert!(is_awaited(&service("LoadBalancer", &none)) && !is_awaited(&service("ClusterIP", &none)));
        assert!(!is_awaited(&service("LoadBalancer", &json!([{"ip": "192.0.2.1"}]))));
        let fake = Fake::default();
        let waits = missing(&fake.client(), &service("LoadBalancer", &none)).await.unwrap();
        assert!(!waits.is_wrong && waits.message.contains("Service shop"), "{waits:?}");
        let event = json!({"metadata": {"name": "a"}, "involvedObject": {"uid": "s"}, "message": "quota of addresses exceeded", "type": "Warning"});
        fake.put("/api/v1/namespaces/trade/events/a", event);
        let wrong = missing(&fake.client(), &service("LoadBalancer", &none)).await.unwrap();
        assert!(wrong.is_wrong && wrong.message.ends_with("quota of addresses exceeded"), "{wrong:?}");
    }
}

//! Resources that the operator cannot read: stored by the API server, of another shape than this operator expects. Each is
//! told so in its conditions and passed over; the others are looked after all the same.
use super::{Context, apply, conditions};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::{ApiResource, DynamicObject};
use kube::core::error_boundary::InvalidObject;
use kube::{Api, Resource};
use leveret_api::{Condition, FINALIZER};
use serde::de::DeserializeOwned;
use serde_json::json;
use std::fmt::Debug;

/// Tells a resource that it cannot be read. One that is being deleted is let go: nobody can tell what it stands for.
pub(crate) async fn report<K>(context: &Context, invalid: &InvalidObject)
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + DeserializeOwned + Clone + Debug,
{
    let meta = &invalid.metadata;
    let (namespace, name) = (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default());
    let what = format!("{} {namespace}/{name}", K::kind(&()));
    let message = message(&K::kind(&()), &invalid.error);
    let place = (namespace, name);
    let written = if meta.deletion_timestamp.is_some() {
        let finalizers = meta.finalizers.clone().unwrap_or_default();
        let left: Vec<_> = finalizers.iter().filter(|name| *name != FINALIZER).cloned().collect();
        if left.len() == finalizers.len() {
            return;
        }
        apply::finalizers::<K>(&context.client, place, meta.resource_version.as_deref(), &left).await
    } else {
        let api: Api<DynamicObject> =
            Api::namespaced_with(context.client.clone(), namespace, &ApiResource::erase::<K>(&()));
        let before = match api.get_opt(name).await {
            Ok(Some(object)) => said(&object),
            Ok(None) => return,
            Err(error) => return tracing::warn!("{what} cannot be looked at: {error}"),
        };
        let condition = conditions::condition(&before, "Ready", ("False", UNREADABLE, &message), meta.generation);
        if before.contains(&condition) {
            return;
        }
        let status = json!({"observedGeneration": meta.generation, "conditions": [condition]});
        apply::status::<K>(&context.client, place, &status).await
    };
    tracing::warn!("{what} is passed over: {message}");
    if let Err(error) = written {
        tracing::warn!("{what} cannot be told so in its status: {error}");
    }
    let about = ObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(K::kind(&()).into_owned()),
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        uid: meta.uid.clone(),
        ..ObjectReference::default()
    };
    context.event(&about, true, UNREADABLE, message).await;
}

/// What is wrong with a resource, in a sentence.
pub(crate) fn message(kind: &str, error: &str) -> String {
    format!(
        "this operator cannot read the {kind}: {error}. Correct the field, or bring the operator to the version of its definitions"
    )
}

fn said(object: &DynamicObject) -> Vec<Condition> {
    serde_json::from_value(object.data["status"]["conditions"].clone()).unwrap_or_default()
}

/// The reason in a condition and an event.
pub(crate) const UNREADABLE: &str = "Unreadable";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::fake::Fake;
    use kube::core::DeserializeGuard;
    use leveret_api::Broker;

    #[tokio::test]
    async fn a_list_with_one_object_that_cannot_be_read_is_read() {
        let path = "/apis/leveret.dev/v1alpha1/namespaces/n/brokers/bad";
        let bad = json!({
            "apiVersion": "leveret.dev/v1alpha1", "kind": "Broker",
            "metadata": {"name": "bad", "namespace": "n", "uid": "u", "generation": 1},
            "spec": {"storage": {"size": null}},
        });
        let good =
            json!({"apiVersion": "leveret.dev/v1alpha1", "kind": "Broker", "metadata": {"name": "good"}, "spec": {}});
        let list: Vec<DeserializeGuard<Broker>> = serde_json::from_value(json!([bad, good])).unwrap();
        assert!(list[0].0.is_err() && list[1].0.is_ok());

        let fake = Fake::default();
        fake.put(path, bad);
        let context = Context::new(fake.client(), Vec::new(), "i", crate::metrics::Metrics::new().unwrap());
        let invalid = list[0].0.clone().unwrap_err();
        for expected in [1, 0] {
            report::<Broker>(&context, &invalid).await;
            let writes = fake.writes();
            assert_eq!(writes.iter().filter(|write| write.ends_with("/status")).count(), expected, "{writes:?}");
        }
        let condition = fake.get(path).unwrap()["status"]["conditions"][0].clone();
        assert_eq!((&condition["status"], &condition["reason"]), (&json!("False"), &json!(UNREADABLE)));
        assert!(condition["message"].as_str().unwrap().contains("Quantity"), "{condition}");
    }
}

//! Resources that the operator cannot read: the API server has stored them, but this operator expects another
//! structure. A condition and an event say so, and all other resources are processed as usual.
use super::events::Notice;
use super::place::Place;
use super::{Context, apply, conditions};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Resource;
use kube::core::error_boundary::InvalidObject;
use leveret_api::{Condition, FINALIZER};
use serde_json::{Value, json};

/// Writes the condition and records the event of a resource that cannot be read. If the resource is being deleted,
/// removes our finalizer instead of blocking the deletion: nobody can say which object the resource stands for.
pub(crate) async fn report<K>(context: &Context, invalid: &InvalidObject)
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
{
    let meta = &invalid.metadata;
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    let place = Place::of::<K>(namespace, meta.name.as_deref().unwrap_or_default());
    let message = message(&K::kind(&()), &invalid.error);
    let written = if meta.deletion_timestamp.is_some() {
        let finalizers = meta.finalizers.clone().unwrap_or_default();
        let left: Vec<_> = finalizers.iter().filter(|name| *name != FINALIZER).cloned().collect();
        if left.len() == finalizers.len() {
            return;
        }
        apply::finalizers(&context.client, &place, meta.resource_version.as_deref(), &left).await
    } else {
        let status = match apply::current_status(&context.client, &place).await {
            Ok(status) => status,
            Err(kube::Error::Api(refusal)) if refusal.code == 404 => return,
            Err(error) => return tracing::warn!("the status of {place} cannot be read: {error}"),
        };
        let Some(status) = with_condition(status, &message, meta.generation) else { return };
        apply::status(&context.client, &place, &status).await
    };
    tracing::warn!("{place} is passed over: {message}");
    if let Err(error) = written {
        tracing::warn!("{place} cannot be written: {error}");
    }
    let about = ObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(K::kind(&()).into_owned()),
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        uid: meta.uid.clone(),
        ..ObjectReference::default()
    };
    context.event(&about, Notice::warning(UNREADABLE, message)).await;
}

/// Returns the message of the condition.
pub(crate) fn message(kind: &str, error: &str) -> String {
    format!("this operator cannot read the {kind}: {error}. Correct the field, or upgrade the operator")
}

/// Returns the status with the condition in it, or `None` if it has the condition already. Everything else in the status
/// stays: a field that is not applied again would be removed.
fn with_condition(mut status: Value, message: &str, generation: Option<i64>) -> Option<Value> {
    let mut all: Vec<Condition> = serde_json::from_value(status["conditions"].take()).unwrap_or_default();
    let state = conditions::State::new("False", UNREADABLE, message);
    let condition = conditions::condition(&all, "Ready", state, generation);
    if all.contains(&condition) {
        return None;
    }
    all.retain(|other| other.type_ != condition.type_);
    all.push(condition);
    status["observedGeneration"] = json!(generation);
    status["conditions"] = json!(all);
    Some(status)
}

/// The reason of the condition and the event.
pub(crate) const UNREADABLE: &str = "Unreadable";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::fake::Fake;
    use crate::kubernetes::guard::Guard;
    use crate::topology::kinds::{Kind, KindVisitor, visit_kinds};
    use leveret_api::Broker;

    #[tokio::test]
    async fn a_list_with_one_object_that_cannot_be_read_is_read() {
        let path = "/apis/leveret.dev/v1alpha1/namespaces/n/brokers/bad";
        let bad = json!({
            "apiVersion": "leveret.dev/v1alpha1", "kind": "Broker",
            "metadata": {"name": "bad", "namespace": "n", "uid": "u", "generation": 1},
            "spec": {"storage": {"size": null}},
            "status": {
                "defaultImage": "kept:1", "binding": {"name": "bad-default-user"},
                "conditions": [
                    {"type": "Ready", "status": "True", "reason": "AllPodsReady", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"},
                    {"type": "Degraded", "status": "False", "reason": "AsSpecified", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"},
                ],
            },
        });
        let good =
            json!({"apiVersion": "leveret.dev/v1alpha1", "kind": "Broker", "metadata": {"name": "good"}, "spec": {}});
        let list: Vec<Guard<Broker>> = serde_json::from_value(json!([bad, good])).unwrap();
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
        let status = fake.get(path).unwrap()["status"].clone();
        assert_eq!(
            (&status["defaultImage"], &status["binding"]["name"]),
            (&json!("kept:1"), &json!("bad-default-user"))
        );
        let conditions = status["conditions"].as_array().unwrap();
        assert_eq!((conditions.len(), &conditions[0]["type"]), (2, &json!("Degraded")), "the others stay");
        let condition = &conditions[1];
        assert_eq!((&condition["status"], &condition["reason"]), (&json!("False"), &json!(UNREADABLE)));
        assert!(condition["message"].as_str().unwrap().contains("Quantity"), "{condition}");
    }

    /// Adds fields that the definitions do not have to the sample of each kind.
    struct NewerFields;

    impl KindVisitor for NewerFields {
        fn visit<K: Kind>(&mut self) {
            let samples = include_str!("../../../config/samples/topology.yaml").split("\n---\n");
            let mut samples = samples.map(|text| serde_saphyr::from_str::<Value>(text).unwrap());
            let sample = samples.find(|sample| sample["kind"] == *K::kind(&()));
            let mut sample = sample.unwrap_or_else(|| panic!("config/samples: there is no {}", K::kind(&())));
            sample["spec"]["brokerRef"]["region"] = json!("new");
            sample["spec"]["newer"] = json!("default");
            let read: Guard<K> = serde_json::from_value(sample).unwrap();
            assert!(read.0.is_ok(), "{:?}", read.0);
        }
    }

    #[test]
    fn fields_of_newer_definitions_are_ignored() {
        visit_kinds(&mut NewerFields);
        let newer = json!({"newer": 1});
        let spec = json!({
            "newer": 1, "storage": newer, "resources": newer, "service": newer, "topology": newer, "podTemplate": newer,
        });
        let object =
            json!({"apiVersion": "leveret.dev/v1alpha1", "kind": "Broker", "metadata": {"name": "a"}, "spec": spec});
        assert!(serde_json::from_value::<Guard<Broker>>(object).unwrap().0.is_ok());
    }
}

//! An object, or the reason why it cannot be read: one unreadable object must not make a whole list unreadable.
//!
//! An object is first taken as raw text, because finding its end takes no recursion. A parser that descended into the
//! object would give up at the 128th level of nesting, and with it the whole list or event that contains the object,
//! although the other objects in it are readable.
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Resource;
use kube::core::error_boundary::InvalidObject;
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Error};
use serde_json::value::RawValue;
use std::borrow::Cow;

/// An object, or the reason why it cannot be read.
#[derive(Clone, Debug)]
pub(crate) struct Guard<K>(pub(crate) Result<K, InvalidObject>);

/// The part of an object that has to be readable: its identity. Managed fields are left out, because they are nested as
/// deeply as the object itself.
#[derive(Deserialize)]
struct PartialObject {
    metadata: PartialMetadata,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PartialMetadata {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    generation: Option<i64>,
    deletion_timestamp: Option<Time>,
    finalizers: Option<Vec<String>>,
}

impl<'de, K: DeserializeOwned + Resource> Deserialize<'de> for Guard<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Box::<RawValue>::deserialize(deserializer)?;
        let error = match serde_json::from_str(text.get()) {
            Ok(object) => return Ok(Self(Ok(object))),
            Err(error) => error.to_string(),
        };
        let PartialObject { metadata } = serde_json::from_str(text.get()).map_err(D::Error::custom)?;
        let metadata = ObjectMeta {
            name: metadata.name,
            namespace: metadata.namespace,
            uid: metadata.uid,
            resource_version: metadata.resource_version,
            generation: metadata.generation,
            deletion_timestamp: metadata.deletion_timestamp,
            finalizers: metadata.finalizers,
            ..ObjectMeta::default()
        };
        Ok(Self(Err(InvalidObject { error, metadata })))
    }
}

impl<K: Resource> Resource for Guard<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(dt: &K::DynamicType) -> Cow<'_, str> {
        K::kind(dt)
    }

    fn group(dt: &K::DynamicType) -> Cow<'_, str> {
        K::group(dt)
    }

    fn version(dt: &K::DynamicType) -> Cow<'_, str> {
        K::version(dt)
    }

    fn plural(dt: &K::DynamicType) -> Cow<'_, str> {
        K::plural(dt)
    }

    fn meta(&self) -> &ObjectMeta {
        self.0.as_ref().map_or_else(|invalid| &invalid.metadata, K::meta)
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.0.as_mut().map_or_else(|invalid| &mut invalid.metadata, K::meta_mut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::api::ObjectList;
    use kube::core::WatchEvent;
    use leveret_api::Queue;

    #[test]
    fn an_object_of_many_levels_keeps_no_other_from_being_read() {
        let queue = |name: &str, arguments: &str| {
            format!(
                r#"{{"apiVersion":"leveret.dev/v1alpha1","kind":"Queue","metadata":{{"name":"{name}","namespace":"n","uid":"{name}",
                "generation":3,"managedFields":[{{"fieldsV1":{arguments}}}],"finalizers":["f"]}},
                "spec":{{"brokerRef":{{"name":"shop"}},"arguments":{arguments}}}}}"#
            )
        };
        let deep = format!("{}1{}", r#"{"a":"#.repeat(130), "}".repeat(130));
        let (bad, good) = (queue("bad", &deep), queue("good", "{}"));
        let list = format!(
            r#"{{"kind":"QueueList","apiVersion":"leveret.dev/v1alpha1","metadata":{{}},"items":[{bad},{good}]}}"#
        );
        let list: ObjectList<Guard<Queue>> = serde_json::from_str(&list).unwrap();
        let invalid = list.items[0].0.as_ref().unwrap_err();
        assert!(invalid.error.contains("recursion limit"), "{invalid}");
        assert_eq!((invalid.metadata.name.as_deref(), invalid.metadata.generation), (Some("bad"), Some(3)));
        assert_eq!(list.items[1].0.as_ref().unwrap().spec.broker_ref.name, "shop");
        let event = format!(r#"{{"type":"ADDED","object":{bad}}}"#);
        let event: WatchEvent<Guard<Queue>> = serde_json::from_str(&event).unwrap();
        let WatchEvent::Added(object) = event else { panic!("it was added") };
        assert_eq!((object.0.is_err(), object.meta().name.as_deref()), (true, Some("bad")));
        assert!(serde_json::from_str::<Guard<Queue>>("{}").is_err(), "it is no object");
    }
}

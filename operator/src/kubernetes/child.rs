//! Child objects of an owner. They are read before they are written, restored when somebody has edited them, and never
//! taken from another owner.
//!
//! An object belongs to its owner if the owner controls it according to the owner references, which name the owner by
//! uid. Any other object of the same name belongs to somebody else and stays as it is. An object is created by POST,
//! which fails if somebody else has created it meanwhile, and changed by PUT of the version that was read. The wanted
//! fields replace those of the object, including whole lists, because a merge would keep entries that somebody has
//! added. The fields that the API server fills in by itself ([`FILLED_IN`]) stay, and so do labels and annotations that
//! others put on the object.
use super::place::Place;
use super::quantity;
use k8s_openapi::NamespaceResourceScope;
use kube::api::{DynamicObject, PostParams};
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde_json::{Map, Value, json};

/// A child object as its owner wants it.
#[derive(Clone, Debug)]
pub(crate) struct Child {
    pub(crate) place: Place,
    wanted: Value,
}

/// A part of a child that cannot be changed.
pub(crate) struct KeptPart {
    pub(crate) wanted: Value,
    pub(crate) present: Value,
}

/// The result of looking for an owner's object at a place.
#[derive(Clone, Debug)]
pub(crate) enum Ownership {
    /// There is no object.
    Missing,
    /// The owner controls the object.
    Ours(Box<DynamicObject>),
    /// There is an object that the owner does not control. The text says who controls it.
    Foreign(String),
}

/// Reads the object at a place, and returns whether the owner with the uid `owner` controls it.
pub(crate) async fn inspect(place: &Place, client: &Client, owner: &str) -> kube::Result<Ownership> {
    let object = api(place, client).get_opt(&place.name).await?;
    Ok(object.map_or(Ownership::Missing, |object| ownership(object, owner)))
}

fn api(place: &Place, client: &Client) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), &place.namespace, &place.resource)
}

impl Child {
    /// Makes a child of an object that has its name, its namespace and its owner reference.
    pub(crate) fn new<K>(object: &K) -> Result<Self, serde_json::Error>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Serialize,
    {
        let meta = object.meta();
        let place =
            Place::of::<K>(meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default());
        let mut wanted = serde_json::to_value(object)?;
        wanted["apiVersion"] = json!(place.resource.api_version);
        wanted["kind"] = json!(place.resource.kind);
        Ok(Self { place, wanted: without_nulls(wanted) })
    }

    /// Gives up a change of a part that cannot be changed: the wanted part becomes the part of the existing object.
    /// Returns both, or `None` if the owner does not control an object there or one of the two has no such part.
    pub(crate) fn keep(&mut self, ownership: &Ownership, part: &str) -> Option<KeptPart> {
        let Ownership::Ours(object) = ownership else { return None };
        let present = object.data.pointer(part)?.clone();
        let wanted = self.wanted.pointer_mut(part)?;
        Some(KeptPart { wanted: std::mem::replace(wanted, present.clone()), present })
    }

    /// Creates the object, or changes it to what is wanted, and returns it as it is then. Writes nothing if nothing
    /// differs, and returns `None` if the object there belongs to somebody else.
    ///
    /// # Errors
    /// The API server refuses the object. The code is 409 if somebody else has written it meanwhile.
    pub(crate) async fn write(&self, client: &Client, ownership: &Ownership) -> kube::Result<Option<DynamicObject>> {
        let api = api(&self.place, client);
        let parameters = PostParams { field_manager: Some(super::MANAGER.to_owned()), ..PostParams::default() };
        match ownership {
            Ownership::Foreign(_) => Ok(None),
            Ownership::Missing => {
                let object = serde_json::from_value(self.wanted.clone()).map_err(kube::Error::SerdeError)?;
                api.create(&parameters, &object).await.map(Some)
            }
            Ownership::Ours(object) => {
                let present = serde_json::to_value(object).map_err(kube::Error::SerdeError)?;
                let next = put_back(&present, &self.wanted);
                if next == present {
                    return Ok(Some((**object).clone()));
                }
                let next = serde_json::from_value(next).map_err(kube::Error::SerdeError)?;
                api.replace(&self.place.name, &parameters, &next).await.map(Some)
            }
        }
    }
}

fn ownership(object: DynamicObject, owner: &str) -> Ownership {
    let references = object.metadata.owner_references.iter().flatten();
    match references.clone().find(|reference| reference.controller == Some(true)) {
        Some(reference) if reference.uid == owner => Ownership::Ours(Box::new(object)),
        Some(reference) => Ownership::Foreign(format!("it is controlled by {} {}", reference.kind, reference.name)),
        None => Ownership::Foreign("nobody controls it".to_owned()),
    }
}

/// Returns the present object with all wanted fields restored.
fn put_back(present: &Value, wanted: &Value) -> Value {
    let mut next = present.clone();
    let Some(fields) = next.as_object_mut() else { return wanted.clone() };
    for (name, value) in wanted.as_object().into_iter().flatten() {
        let field = match (&**name, fields.get(name)) {
            ("metadata", Some(present)) => meta(present, value),
            // Keys that others have added to a Secret are theirs.
            ("data", Some(present)) if wanted["kind"] == "Secret" => merged(present, value),
            (_, Some(present)) => replaced(present, value, false),
            (_, None) => value.clone(),
        };
        fields.insert(name.clone(), field);
    }
    next
}

/// Merges metadata, which others write too: adds the wanted entries, and removes the annotations that were wanted
/// before and are not any more.
fn meta(present: &Value, wanted: &Value) -> Value {
    let mut next = present.clone();
    for name in ["labels", "annotations", "ownerReferences"] {
        let Some(value) = wanted.get(name) else { continue };
        let present = &present[name];
        next[name] = if name == "ownerReferences" { references(present, value) } else { merged(present, value) };
    }
    let before = present["annotations"][OURS].as_str().unwrap_or_default();
    for name in before.split_whitespace().filter(|name| wanted["annotations"].get(*name).is_none()) {
        if let Some(annotations) = next["annotations"].as_object_mut() {
            annotations.remove(name);
        }
    }
    next
}

/// Merges owner references by uid: the wanted ones, and those that others have added.
fn references(present: &Value, wanted: &Value) -> Value {
    let (present, wanted) = (present.as_array(), wanted.as_array());
    let uid = |reference: &Value| reference["uid"].clone();
    let find = |other: &Value| wanted.into_iter().flatten().find(|reference| uid(reference) == uid(other)).cloned();
    let mut next: Vec<_> =
        present.into_iter().flatten().map(|other| find(other).unwrap_or_else(|| other.clone())).collect();
    let missing = |reference: &&Value| !present.into_iter().flatten().any(|other| uid(other) == uid(reference));
    next.extend(wanted.into_iter().flatten().filter(missing).cloned());
    Value::Array(next)
}

fn merged(present: &Value, wanted: &Value) -> Value {
    let mut fields: Map<String, Value> = present.as_object().cloned().unwrap_or_default();
    fields.extend(wanted.as_object().cloned().unwrap_or_default());
    Value::Object(fields)
}

/// Returns the wanted value. Of the present one, only the fields that the API server fills in are kept. Texts below
/// `requests` and `limits` are compared as quantities.
fn replaced(present: &Value, wanted: &Value, are_quantities: bool) -> Value {
    match (present, wanted) {
        (Value::Object(present), Value::Object(wanted)) => {
            let kept = present.iter().filter(|(field, _)| FILLED_IN.contains(&&***field));
            let mut next: Map<String, Value> = kept.map(|(field, value)| (field.clone(), value.clone())).collect();
            for (field, value) in wanted {
                let are_quantities = are_quantities || matches!(&**field, "requests" | "limits");
                let present = present.get(field);
                let value = present.map_or_else(|| value.clone(), |present| replaced(present, value, are_quantities));
                next.insert(field.clone(), value);
            }
            Value::Object(next)
        }
        (Value::Array(present), Value::Array(wanted)) => {
            // An entry with a name is compared with the present entry of the same name, at whatever position that is.
            let find = |at: usize, entry: &Value| match entry.get("name") {
                Some(name) => present.iter().find(|other| other.get("name") == Some(name)),
                None => present.get(at),
            };
            let entry = |(at, entry): (usize, &Value)| {
                find(at, entry).map_or_else(|| entry.clone(), |present| replaced(present, entry, false))
            };
            Value::Array(wanted.iter().enumerate().map(entry).collect())
        }
        (Value::String(text), Value::String(wanted)) if are_quantities && is_same_quantity(text, wanted) => {
            present.clone()
        }
        _ => wanted.clone(),
    }
}

/// Returns whether two texts are the same quantity: the API server writes 1024Mi as 1Gi.
fn is_same_quantity(a: &str, b: &str) -> bool {
    quantity::milli(a).is_some_and(|a| quantity::milli(b) == Some(a))
}

/// Removes the fields that are null, because nothing is wanted for them.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(fields.map(|(name, value)| (name, without_nulls(value))).collect())
        }
        Value::Array(list) => Value::Array(list.into_iter().map(without_nulls).collect()),
        other => other,
    }
}

/// The annotation that lists the annotations that the owner's spec asks for.
pub(crate) const OURS: &str = "leveret.dev/annotations";

/// The fields that the API server and the providers of load balancers fill in if they are not set: defaults, and values
/// that they allocate. `externalIPs` is not among them, because it can divert the traffic of others.
const FILLED_IN: [&str; 35] = [
    // A Service.
    "allocateLoadBalancerNodePorts",
    "clusterIP",
    "clusterIPs",
    "externalTrafficPolicy",
    "healthCheckNodePort",
    "internalTrafficPolicy",
    "ipFamilies",
    "ipFamilyPolicy",
    "loadBalancerClass",
    "loadBalancerIP",
    "nodePort",
    "protocol",
    "sessionAffinity",
    // A StatefulSet, its pods and its claims.
    "apiVersion",
    "creationTimestamp",
    "defaultMode",
    "dnsPolicy",
    "failureThreshold",
    "kind",
    "kubectl.kubernetes.io/restartedAt",
    "matchLabelKeys",
    "nodeAffinityPolicy",
    "nodeTaintsPolicy",
    "periodSeconds",
    "restartPolicy",
    "revisionHistoryLimit",
    "scheme",
    "schedulerName",
    "serviceAccount",
    "status",
    "successThreshold",
    "terminationMessagePath",
    "timeoutSeconds",
    "updateStrategy",
    "volumeMode",
];

#[cfg(test)]
#[path = "child_tests.rs"]
mod tests;

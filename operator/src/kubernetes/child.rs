//! The objects that an owner consists of: looked at before they are touched, put back when they were edited, and never taken
//! from somebody else.
//!
//! An object belongs to its owner when the owner controls it: its owner references say so, by uid. Everything else of the
//! same name is another's, and stays as it is. An object is created by POST, which fails if somebody was faster, and
//! changed by PUT of the version that was looked at. What is wanted replaces what is there down to the last entry of a
//! list, since a merge would keep what somebody has added to it; what the API server fills in by itself stays
//! ([`FILLED_IN`]), and so do the labels and annotations that others put on the object.
use super::quantity;
use k8s_openapi::NamespaceResourceScope;
use kube::api::{ApiResource, DynamicObject, PostParams};
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde_json::{Map, Value, json};

/// Which object: its kind and its name.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    resource: ApiResource,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

/// An object as its owner wants it.
#[derive(Clone, Debug)]
pub(crate) struct Child {
    pub(crate) place: Place,
    wanted: Value,
}

/// Whose an object is.
#[derive(Clone, Debug)]
pub(crate) enum Standing {
    /// There is none of that name.
    Missing,
    /// The owner's.
    Ours(Box<DynamicObject>),
    /// Another's: who controls it, in words.
    Foreign(String),
}

impl Place {
    pub(crate) fn of<K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>>(
        namespace: &str,
        name: &str,
    ) -> Self {
        Self { resource: ApiResource::erase::<K>(&()), namespace: namespace.to_owned(), name: name.to_owned() }
    }

    pub(crate) fn kind(&self) -> &str {
        &self.resource.kind
    }

    /// Whose the object is, if there is one; `owner` is a uid.
    pub(crate) async fn look(&self, client: &Client, owner: &str) -> kube::Result<Standing> {
        let found = self.api(client).get_opt(&self.name).await?;
        Ok(match found {
            None => Standing::Missing,
            Some(object) => standing(object, owner),
        })
    }

    fn api(&self, client: &Client) -> Api<DynamicObject> {
        Api::namespaced_with(client.clone(), &self.namespace, &self.resource)
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}/{}", self.resource.kind, self.namespace, self.name)
    }
}

impl Child {
    /// An object as it is wanted, with its name, its namespace and its owner.
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
        Ok(Self { place, wanted: without_nothing(wanted) })
    }

    /// Takes over a part of the object that is there, which cannot be changed; what was wanted of it, and what there is.
    pub(crate) fn keep(&mut self, standing: &Standing, part: &str) -> Option<(Value, Value)> {
        let Standing::Ours(object) = standing else { return None };
        let is = object.data.pointer(part)?.clone();
        let wanted = self.wanted.pointer_mut(part)?;
        Some((std::mem::replace(wanted, is.clone()), is))
    }

    /// Has the object as it is wanted, if it is missing or the owner's; it as it is then. Nothing is written when nothing
    /// differs.
    ///
    /// # Errors
    /// What the API server refuses; 409 when somebody was faster.
    pub(crate) async fn write(&self, client: &Client, standing: &Standing) -> kube::Result<Option<DynamicObject>> {
        let api = self.place.api(client);
        let parameters = PostParams { field_manager: Some(super::MANAGER.to_owned()), ..PostParams::default() };
        match standing {
            Standing::Foreign(_) => Ok(None),
            Standing::Missing => {
                let object = serde_json::from_value(self.wanted.clone()).map_err(kube::Error::SerdeError)?;
                api.create(&parameters, &object).await.map(Some)
            }
            Standing::Ours(object) => {
                let is = serde_json::to_value(object).map_err(kube::Error::SerdeError)?;
                let next = put_back(&is, &self.wanted);
                if next == is {
                    return Ok(Some((**object).clone()));
                }
                let next = serde_json::from_value(next).map_err(kube::Error::SerdeError)?;
                api.replace(&self.place.name, &parameters, &next).await.map(Some)
            }
        }
    }
}

fn standing(object: DynamicObject, owner: &str) -> Standing {
    let references = object.metadata.owner_references.iter().flatten();
    match references.clone().find(|reference| reference.controller == Some(true)) {
        Some(reference) if reference.uid == owner => Standing::Ours(Box::new(object)),
        Some(reference) => Standing::Foreign(format!("it is controlled by {} {}", reference.kind, reference.name)),
        None => Standing::Foreign("nobody controls it".to_owned()),
    }
}

/// The object that is there, with all in it that is wanted.
fn put_back(is: &Value, wanted: &Value) -> Value {
    let mut next = is.clone();
    let Some(fields) = next.as_object_mut() else { return wanted.clone() };
    for (name, value) in wanted.as_object().into_iter().flatten() {
        let field = match (&**name, fields.get(name)) {
            ("metadata", Some(is)) => meta(is, value),
            // Keys that others have added to a Secret are theirs.
            ("data", Some(is)) if wanted["kind"] == "Secret" => added(is, value),
            (_, Some(is)) => exactly(is, value, false),
            (_, None) => value.clone(),
        };
        fields.insert(name.clone(), field);
    }
    next
}

/// Metadata belongs to everybody: what is wanted is added; the annotations that were wanted before and are not any more
/// are taken away.
fn meta(is: &Value, wanted: &Value) -> Value {
    let mut next = is.clone();
    for name in ["labels", "annotations", "ownerReferences"] {
        let Some(value) = wanted.get(name) else { continue };
        next[name] = if name == "ownerReferences" { references(&is[name], value) } else { added(&is[name], value) };
    }
    let before = is["annotations"][OURS].as_str().unwrap_or_default();
    for name in before.split_whitespace().filter(|name| wanted["annotations"].get(*name).is_none()) {
        if let Some(annotations) = next["annotations"].as_object_mut() {
            annotations.remove(name);
        }
    }
    next
}

/// The owner references that are wanted, and those that others have added: one is another if its uid is.
fn references(is: &Value, wanted: &Value) -> Value {
    let (is, wanted) = (is.as_array(), wanted.as_array());
    let uid = |reference: &Value| reference["uid"].clone();
    let find = |other: &Value| wanted.into_iter().flatten().find(|reference| uid(reference) == uid(other)).cloned();
    let mut next: Vec<_> = is.into_iter().flatten().map(|other| find(other).unwrap_or_else(|| other.clone())).collect();
    let missing = |reference: &&Value| !is.into_iter().flatten().any(|other| uid(other) == uid(reference));
    next.extend(wanted.into_iter().flatten().filter(missing).cloned());
    Value::Array(next)
}

fn added(is: &Value, wanted: &Value) -> Value {
    let mut fields: Map<String, Value> = is.as_object().cloned().unwrap_or_default();
    fields.extend(wanted.as_object().cloned().unwrap_or_default());
    Value::Object(fields)
}

/// What is wanted, and of what is there only what the API server fills in. Texts are quantities below requests and limits.
fn exactly(is: &Value, wanted: &Value, are_quantities: bool) -> Value {
    match (is, wanted) {
        (Value::Object(is), Value::Object(wanted)) => {
            let kept = is.iter().filter(|(field, _)| FILLED_IN.contains(&&***field));
            let mut next: Map<String, Value> = kept.map(|(field, value)| (field.clone(), value.clone())).collect();
            for (field, value) in wanted {
                let are_quantities = are_quantities || matches!(&**field, "requests" | "limits");
                let value = is.get(field).map_or_else(|| value.clone(), |is| exactly(is, value, are_quantities));
                next.insert(field.clone(), value);
            }
            Value::Object(next)
        }
        (Value::Array(is), Value::Array(wanted)) => {
            // An entry that has a name is compared with the one of that name, wherever it stands.
            let find = |at: usize, entry: &Value| match entry.get("name") {
                Some(name) => is.iter().find(|other| other.get("name") == Some(name)),
                None => is.get(at),
            };
            let entry = |(at, entry): (usize, &Value)| {
                find(at, entry).map_or_else(|| entry.clone(), |is| exactly(is, entry, false))
            };
            Value::Array(wanted.iter().enumerate().map(entry).collect())
        }
        (Value::String(is_text), Value::String(text)) if are_quantities && same_quantity(is_text, text) => is.clone(),
        _ => wanted.clone(),
    }
}

/// The API server writes quantities in its own way: 1024Mi as 1Gi.
fn same_quantity(a: &str, b: &str) -> bool {
    quantity::milli(a).is_some_and(|a| quantity::milli(b) == Some(a))
}

/// Fields without a value are no wish.
fn without_nothing(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(fields.map(|(name, value)| (name, without_nothing(value))).collect())
        }
        Value::Array(list) => Value::Array(list.into_iter().map(without_nothing).collect()),
        other => other,
    }
}

/// An annotation that lists the annotations that the owner's spec asks for.
pub(crate) const OURS: &str = "leveret.dev/annotations";

/// What the API server and the providers of load balancers fill in where nothing is said: defaults, and what they allocate.
/// `externalIPs` is not among them: it takes traffic of others.
const FILLED_IN: [&str; 37] = [
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
    "partition",
    "periodSeconds",
    "restartPolicy",
    "revisionHistoryLimit",
    "rollingUpdate",
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

//! Writes of what is the operator's own in a resource: its status, its finalizers.
use super::MANAGER;
use k8s_openapi::NamespaceResourceScope;
use kube::api::{Patch, PatchParams};
use kube::core::DeserializeGuard;
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fmt::Debug;

/// Applies the status of an object; its version then. The object itself need not be readable.
pub(crate) async fn status<K>(
    client: &Client,
    (namespace, name): (&str, &str),
    status: &impl Serialize,
) -> kube::Result<Option<String>>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + DeserializeOwned + Clone + Debug,
{
    let api: Api<DeserializeGuard<K>> = Api::namespaced(client.clone(), namespace);
    let value: Value = json!({"apiVersion": K::api_version(&()), "kind": K::kind(&()), "status": status});
    let applied = api.patch_status(name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&value)).await?;
    Ok(applied.meta().resource_version.clone())
}

/// Sets the finalizers of an object, unless it has changed since `resource_version`; its version then.
pub(crate) async fn finalizers<K>(
    client: &Client,
    (namespace, name): (&str, &str),
    resource_version: Option<&str>,
    finalizers: &[String],
) -> kube::Result<Option<String>>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + DeserializeOwned + Clone + Debug,
{
    let api: Api<DeserializeGuard<K>> = Api::namespaced(client.clone(), namespace);
    let value = json!({"metadata": {"finalizers": finalizers, "resourceVersion": resource_version}});
    let patched = api.patch(name, &PatchParams::default(), &Patch::Merge(&value)).await?;
    Ok(patched.meta().resource_version.clone())
}

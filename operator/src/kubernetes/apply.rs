//! Writes of what is the operator's own in a resource: its status, its finalizers.
use super::MANAGER;
use k8s_openapi::NamespaceResourceScope;
use kube::api::{GetParams, Patch, PatchParams, Request};
use kube::core::request::Error as RequestError;
use kube::{Client, Resource};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Applies the status of an object; its version then. The object itself need not be readable.
pub(crate) async fn status<K>(
    client: &Client,
    (namespace, name): (&str, &str),
    status: &impl Serialize,
) -> kube::Result<Option<String>>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
{
    let value: Value = json!({"apiVersion": K::api_version(&()), "kind": K::kind(&()), "status": status});
    let (patch, parameters) = (Patch::Apply(&value), PatchParams::apply(MANAGER).force());
    let request = resource::<K>(namespace).patch_subresource("status", name, &parameters, &patch);
    version(client, request, "patch_status").await
}

/// The status of an object that need not be readable itself.
pub(crate) async fn status_of<K>(client: &Client, (namespace, name): (&str, &str)) -> kube::Result<Value>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
{
    let request = resource::<K>(namespace).get(name, &GetParams::default());
    let mut request = request.map_err(kube::Error::BuildRequest)?;
    request.extensions_mut().insert("get");
    let object: WithStatus = client.request(request).await?;
    Ok(object.status)
}

/// Sets the finalizers of an object, unless it has changed since `resource_version`; its version then.
pub(crate) async fn finalizers<K>(
    client: &Client,
    (namespace, name): (&str, &str),
    resource_version: Option<&str>,
    finalizers: &[String],
) -> kube::Result<Option<String>>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
{
    let value = json!({"metadata": {"finalizers": finalizers, "resourceVersion": resource_version}});
    let request = resource::<K>(namespace).patch(name, &PatchParams::default(), &Patch::Merge(&value));
    version(client, request, "patch").await
}

fn resource<K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>>(namespace: &str) -> Request {
    Request::new(K::url_path(&(), Some(namespace)))
}

/// The version that a write has made. Nothing else of the answer is read: the object may be one that cannot be.
async fn version(
    client: &Client,
    request: Result<http::Request<Vec<u8>>, RequestError>,
    call: &'static str,
) -> kube::Result<Option<String>> {
    let mut request = request.map_err(kube::Error::BuildRequest)?;
    request.extensions_mut().insert(call);
    let written: Written = client.request(request).await?;
    Ok(written.metadata.resource_version)
}

#[derive(Deserialize)]
struct WithStatus {
    #[serde(default)]
    status: Value,
}

#[derive(Deserialize)]
struct Written {
    metadata: Version,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    resource_version: Option<String>,
}

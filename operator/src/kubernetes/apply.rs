//! Writes to the parts of a resource that belong to the operator: its status and its finalizers. This works even for a
//! resource that the operator cannot read.
use super::MANAGER;
use super::place::Place;
use kube::api::{DynamicObject, GetParams, Patch, PatchParams, Request};
use kube::core::request::Error as RequestError;
use kube::{Client, Resource};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Applies the status of a resource and returns the version that the write made.
pub(crate) async fn status(client: &Client, place: &Place, status: &impl Serialize) -> kube::Result<Option<String>> {
    let resource = &place.resource;
    let value: Value = json!({"apiVersion": resource.api_version, "kind": resource.kind, "status": status});
    let (patch, parameters) = (Patch::Apply(&value), PatchParams::apply(MANAGER).force());
    let patch = request(place).patch_subresource("status", &place.name, &parameters, &patch);
    send(client, patch, "patch_status").await
}

/// Reads the status of a resource.
pub(crate) async fn current_status(client: &Client, place: &Place) -> kube::Result<Value> {
    let get = request(place).get(&place.name, &GetParams::default());
    let mut get = get.map_err(kube::Error::BuildRequest)?;
    get.extensions_mut().insert("get");
    let resource: WithStatus = client.request(get).await?;
    Ok(resource.status)
}

/// Sets the finalizers of a resource unless it has changed since `resource_version`, and returns the version that the
/// write made.
pub(crate) async fn finalizers(
    client: &Client,
    place: &Place,
    resource_version: Option<&str>,
    finalizers: &[String],
) -> kube::Result<Option<String>> {
    let value = json!({"metadata": {"finalizers": finalizers, "resourceVersion": resource_version}});
    let patch = request(place).patch(&place.name, &PatchParams::default(), &Patch::Merge(&value));
    send(client, patch, "patch").await
}

fn request(place: &Place) -> Request {
    Request::new(DynamicObject::url_path(&place.resource, Some(&place.namespace)))
}

/// Sends a write and returns the version that it made. Nothing else of the answer is read, because the operator may be
/// unable to read the resource.
async fn send(
    client: &Client,
    request: Result<http::Request<Vec<u8>>, RequestError>,
    call: &'static str,
) -> kube::Result<Option<String>> {
    let mut request = request.map_err(kube::Error::BuildRequest)?;
    request.extensions_mut().insert(call);
    let written: WithVersion = client.request(request).await?;
    Ok(written.metadata.resource_version)
}

#[derive(Deserialize)]
struct WithStatus {
    #[serde(default)]
    status: Value,
}

#[derive(Deserialize)]
struct WithVersion {
    metadata: VersionMeta,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct VersionMeta {
    resource_version: Option<String>,
}

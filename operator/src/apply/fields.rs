//! Finds fields that a kind does not have. An object from a cluster may have fields of a newer definition, so the types
//! ignore unknown fields. A file that a person has written is compared with the definition of its kind instead.
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaProps;
use kube::CustomResourceExt;
use serde_json::Value;

/// A field that the definition does not have.
pub(super) struct UnknownField {
    pub(super) name: String,
    /// The names of the fields that the definition has in this place.
    pub(super) known: Vec<String>,
}

/// Returns the first field in the spec of a resource that the definition of its kind does not have.
pub(super) fn unknown<K: CustomResourceExt>(spec: &Value) -> Option<UnknownField> {
    let version = K::crd().spec.versions.into_iter().next()?;
    let root = version.schema?.open_api_v3_schema?;
    below(spec, root.properties?.get("spec")?)
}

fn below(value: &Value, schema: &JSONSchemaProps) -> Option<UnknownField> {
    let (Value::Object(fields), Some(known)) = (value, &schema.properties) else { return None };
    if schema.x_kubernetes_preserve_unknown_fields == Some(true) {
        return None;
    }
    fields.iter().find_map(|(name, value)| match known.get(name) {
        Some(schema) => below(value, schema),
        None => Some(UnknownField { name: name.clone(), known: known.keys().cloned().collect() }),
    })
}

//! Fields that a kind does not have. Types let them pass, as the API server does before the operator sees them; what a person
//! has written is compared with the definition of its kind.
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaProps;
use serde_json::Value;

/// A field that the definition does not have.
pub(super) struct Unknown {
    pub(super) name: String,
    /// The fields that there are instead, by name.
    pub(super) known: Vec<String>,
}

/// The first field in the spec of a `kind` that its definition does not have.
pub(super) fn unknown(kind: &str, spec: &Value) -> Option<Unknown> {
    let definition = leveret_api::crds().into_iter().find(|definition| definition.spec.names.kind == kind)?;
    let version = definition.spec.versions.into_iter().next()?;
    let root = version.schema?.open_api_v3_schema?;
    below(spec, root.properties?.get("spec")?)
}

fn below(value: &Value, schema: &JSONSchemaProps) -> Option<Unknown> {
    let (Value::Object(fields), Some(known)) = (value, &schema.properties) else { return None };
    if schema.x_kubernetes_preserve_unknown_fields == Some(true) {
        return None;
    }
    fields.iter().find_map(|(name, value)| match known.get(name) {
        Some(schema) => below(value, schema),
        None => Some(Unknown { name: name.clone(), known: known.keys().cloned().collect() }),
    })
}

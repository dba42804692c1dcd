//! The ConfigMap with the broker's own configuration file.
use super::meta;
use crate::cluster::problem::Problem;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use leveret_api::Broker;

/// The name of the file in the ConfigMap.
pub(super) const FILE: &str = "leveret.toml";

pub(super) fn name(broker: &Broker) -> String {
    format!("{}-config", broker.name_any())
}

/// Writes `spec.config` as the configuration file.
///
/// # Errors
/// A key that the operator sets itself, or a value that TOML does not have.
pub(in crate::cluster) fn build(broker: &Broker) -> Result<ConfigMap, Problem> {
    let config = broker.spec.config.clone().unwrap_or_default();
    if let Some(key) = OURS.iter().find(|key| config.contains_key(**key)) {
        return Err(Problem::invalid_spec(format!("spec.config: {key} is set by the operator")));
    }
    let unwritable =
        |error: toml::ser::Error| Problem::invalid_spec(format!("spec.config cannot be written as TOML: {error}"));
    let text = toml::to_string(&config).map_err(unwritable)?;
    let text = format!("# Made of spec.config by leveret-operator.\n{text}");
    Ok(ConfigMap {
        metadata: meta(broker, name(broker)),
        data: Some([(FILE.to_owned(), text)].into()),
        ..ConfigMap::default()
    })
}

/// The keys that the operator sets itself, by arguments and variables of the container.
const OURS: [&str; 6] = ["data_dir", "amqp", "http", "metrics", "default_user", "default_pass"];

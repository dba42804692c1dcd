//! The ConfigMap with the broker's own configuration file.
use super::meta;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use leveret_api::Broker;

/// Name of the file.
pub(super) const FILE: &str = "leveret.toml";

pub(super) fn name(broker: &Broker) -> String {
    format!("{}-config", broker.name_any())
}

/// The file out of `spec.config`; keys that the operator sets itself are refused.
pub(super) fn build(broker: &Broker) -> Result<ConfigMap, String> {
    let config = broker.spec.config.clone().unwrap_or_default();
    if let Some(key) = OURS.iter().find(|key| config.contains_key(**key)) {
        return Err(format!("spec.config: {key} is set by the operator"));
    }
    let text = toml::to_string(&config).map_err(|error| format!("spec.config cannot be written as TOML: {error}"))?;
    let text = format!("# Made of spec.config by leveret-operator.\n{text}");
    Ok(ConfigMap {
        metadata: meta(broker, name(broker)),
        data: Some([(FILE.to_owned(), text)].into()),
        ..ConfigMap::default()
    })
}

const OURS: [&str; 6] = ["data_dir", "amqp", "http", "metrics", "default_user", "default_pass"];

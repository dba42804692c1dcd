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

/// Writes `spec.config` and the nodes of the cluster as the configuration file.
///
/// The nodes are in the file, and not in the pods, because their number can change: pods that run are members already and
/// need not be restarted. The list always has all members, so that a node that has lost its volume never forms a cluster
/// of its own beside them.
///
/// # Errors
/// A key that the operator sets itself, or a value that TOML does not have.
pub(in crate::cluster) fn build(broker: &Broker) -> Result<ConfigMap, Problem> {
    let config = broker.spec.config.clone().unwrap_or_default();
    if let Some(key) = config.keys().find(|key| OURS.contains(&&***key) || key.starts_with("cluster_")) {
        return Err(Problem::invalid_spec(format!("spec.config: {key} is set by the operator")));
    }
    let unwritable =
        |error: toml::ser::Error| Problem::invalid_spec(format!("spec.config cannot be written as TOML: {error}"));
    let text = toml::to_string(&config).map_err(unwritable)?;
    let peers: Vec<_> = (0..broker.spec.replicas).map(|pod| super::node_address(broker, pod)).collect();
    let cluster_name = format!("{}/{}", broker.namespace().unwrap_or_default(), broker.name_any());
    // Ours come first, because what follows a table of spec.config would belong to that table.
    let cluster =
        toml::Table::from_iter([("cluster_name".to_owned(), cluster_name.into()), ("peer".to_owned(), peers.into())]);
    let cluster = toml::to_string(&cluster).map_err(unwritable)?;
    let text = format!("# Made by leveret-operator: the nodes of the cluster\n{cluster}{OF_SPEC}{text}");
    Ok(ConfigMap {
        metadata: meta(broker, name(broker)),
        data: Some([(FILE.to_owned(), text)].into()),
        ..ConfigMap::default()
    })
}

/// Returns a hash of the part of the file that is made of `spec.config` (FNV-1a). The list of nodes does not count.
pub(super) fn hash(config: &ConfigMap) -> String {
    let text = config.data.iter().flat_map(|data| data.values());
    let text = text.filter_map(|text| text.split_once(OF_SPEC)).flat_map(|(_, text)| text.bytes());
    format!(
        "{:016x}",
        text.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
    )
}

/// The line before the part that is made of `spec.config`.
const OF_SPEC: &str = "# Made of spec.config by leveret-operator\n";
/// The keys that the operator sets itself, in this file or by arguments and variables of the container. It sets those that
/// begin with `cluster_`, too.
const OURS: [&str; 9] =
    ["data_dir", "amqp", "http", "metrics", "default_user", "default_pass", "node_name", "peer", "join"];

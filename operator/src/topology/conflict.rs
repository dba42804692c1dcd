//! Decides which of two resources that want the same object on a broker owns it: the older one. The newer one reports
//! the name of the older one. Pure.
use super::resource::{ResourceKey, TopologyResource};
use std::collections::HashMap;
use std::sync::Arc;

/// Returns for each resource the key of the one that owns the wanted object, or `None` if that is the resource itself.
pub(super) fn owners(resources: &[Arc<TopologyResource>]) -> Vec<Option<ResourceKey>> {
    let mut owners: HashMap<_, &Arc<TopologyResource>> = HashMap::new();
    for resource in resources {
        let owner = owners.entry(resource.wanted.identity()).or_insert(resource);
        // A resource that is being deleted gives way to one that stays.
        if (resource.deleting, &resource.age) < (owner.deleting, &owner.age) {
            *owner = resource;
        }
    }
    let other_owner = |resource: &Arc<TopologyResource>| {
        let owner = owners[&resource.wanted.identity()];
        (owner.key != resource.key).then(|| owner.key.clone())
    };
    resources.iter().map(other_owner).collect()
}

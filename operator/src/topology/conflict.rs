//! Two resources that want the same thing on a broker: the older has it, the newer hears whose it is.
use super::object::{Key, Object};
use std::collections::HashMap;
use std::sync::Arc;

/// For each object, the one that has what it wants, if that is another.
pub(super) fn owners(objects: &[Arc<Object>]) -> Vec<Option<Key>> {
    let mut oldest: HashMap<_, &Arc<Object>> = HashMap::new();
    for object in objects {
        let holder = oldest.entry(object.wanted.identity()).or_insert(object);
        // One that is being deleted gives way to one that stays.
        if (object.deleting, &object.age) < (holder.deleting, &holder.age) {
            *holder = object;
        }
    }
    let owner = |object: &Arc<Object>| {
        let holder = oldest[&object.wanted.identity()];
        (holder.key != object.key).then(|| holder.key.clone())
    };
    objects.iter().map(owner).collect()
}

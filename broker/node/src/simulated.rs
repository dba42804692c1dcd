//! What simulations look at in a node: how far each of its replicas is, and a digest of its state.
use crate::Broker;
use crate::apply::Applier;
use leveret_replication::{GroupId, GroupStates};

/// The state of one group on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaView {
    /// Number of the group.
    pub group: GroupId,
    /// Index of the last entry that is in the state; `None` if there is none.
    pub applied: Option<u64>,
    /// Checksum of the state after that entry.
    pub digest: u32,
}

impl Broker {
    /// Returns the state of each group on this node; nothing before storage is open.
    #[must_use]
    pub fn replicas(&self) -> Vec<ReplicaView> {
        let Some(storage) = self.node().storage.get() else { return Vec::new() };
        let applier = Applier::new(&self.0, storage.shards.clone(), storage.replicas.clone());
        let view = |group| {
            let state = applier.snapshot(group).map(|snapshot| snapshot.state).unwrap_or_default();
            ReplicaView { group, applied: storage.groups.state_upto(group), digest: crc32fast::hash(&state) }
        };
        (0..storage.groups.len()).map(view).collect()
    }

    /// Returns the groups that this node leads, each with the term.
    #[must_use]
    pub fn led_groups(&self) -> Vec<(GroupId, u64)> {
        let Some(storage) = self.node().storage.get() else { return Vec::new() };
        let shards = storage.shards.list.iter().map(|shard| (shard.group, shard.term()));
        let all = shards.chain([(0, self.node().definitions.outbox.term())]);
        all.filter_map(|(group, term)| Some((group, term?))).collect()
    }
}

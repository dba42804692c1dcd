//! Puts a snapshot in place: at a start, of the node itself; on a running node, of the peer that leads the group.
//!
//! On a running node the state is replaced. Queues that both states have stay the same objects, so that consumers and
//! publishers who hold them notice nothing. The order between group 0 and the shards is not given: a shard may have queues
//! that the definitions do not have yet, and the other way round. Contents that only the earlier state needs are freed once
//! the new one is on the disk, because a restart before that begins with the earlier state.
use crate::agreement;
use crate::apply::{Applier, DEFINITIONS_VERSION, SNAPSHOT_MARK, SNAPSHOT_VERSION};
use crate::contents::StoredPlaces;
use crate::definitions;
use crate::entry::{self, Operation, Row};
use crate::outbox::Outbox;
use crate::queue::{Queue, QueueId};
use crate::replica::ReplicaQueue;
use crate::{Broker, Node};
use bytes::{Buf, Bytes};
use leveret_engine::catalog::Fact;
use leveret_engine::queue::{RunName, index_runs};
use leveret_engine::shard::AppliedBatches;
use leveret_replication::GroupId;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The state of a shard that is being put in place.
struct ShardRestore<'r> {
    group: GroupId,
    places: StoredPlaces,
    /// The queues that the state has had so far.
    queues: BTreeSet<QueueId>,
    node: &'r Arc<Node>,
}

impl Applier {
    pub(crate) fn restore_definitions(&self, node: &Arc<Node>, state: &[u8]) -> Result<(), String> {
        let unknown = || "definitions of a version that is not known".to_owned();
        let (batches, facts) = match state.split_first() {
            Some((&DEFINITIONS_VERSION, mut rest)) => {
                let batches = AppliedBatches::decode(&mut rest).ok_or(SHORT)?;
                (Some(batches), definitions::facts(rest).ok_or_else(unknown)?)
            }
            _ => (None, definitions::decode(state).ok_or_else(unknown)?.1),
        };
        let (replaced, closed) = {
            let mut catalog = node.catalog.write();
            let restored = catalog.restored(facts);
            let replaced = std::mem::replace(&mut *catalog, restored);
            let closed = Broker(node.clone()).follow_restored(&catalog);
            node.generations.changed(true);
            (replaced, closed)
        };
        drop((replaced, closed)); // the catalog may be large, and consumers are told
        if let Some(batches) = batches {
            *self.replicas.definitions.lock() = batches;
        }
        for shard in self.shards.list.iter().filter(|shard| shard.term().is_some()) {
            agreement::agree(node, &self.shards, shard, self.replicas.of(shard.group));
        }
        for entry in self.note_covered(node, 0, &node.definitions.outbox) {
            for batch in entry::batches(&entry).unwrap_or_default() {
                let _ = entry::operations(&entry, &batch, |operation| {
                    if let Operation::Command { number, .. } = operation {
                        node.definitions.overtaken(number);
                    }
                });
            }
        }
        node.forget_undeclared();
        Ok(())
    }

    pub(crate) fn restore_shard(
        &self,
        node: &Arc<Node>,
        group: GroupId,
        state: &[u8],
        local: &[u8],
    ) -> Result<(), String> {
        let mut places = StoredPlaces::decode(local).ok_or("its places are of a version that is not known")?;
        self.shards.arrivals_of(group).add_to(&mut places);
        let mut restore = ShardRestore { group, places, queues: BTreeSet::new(), node };
        let version = match state.strip_prefix(&SNAPSHOT_MARK.to_le_bytes()) {
            None => 1,
            Some(marked) => *marked.first().ok_or(SHORT)?,
        };
        let batches = match version {
            1 => self.restore_implied(&mut restore, state, 1).map(|()| None)?,
            2 => self.restore_implied(&mut restore, &state[9..], 2).map(|()| None)?,
            3 | SNAPSHOT_VERSION => Some(self.restore_declared(&mut restore, &state[9..], version)?),
            _ => return Err(format!("the snapshot is of version {version}, which is not known")),
        };
        let replica = self.replicas.of(group);
        for ReplicaQueue { queue, .. } in replica.queues() {
            if !restore.queues.contains(&queue.id) {
                self.delete(node, group, queue.id);
            }
        }
        if let Some(batches) = batches {
            replica.set_batches(batches);
        }
        self.note_covered(node, group, &self.shards.shard_of(group).outbox);
        node.forget_undeclared();
        Ok(())
    }

    /// Restores a snapshot of this version, without its mark and version.
    fn restore_declared(
        &self,
        restore: &mut ShardRestore<'_>,
        mut rest: &[u8],
        version: u8,
    ) -> Result<AppliedBatches, String> {
        let batches = match version {
            3 => AppliedBatches::decode_without_rows(&mut rest),
            _ => AppliedBatches::decode(&mut rest),
        };
        while !rest.is_empty() {
            let DeclaredIndex { fact, index } = DeclaredIndex::take(&mut rest)?;
            let queue = self.declare(restore.node, restore.group, fact).ok_or(NO_QUEUE)?;
            self.restore_queue(restore, &queue, index)?;
        }
        batches.ok_or_else(|| SHORT.to_owned())
    }

    /// Restores a snapshot of an earlier version, whose queues were declared in group 0 alone.
    fn restore_implied(&self, restore: &mut ShardRestore<'_>, mut rest: &[u8], version: u8) -> Result<(), String> {
        self.declare_implied(restore.node, restore.group);
        while !rest.is_empty() {
            let id = QueueId(rest.try_get_u64_le().map_err(|_| SHORT)?);
            let length = match version {
                1 => rest.try_get_u32_le().map_err(|_| SHORT)?.into(),
                _ => rest.try_get_u64_le().map_err(|_| SHORT)?,
            };
            let index = rest.split_off(..length as usize).ok_or(SHORT)?;
            if let Some(queue) = self.replicas.of(restore.group).queue(id) {
                self.restore_queue(restore, &queue, index)?;
            }
        }
        let declared = self.replicas.of(restore.group).queues();
        restore.queues.extend(declared.iter().map(|declared| declared.queue.id)); // also those without messages
        Ok(())
    }

    fn restore_queue(&self, restore: &mut ShardRestore<'_>, queue: &Queue, mut index: &[u8]) -> Result<(), String> {
        let now = restore.node.clock.now();
        restore.queues.insert(queue.id);
        let mut entered = queue.enter();
        let before: Vec<RunName> = entered.runs().map(|(_, name)| name).collect();
        let restored = entered.restore(&mut index, now, &mut |old| restore.places.name(old));
        restored.map_err(|damaged| format!("queue '{}': {}", queue.name, damaged.0))?;
        let contents = self.shards.contents_of(restore.group);
        let all_known = entered.runs().all(|(_, name)| contents.hold_stored(name, &restore.places));
        self.replicas.of(restore.group).replaced(before);
        entered.dispatch(now); // messages that the leader granted may be here now
        match all_known {
            true => Ok(()),
            false => Err(format!("queue '{}': the snapshot does not say where all of its contents lie", queue.name)),
        }
    }

    /// Frees the contents that only the state before the last snapshot of a peer needed.
    pub(crate) fn free_replaced(&self, group: GroupId) {
        self.shards.contents_of(group).free(self.replicas.of(group).take_replaced());
        if let Ok(node) = self.node()
            && let Some(storage) = node.storage.get()
        {
            self.shards.arrivals_of(group).end(&**storage.groups.journal().disk());
        }
    }

    /// Finds the contents that a state refers to and that are not here, and begins to receive them.
    pub(crate) fn find_lacking(&self, group: GroupId, state: &[u8]) -> Result<(), String> {
        let marked = state.strip_prefix(&SNAPSHOT_MARK.to_le_bytes()).and_then(|marked| marked.split_first());
        let Some((&SNAPSHOT_VERSION, mut rest)) = marked else {
            return Err("the snapshot is of another version than those that nodes exchange".to_owned());
        };
        AppliedBatches::decode(&mut rest).ok_or(SHORT)?;
        let mut names = Vec::new();
        while !rest.is_empty() {
            let DeclaredIndex { fact, mut index } = DeclaredIndex::take(&mut rest)?;
            match fact {
                Fact::Queue { id, .. } if self.shards.shard(id).group == group => {}
                _ => return Err(NO_QUEUE.to_owned()),
            }
            index_runs(&mut index, |name| names.push(name)).map_err(|damaged| damaged.0)?;
        }
        self.shards.arrivals_of(group).begin(self.shards.contents_of(group).lacking(names));
        Ok(())
    }

    /// Notes that the batches of this start of the node are applied that a snapshot covers, and tells their publishers.
    /// Returns the entries of these batches.
    fn note_covered(&self, node: &Node, group: GroupId, outbox: &Outbox) -> Vec<Bytes> {
        let covered =
            |row: Row| outbox.applied_below(row, self.replicas.next_batch(group, entry::batch_of(node.run(), row, 0)));
        [Row::Publishes, Row::Others].into_iter().flat_map(covered).collect()
    }
}

/// A queue in the snapshot of a shard: its declaration, and its encoded index.
struct DeclaredIndex<'s> {
    fact: Fact,
    index: &'s [u8],
}

impl<'s> DeclaredIndex<'s> {
    /// Removes a queue from the beginning of `rest`.
    fn take(rest: &mut &'s [u8]) -> Result<Self, String> {
        let length = rest.try_get_u32_le().map_err(|_| SHORT)? as usize;
        let mut declaration = rest.split_off(..length).ok_or(SHORT)?;
        let fact = definitions::fact(&mut declaration).ok_or("a declaration in the snapshot is not known")?;
        let length = rest.try_get_u64_le().map_err(|_| SHORT)? as usize;
        Ok(Self { fact, index: rest.split_off(..length).ok_or(SHORT)? })
    }
}

impl Node {
    /// Has nobody wait any longer for the declarations of queues that were deleted meanwhile.
    fn forget_undeclared(&self) {
        let catalog = self.catalog.read();
        let declared: BTreeSet<QueueId> = catalog.all_queues().map(|(_, _, queue)| queue.id).collect();
        let next = catalog.next_identity();
        drop(catalog);
        self.queues.declared.forget(|id| id.0 < next && !declared.contains(&id));
    }
}

const SHORT: &str = "the snapshot ends too early";
const NO_QUEUE: &str = "a declaration in the snapshot is not that of a queue of the shard";

//! Applies committed log entries: those of group 0 to the catalog, those of the shards to their queues. `restore` puts a
//! snapshot in place, `catch_up` brings the contents that the snapshot of a peer refers to.
//!
//! Format of the snapshot of group 0: `version u8 = 2`, the batches that were applied, and facts (see `definitions`). Version
//! 1 consists of facts alone.
//!
//! Format of a shard's snapshot, integers little-endian: `mark u64 = all ones, version u8 = 4`, the batches that were applied
//! (see engine's `shard`), then each queue as `length u32, declaration` (a fact of `definitions`) `length u64, index` (see
//! engine's `snapshot`). The local part says where the contents lie (see `contents`). In version 3 batches have no
//! rows. Version 2 has neither batches nor declarations: each queue is `uid u64, length u64, index`. Version 1 has neither mark nor version either, and its lengths
//! have 32 bits.
use crate::catch_up::{keep_arrived, read_wanted};
use crate::commands;
use crate::definitions;
use crate::delivered::Delivered;
use crate::entry::{self, Operation, Row};
use crate::leading;
use crate::queue::{Queue, QueueId};
use crate::replica::{ReplicaQueue, Replicas};
use crate::shards::Shards;
use crate::{Broker, Node};
use bytes::{BufMut, Bytes};
use futures::future::BoxFuture;
use leveret_engine::catalog::{DeclaredQueue, Fact, NodeRun};
use leveret_engine::queue::{LoggedRun, Part, RunName};
use leveret_engine::shard::BatchId;
use leveret_replication::{AppliedEntry, ContentsPart, GroupId, GroupSnapshot, GroupStates};
use std::sync::{Arc, Weak};

/// Applies the log of a node to its catalog and its queues.
pub(crate) struct Applier {
    node: Weak<Node>,
    pub(crate) shards: Arc<Shards>,
    pub(crate) replicas: Arc<Replicas>,
}

impl GroupStates for Applier {
    fn apply(&self, group: GroupId, applied: &AppliedEntry) -> Result<(), String> {
        let (node, entry) = (self.node()?, &applied.bytes);
        node.activity.mark();
        if group == 0 {
            return self.definitions(node, entry);
        }
        let now = node.clock.now();
        for batch in entry::batches(entry).ok_or_else(|| not_known(entry))? {
            match batch.id {
                None => self.declare_implied(&node, group),
                Some(id) if !self.replicas.of(group).note(id) => continue,
                Some(_) => {}
            }
            let by = batch.id.map(|id| id.origin).filter(|origin| *origin != node.run().node);
            let context = OperationContext { applied, by, now };
            let known = entry::operations(entry, &batch, |operation| {
                self.operation(&node, group, operation, &context);
            });
            known.ok_or_else(|| not_known(entry))?;
            if let Some((id, row)) = self.own(batch.id) {
                self.shards.shard_of(group).outbox.applied(row, id.number);
            }
        }
        Ok(())
    }

    /// Delivers the messages that the entries made ready. Publishers were told before, so that they can send their next
    /// messages meanwhile.
    fn follow_up(&self, group: GroupId) {
        if group == 0 {
            return;
        }
        let queues = self.replicas.of(group).take_ready();
        let Ok(node) = self.node() else { return };
        let now = node.clock.now();
        queues.into_iter().for_each(|queue| queue.enter().dispatch(now));
    }

    fn snapshot(&self, group: GroupId) -> Result<GroupSnapshot, String> {
        let node = self.node()?;
        if group == 0 {
            let facts = node.catalog.read().facts(); // encoded once the catalog is free again
            let mut state = vec![DEFINITIONS_VERSION];
            self.replicas.definitions.lock().encode(&mut state);
            facts.iter().for_each(|fact| definitions::put_fact(&mut state, fact));
            return Ok(GroupSnapshot { state, local: Vec::new() });
        }
        let replica = self.replicas.of(group);
        let mut out = SNAPSHOT_MARK.to_le_bytes().to_vec();
        out.push(SNAPSHOT_VERSION);
        replica.batches().encode(&mut out);
        for ReplicaQueue { queue, declaration } in replica.queues() {
            out.put_u32_le(declaration.len() as u32);
            out.extend_from_slice(&declaration);
            let length_at = out.len();
            out.put_u64_le(0);
            let mut next = Some(Part::Begin);
            while let Some(part) = next {
                next = queue.look(|state| state.snapshot_part(&mut out, part));
            }
            let length = (out.len() - length_at - 8) as u64;
            out[length_at..length_at + 8].copy_from_slice(&length.to_le_bytes());
        }
        Ok(GroupSnapshot { state: out, local: self.shards.contents_of(group).encode() })
    }

    fn restore(&self, group: GroupId, GroupSnapshot { state, local }: &GroupSnapshot) -> Result<(), String> {
        let node = self.node()?;
        match group {
            0 => self.restore_definitions(&node, state),
            _ => self.restore_shard(&node, group, state, local),
        }
    }

    fn local(&self, group: GroupId) -> Vec<u8> {
        if group == 0 { Vec::new() } else { self.shards.contents_of(group).encode() }
    }

    fn installed(&self, group: GroupId) {
        if group > 0 {
            self.free_replaced(group);
        }
    }

    fn begin_contents(&self, group: GroupId, state: &[u8]) -> Result<(), String> {
        if group > 0 {
            self.find_lacking(group, state)?;
        }
        Ok(())
    }

    fn wanted_contents(&self, group: GroupId) -> BoxFuture<'static, Result<Bytes, String>> {
        let (node, shards) = (self.node(), self.shards.clone());
        Box::pin(async move {
            if group == 0 {
                return Ok(Bytes::new());
            }
            let arrivals = shards.arrivals_of(group);
            keep_arrived(node?, group, arrivals.flush()).await?;
            Ok(arrivals.wanted())
        })
    }

    fn take_contents(&self, group: GroupId, part: Bytes) -> BoxFuture<'static, Result<(), String>> {
        let (node, shards) = (self.node(), self.shards.clone());
        Box::pin(async move {
            if group == 0 {
                return Err(NO_CONTENTS.to_owned());
            }
            keep_arrived(node?, group, shards.arrivals_of(group).take(part)?).await
        })
    }

    fn has_contents(&self, group: GroupId) -> bool {
        group == 0 || self.shards.arrivals_of(group).is_complete()
    }

    fn read_contents(&self, group: GroupId, wanted: Bytes) -> BoxFuture<'static, Result<ContentsPart, String>> {
        let node = self.node();
        Box::pin(async move {
            if group == 0 { Err(NO_CONTENTS.to_owned()) } else { read_wanted(node?, group, &wanted).await }
        })
    }

    /// Begins to serve the queues of the shard. At a start, that is done once storage is open.
    fn lead(&self, group: GroupId, term: u64) {
        if group == 0 {
            if let Ok(node) = self.node() {
                node.definitions.outbox.lead(term);
            }
        } else {
            self.replicas.of(group).set_term(Some(term));
            if let Ok(node) = self.node()
                && node.storage.get().is_some()
            {
                let (shard, replica) = (self.shards.shard_of(group), self.replicas.of(group));
                leading::begin(&node, &self.shards, replica, shard, term, &Delivered::default());
            }
        }
    }

    fn follow(&self, group: GroupId) {
        if group == 0 {
            if let Ok(node) = self.node() {
                node.definitions.outbox.follow();
            }
        } else {
            self.replicas.of(group).set_term(None);
            leading::end(self.shards.shard_of(group), self.replicas.of(group));
        }
    }
}

impl Applier {
    pub(crate) fn new(node: &Arc<Node>, shards: Arc<Shards>, replicas: Arc<Replicas>) -> Self {
        Self { node: Arc::downgrade(node), shards, replicas }
    }

    /// Returns the node, or an error once the node is gone, so that no entry is skipped and no empty snapshot is written.
    pub(crate) fn node(&self) -> Result<Arc<Node>, String> {
        self.node.upgrade().ok_or_else(|| "the node is gone".to_owned())
    }

    /// Returns a batch of this start of the node with its row; `None` for one of another.
    fn own(&self, id: Option<BatchId>) -> Option<(BatchId, Row)> {
        let id = id.filter(|id| id.incarnation == self.shards.incarnation)?;
        Some((id, Row::of(id)))
    }

    /// Applies an entry of the log of the definitions.
    fn definitions(&self, node: Arc<Node>, entry: &Bytes) -> Result<(), String> {
        if let Some((_, facts)) = definitions::decode(entry) {
            let mut catalog = node.catalog.write();
            facts.into_iter().for_each(|fact| catalog.replay(fact));
            return Ok(());
        }
        let broker = Broker(node);
        for batch in entry::batches(entry).ok_or_else(|| not_known(entry))? {
            let Some(id) = batch.id else { return Err(not_known(entry)) };
            if !self.replicas.definitions.lock().note(id) {
                continue;
            }
            let (by, own) = (NodeRun { node: id.origin, incarnation: id.incarnation }, self.own(batch.id));
            let mut is_known = true;
            let whole = entry::operations(entry, &batch, |operation| match operation {
                Operation::Command { number, command } => match commands::decode(&command) {
                    Some(command) => {
                        let outcome = broker.carry_out(by, &command, own.is_some());
                        if own.is_some() {
                            broker.node().definitions.tell(number, outcome);
                        }
                    }
                    None => is_known = false,
                },
                _ => is_known = false,
            });
            whole.filter(|()| is_known).ok_or_else(|| not_known(entry))?;
            if let Some((id, row)) = own {
                broker.node().definitions.outbox.applied(row, id.number);
            }
        }
        Ok(())
    }

    /// Creates the queue that a fact declares, unless it exists. Returns the queue; `None` if the fact declares no queue.
    pub(crate) fn declare(&self, node: &Node, group: GroupId, fact: Fact) -> Option<Arc<Queue>> {
        let replica = self.replicas.of(group);
        let Fact::Queue { id, .. } = fact else { return None };
        if let Some(queue) = replica.queue(id) {
            return Some(queue);
        }
        let mut declaration = Vec::new();
        definitions::put_fact(&mut declaration, &fact);
        let Fact::Queue { vhost, name, auto_delete, arguments, .. } = fact else { return None };
        let declared = DeclaredQueue::durable(id, auto_delete, arguments);
        let queue = Arc::new(Queue::new(&declared, vhost, name, node.queue_context()));
        replica.add(ReplicaQueue { queue: queue.clone(), declaration: declaration.into() });
        if self.shards.shard_of(group).term().is_none() {
            // This node may have stopped leading while the queue was created.
            let mut entered = queue.enter();
            match self.shards.shard_of(group).front() {
                Some(term) => entered.front(term),
                None => entered.end(),
            }
        }
        node.queues.by_id.write().insert(id, queue.clone());
        node.generations.changed(true); // routes that were found before do not lead to the queue
        node.queues.declared.tell(&queue);
        Some(queue)
    }

    /// Creates the queues of the shard that group 0 declared, as earlier versions of the program expected it; does so only
    /// once.
    pub(crate) fn declare_implied(&self, node: &Node, group: GroupId) {
        self.replicas.of(group).implied.get_or_init(|| {
            let mut facts = node.catalog.read().facts();
            facts.retain(|fact| matches!(fact, Fact::Queue { id, .. } if self.shards.shard(*id).group == group));
            facts.into_iter().for_each(|fact| drop(self.declare(node, group, fact)));
        });
    }

    /// Ends a queue that was deleted. The definitions of this node may not have the deletion yet.
    pub(crate) fn delete(&self, node: &Node, group: GroupId, id: QueueId) {
        drop(node.queues.stop_serving(id));
        self.replicas.of(group).remove(id);
    }

    fn operation(&self, node: &Node, group: GroupId, operation: Operation, context: &OperationContext<'_>) {
        let &OperationContext { applied, by, now } = context;
        let replica = self.replicas.of(group);
        match operation {
            Operation::Enqueue { queues, count, body_bytes, at, run } => {
                // A run that is a small part of its entry would keep the whole entry in memory.
                let run = if run.len() * 4 < applied.bytes.len() { Bytes::copy_from_slice(&run) } else { run };
                let name = RunName { entry: applied.index, at, len: run.len() as u32 };
                let serving = self.shards.shard_of(group).term().is_some();
                for queue in queues.into_iter().filter_map(|id| replica.queue(id)) {
                    let mut entered = queue.enter();
                    self.shards.contents_of(group).hold(name, applied.place);
                    let serving = serving || entered.is_front() && entered.consumers().len() > 0;
                    let warm = serving && node.memory.takes_warm() && entered.takes_warm();
                    entered.apply_logged(&LoggedRun { run: &run, name, count, body_bytes, warm }, now);
                    drop(entered);
                    if serving {
                        replica.is_ready(queue);
                    }
                }
            }
            Operation::Settle { queue, first, count } => {
                if let Some(queue) = replica.queue(queue) {
                    let end = first.saturating_add(count);
                    for part in (first..end).step_by(SETTLED_AT_ONCE) {
                        queue.enter().apply_settled(part, (end - part).min(SETTLED_AT_ONCE as u64));
                    }
                }
            }
            Operation::Return { queue, epoch, messages } => {
                if let Some(queue) = replica.queue(queue) {
                    let mut entered = queue.enter();
                    messages
                        .into_iter()
                        .for_each(|(sequence, offset)| entered.apply_returned(sequence, offset, epoch, by));
                    drop(entered);
                    replica.is_ready(queue);
                }
            }
            Operation::Release { queue, epoch, messages } => {
                if let (Some(queue), Some(by)) = (replica.queue(queue), by) {
                    let mut entered = queue.enter();
                    messages
                        .into_iter()
                        .for_each(|(sequence, offset)| entered.apply_released(sequence, offset, epoch, by));
                    drop(entered);
                    replica.is_ready(queue);
                }
            }
            // What a leader of an earlier term wanted to declare or delete was made up for by the one that followed it.
            Operation::Declare { epoch, .. } | Operation::Delete { epoch, .. }
                if epoch.is_some_and(|epoch| epoch != applied.term) => {}
            Operation::Declare { fact, .. } => drop(self.declare(node, group, fact)),
            Operation::Delete { queue, .. } => self.delete(node, group, queue),
            Operation::Command { .. } => {}
        }
    }
}

/// What surrounds an operation.
struct OperationContext<'e> {
    applied: &'e AppliedEntry,
    /// The node that the operation comes from, if it is another one.
    by: Option<u64>,
    now: u64,
}

/// Returns the reason why an entry cannot be applied.
fn not_known(entry: &[u8]) -> String {
    match entry.first() {
        None => "it is empty".to_owned(),
        Some(version) => format!("its version is {version}, and it is not whole or that version is not known"),
    }
}

/// The largest number of messages that are settled in one visit to a queue: others want its lock as well.
const SETTLED_AT_ONCE: usize = 8192;
/// The mark at the beginning of a snapshot. Snapshots of version 1 have the identity of a queue in this place, which is
/// never this number.
pub(crate) const SNAPSHOT_MARK: u64 = u64::MAX;
pub(crate) const SNAPSHOT_VERSION: u8 = 4;
pub(crate) const DEFINITIONS_VERSION: u8 = 2;
const NO_CONTENTS: &str = "the definitions have no contents";

#[cfg(test)]
#[path = "apply_tests.rs"]
mod tests;

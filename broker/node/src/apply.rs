//! Applies committed log entries: those of group 0 to the catalog, those of the shards to their queues.
//!
//! Format of a shard's snapshot, integers little-endian: `mark u64 = all ones, version u8 = 2`, then each queue as `uid
//! u64, length u64, index` (see engine's `snapshot`). A snapshot of version 1 has neither mark nor version, and its lengths
//! have 32 bits. The local part says where the contents lie (see `contents`).
use crate::Node;
use crate::contents::StoredPlaces;
use crate::definitions;
use crate::entry::{self, Operation};
use crate::queue::{Queue, QueueId};
use crate::shards::Shards;
use bytes::{Buf, BufMut, Bytes};
use leveret_engine::queue::{LoggedRun, Part, RunName};
use leveret_replication::{AppliedEntry, GroupId, GroupSnapshot, GroupStates};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, OnceLock, Weak};

/// Applies the log of a node to its catalog and its queues.
pub(crate) struct Applier {
    node: Weak<Node>,
    shards: Arc<Shards>,
    /// Set once the queues that group 0 declared were created.
    declared: OnceLock<()>,
    /// The queues that may have something to deliver since the last entries, by shard.
    ready: Vec<Mutex<Vec<Arc<Queue>>>>,
}

impl GroupStates for Applier {
    fn apply(&self, group: GroupId, applied: &AppliedEntry) -> Result<(), String> {
        let entry = &applied.bytes;
        let node = self.node()?;
        node.activity.mark();
        if group == 0 {
            let (incarnation, facts) = definitions::decode(entry).ok_or_else(|| not_known(entry))?;
            if incarnation != self.shards.incarnation {
                let mut catalog = node.catalog.write();
                facts.into_iter().for_each(|fact| catalog.replay(fact));
            }
            return Ok(());
        }
        self.declare();
        let now = node.clock.now();
        let known = entry::operations(entry, |operation| self.operation(&node, operation, applied, now));
        known.ok_or_else(|| not_known(entry))?;
        if let Some((incarnation, number)) = entry::header(entry)
            && incarnation == self.shards.incarnation
        {
            self.shards.list[usize::from(group) - 1].applied(number);
        }
        Ok(())
    }

    /// Delivers the messages that the entries made ready. Publishers were told before, so that they can send their next
    /// messages meanwhile.
    fn follow_up(&self, group: GroupId) {
        let Some(ready) = self.ready(group) else { return };
        let mut queues = std::mem::take(&mut *ready.lock());
        queues.sort_by_key(|queue| queue.id);
        queues.dedup_by_key(|queue| queue.id);
        let Ok(node) = self.node() else { return };
        let now = node.clock.now();
        queues.into_iter().for_each(|queue| queue.enter().dispatch(now));
    }

    fn snapshot(&self, group: GroupId) -> Result<GroupSnapshot, String> {
        let node = self.node()?;
        if group == 0 {
            let facts = node.catalog.read().durable_facts(); // encoded once the catalog is free again
            return Ok(GroupSnapshot { state: definitions::encode(0, &facts), local: Vec::new() });
        }
        let mut queues: Vec<_> = node.queues.by_id.read().values().cloned().collect();
        queues.extend(node.queues.closed.all()); // the log may not have their deletions yet, but it has their contents
        queues.retain(|queue| queue.shards.is_some() && self.shards.shard(queue.id).group == group);
        queues.sort_by_key(|queue| queue.id);
        queues.dedup_by_key(|queue| queue.id);
        let mut out = SNAPSHOT_MARK.to_le_bytes().to_vec();
        out.push(SNAPSHOT_VERSION);
        for queue in queues {
            out.put_u64_le(queue.id.0);
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
        if group == 0 {
            let (_, facts) = definitions::decode(state).ok_or("definitions of a version that is not known")?;
            let mut catalog = node.catalog.write();
            facts.into_iter().for_each(|fact| catalog.replay(fact));
            return Ok(());
        }
        self.declare();
        let short = |_| SHORT.to_owned();
        let mut places = StoredPlaces::decode(local).ok_or("its places are of a version that is not known")?;
        let (mut snapshot, mut named) = (&state[..], BTreeMap::new());
        let marked = snapshot.first_chunk() == Some(&SNAPSHOT_MARK.to_le_bytes());
        if marked {
            snapshot = &snapshot[8..];
            match snapshot.split_off_first() {
                Some(&SNAPSHOT_VERSION) => {}
                version => return Err(format!("the snapshot is of version {version:?}, which is not known")),
            }
        }
        while !snapshot.is_empty() {
            let id = QueueId(snapshot.try_get_u64_le().map_err(short)?);
            let length = match marked {
                true => snapshot.try_get_u64_le().map_err(short)?,
                false => snapshot.try_get_u32_le().map_err(short)?.into(),
            };
            let mut index = snapshot.split_off(..length as usize).ok_or(SHORT)?;
            let queue = node.queues.by_id.read().get(&id).cloned();
            if let Some(queue) = queue {
                let mut entered = queue.enter();
                let restored = entered.restore(&mut index, node.clock.now(), &mut |old| places.name(old, &mut named));
                restored.map_err(|damaged| format!("queue '{}': {}", queue.name, damaged.0))?;
                let contents = self.shards.contents_of(group);
                if !entered.runs().all(|(_, name)| contents.hold_stored(name, &places)) {
                    return Err(format!(
                        "queue '{}': the snapshot does not say where all of its contents lie",
                        queue.name
                    ));
                }
            }
        }
        Ok(())
    }
}

impl Applier {
    pub(crate) fn new(node: &Arc<Node>, shards: Arc<Shards>) -> Self {
        let ready = shards.list.iter().map(|_| Mutex::default()).collect();
        Self { node: Arc::downgrade(node), shards, declared: OnceLock::new(), ready }
    }

    fn ready(&self, group: GroupId) -> Option<&Mutex<Vec<Arc<Queue>>>> {
        self.ready.get(usize::from(group).checked_sub(1)?)
    }

    /// Returns the node, or an error once the node is gone, so that no entry is skipped and no empty snapshot is written.
    fn node(&self) -> Result<Arc<Node>, String> {
        self.node.upgrade().ok_or_else(|| "the node is gone".to_owned())
    }

    /// Creates the queues that group 0 declared; does so only once.
    pub(crate) fn declare(&self) {
        self.declared.get_or_init(|| {
            let Some(node) = self.node.upgrade() else { return };
            let catalog = node.catalog.read();
            let mut queues = node.queues.by_id.write();
            for vhost in catalog.vhosts() {
                for (name, queue) in catalog.queues(vhost).into_iter().flatten() {
                    let made = Queue::new(queue, vhost.clone(), name.clone(), node.queue_context());
                    queues.insert(queue.id, Arc::new(made));
                }
            }
        });
    }

    /// Notes that the queue may have something to deliver.
    fn is_ready(&self, queue: Arc<Queue>) {
        let Some(ready) = self.ready(self.shards.shard(queue.id).group) else { return };
        let mut ready = ready.lock();
        if !ready.last().is_some_and(|last| Arc::ptr_eq(last, &queue)) {
            ready.push(queue);
        }
    }

    fn operation(&self, node: &Node, operation: Operation, applied: &AppliedEntry, now: u64) {
        let find = |id: QueueId| node.queues.by_id.read().get(&id).cloned().or_else(|| node.queues.closed.get(id));
        match operation {
            Operation::Enqueue { queues, count, body_bytes, at, run } => {
                // A run that is a small part of its entry would keep the whole entry in memory.
                let run = if run.len() * 4 < applied.bytes.len() { Bytes::copy_from_slice(&run) } else { run };
                let name = RunName { entry: applied.index, at, len: run.len() as u32 };
                for queue in queues.into_iter().filter_map(find) {
                    let mut entered = queue.enter();
                    if !entered.is_durable() {
                        continue; // its deletion is durable by now
                    }
                    self.shards.contents(queue.id).hold(name, applied.place);
                    let serving = self.shards.serving.load(Relaxed);
                    let warm = serving && node.memory.takes_warm() && entered.takes_warm();
                    entered.apply_logged(&LoggedRun { run: &run, name, count, body_bytes, warm }, now);
                    drop(entered);
                    if serving {
                        self.is_ready(queue);
                    }
                }
            }
            Operation::Settle { queue, first, count } => {
                if let Some(queue) = find(queue) {
                    let end = first.saturating_add(count);
                    for part in (first..end).step_by(SETTLED_AT_ONCE) {
                        queue.enter().apply_settled(part, (end - part).min(SETTLED_AT_ONCE as u64));
                    }
                }
            }
            Operation::Return { queue, messages } => {
                if let Some(queue) = find(queue) {
                    let mut entered = queue.enter();
                    messages.into_iter().for_each(|(sequence, offset)| entered.apply_returned(sequence, offset));
                    drop(entered);
                    self.is_ready(queue);
                }
            }
        }
    }
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
const SNAPSHOT_MARK: u64 = u64::MAX;
const SNAPSHOT_VERSION: u8 = 2;
const SHORT: &str = "the snapshot ends too early";

#[cfg(test)]
#[path = "apply_tests.rs"]
mod tests;

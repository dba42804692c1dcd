//! The consequences of a change of the catalog: the one place that makes the node agree with the catalog.
//!
//! The effects of a command are followed while the catalog is still locked. A reader therefore always sees a catalog and
//! queues that agree, and the log of a shard gets declarations and deletions in the order in which they were carried out.
use crate::Broker;
use crate::definitions;
use crate::deleted::DeletedQueue;
use crate::outcome::{CommandOutcome, CreatedQueue, stopping};
use crate::queue::{Queue, QueueId};
use crate::shard::ShardDefinition;
use leveret_engine::catalog::{Catalog, CatalogCommand, Change, DeclaredQueue, Effect, NodeRun, UNLINKED_AT_ONCE};
use leveret_model::refusal::Refusal;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

impl Broker {
    /// Carries out a command of a start of a node, and follows the effects. `is_asker` says whether somebody on this node
    /// waits for the outcome.
    ///
    /// # Errors
    /// The catalog's refusals.
    pub(crate) fn carry_out(
        &self,
        by: NodeRun,
        command: &CatalogCommand,
        is_asker: bool,
    ) -> Result<CommandOutcome, Refusal> {
        let mut catalog = self.node().catalog.write();
        if !catalog.may_run(by) && *command != CatalogCommand::NodeStarted {
            return Err(stopping()); // it comes late, and nobody would end what it creates
        }
        let Change { answer, effects } = catalog.execute(by, command)?;
        let mut outcome = CommandOutcome::unchanged(answer);
        self.follow(&effects, is_asker, &mut outcome);
        let is_unlinking = catalog.is_unlinking();
        drop(catalog);
        if is_unlinking {
            self.go_on_unlinking();
        }
        Ok(outcome)
    }

    /// Creates and closes queues, invalidates cached routes that may have changed, and has the logs of the shards that this
    /// node leads get the declarations and deletions of their queues.
    fn follow(&self, effects: &[Effect], is_asker: bool, outcome: &mut CommandOutcome) {
        let node = self.node();
        for effect in effects {
            match effect {
                Effect::QueueCreated { vhost, name, queue } => {
                    node.connections.churn.queues_created.fetch_add(1, Relaxed);
                    let logged_by = node.shards.get().filter(|_| queue.is_logged());
                    let Some(shards) = logged_by else {
                        outcome.created = Some(CreatedQueue::Here(self.add_queue(vhost, name, queue)));
                        continue;
                    };
                    if is_asker {
                        let there = node.queues.declared.wait_for(queue.id);
                        outcome.created = Some(CreatedQueue::InShard(there));
                        if let Some(queue) = self.queue(queue.id) {
                            node.queues.declared.tell(&queue); // the log of the shard was faster
                        }
                    }
                    shards.shard(queue.id).define(&declaration(vhost, name, queue));
                }
                Effect::QueueDeleted { id, is_logged, .. } => {
                    outcome.deleted.extend(self.remove_queue(*id));
                    if let Some(shards) = node.shards.get().filter(|_| *is_logged) {
                        shards.shard(*id).define(&ShardDefinition::Delete(*id));
                    }
                }
                Effect::VhostCreated { .. }
                | Effect::VhostDeleted { .. }
                | Effect::ExchangeCreated { .. }
                | Effect::ExchangeDeleted { .. }
                | Effect::Bound { .. }
                | Effect::Unbound { .. } => {}
            }
        }
        if !effects.is_empty() {
            node.generations.changed(effects.iter().any(Effect::changes_bindings));
        }
    }

    /// Creates and closes queues so that the node agrees with a catalog that came with a snapshot. Queues that are logged
    /// are created by the logs of their shards. Returns the queues that were closed.
    pub(crate) fn follow_restored(&self, catalog: &Catalog) -> Vec<DeletedQueue> {
        let run = self.run();
        let mut named = BTreeSet::new();
        for (vhost, name, queue) in catalog.all_queues() {
            named.insert(queue.id);
            let is_over = queue.home.is_some_and(|home| home.node == run.node && home != run);
            if !is_over && !queue.is_logged() && self.queue(queue.id).is_none() {
                self.add_queue(vhost, name, queue);
            }
        }
        let ids: Vec<QueueId> = self.queues().keys().copied().collect();
        let gone = ids.into_iter().filter(|id| id.0 < catalog.next_identity() && !named.contains(id));
        gone.filter_map(|id| self.remove_queue(id)).collect()
    }

    /// Creates a queue that is not logged.
    fn add_queue(&self, vhost: &Arc<str>, name: &Arc<str>, declared: &DeclaredQueue) -> Arc<Queue> {
        let node = self.node();
        let queue = Arc::new(Queue::new(declared, vhost.clone(), name.clone(), node.queue_context()));
        node.queues.by_id.write().insert(queue.id, queue.clone());
        queue
    }

    fn remove_queue(&self, id: QueueId) -> Option<DeletedQueue> {
        let node = self.node();
        let deleted = node.queues.stop_serving(id)?;
        node.connections.churn.queues_deleted.fetch_add(1, Relaxed);
        Some(deleted)
    }

    /// Starts a task that takes apart the bindings that a deletion of an exchange or queue with very many bindings left in
    /// the catalog; others get the catalog's lock in between.
    fn go_on_unlinking(&self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let broker = self.clone();
        runtime.spawn(async move {
            loop {
                let unlinked = broker.node().catalog.write().unlink(UNLINKED_AT_ONCE);
                if !unlinked.more {
                    drop(tokio::task::spawn_blocking(move || drop(unlinked)));
                    return;
                }
                tokio::task::yield_now().await;
            }
        });
    }
}

/// Returns the declaration of a queue, for the log of its shard.
pub(crate) fn declaration(vhost: &Arc<str>, name: &Arc<str>, queue: &DeclaredQueue) -> ShardDefinition {
    let mut fact = Vec::new();
    definitions::put_fact(&mut fact, &queue.clone().into_fact(vhost.clone(), name.clone()));
    ShardDefinition::Declare { queue: queue.id, fact: fact.into() }
}

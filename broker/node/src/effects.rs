//! The consequences of a change of the catalog: the one place that makes the node agree with the catalog.
//!
//! The effects of a change are followed while the catalog is still locked. A reader therefore always sees a catalog and
//! queues that agree, and the log has the facts in the order in which they became true.
use crate::Broker;
use crate::definitions;
use crate::deleted::DeletedQueue;
use crate::fact_log::Mark;
use crate::queue::{Queue, QueueId};
use crate::shard::ShardDefinition;
use leveret_engine::catalog::{Catalog, Change, DeclaredQueue, Effect, UNLINKED_AT_ONCE};
use leveret_model::refusal::Refusal;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use tokio::sync::oneshot;

/// A change of the catalog that the node has followed.
pub(crate) struct CatalogChange<T> {
    /// The catalog's answer.
    pub(crate) answer: T,
    /// The mark that has to be durable before anybody is told: behind the facts of this change or, if nothing changed,
    /// behind those of all changes before.
    pub(crate) mark: Mark,
    /// The queue that was created, if one was.
    pub(crate) created: Option<CreatedQueue>,
    /// The queues that were deleted.
    pub(crate) deleted: Vec<DeletedQueue>,
}

/// A queue that was created.
pub(crate) enum CreatedQueue {
    /// The queue exists.
    Here(Arc<Queue>),
    /// The queue exists once the log of its shard has its declaration, and is sent here then.
    InShard(oneshot::Receiver<Arc<Queue>>),
}

impl Broker {
    /// Changes the catalog and follows the effects.
    ///
    /// # Errors
    /// The refusal that `change` returned; nothing is changed then.
    pub(crate) fn change<T>(
        &self,
        change: impl FnOnce(&mut Catalog) -> Result<Change<T>, Refusal>,
    ) -> Result<CatalogChange<T>, Refusal> {
        self.mark_activity();
        let mut catalog = self.node().catalog.write();
        let Change { answer, effects } = change(&mut catalog)?;
        let changed = self.follow(answer, effects);
        let is_unlinking = catalog.is_unlinking();
        drop(catalog);
        if is_unlinking {
            self.go_on_unlinking();
        }
        Ok(changed)
    }

    /// Creates and closes queues, invalidates cached routes that may have changed, and hands the facts over to the log.
    fn follow<T>(&self, answer: T, effects: Vec<Effect>) -> CatalogChange<T> {
        let node = self.node();
        let (mut definitions, mut created, mut deleted) = (Vec::new(), None, Vec::new());
        let has_log = node.storage.get().is_some();
        for effect in &effects {
            match effect {
                Effect::QueueCreated { vhost, name, queue } => {
                    node.connections.churn.queues_created.fetch_add(1, Relaxed);
                    created = Some(match queue.is_logged() && has_log {
                        true => {
                            definitions.push(declaration(vhost, name, queue));
                            CreatedQueue::InShard(node.queues.declared.wait_for(queue.id))
                        }
                        false => CreatedQueue::Here(self.add_queue(vhost, name, queue)),
                    });
                }
                Effect::QueueDeleted { id, is_logged, .. } => {
                    deleted.extend(self.remove_queue(*id));
                    if *is_logged && has_log {
                        definitions.push(ShardDefinition::Delete(*id));
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
        let waits = effects.is_empty() || effects.iter().any(Effect::is_logged);
        let mark = match waits && has_log {
            true => node.facts.hand_over(effects.into_iter().filter_map(Effect::into_fact), definitions),
            false => Mark::NOTHING,
        };
        CatalogChange { answer, mark, created, deleted }
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

//! The consequences of a change of the catalog: the one place that makes the node agree with the catalog.
//!
//! The effects of a change are followed while the catalog is still locked. A reader therefore always sees a catalog and
//! queues that agree, and the log has the facts in the order in which they became true.
use crate::Broker;
use crate::deleted::DeletedQueue;
use crate::fact_log::Mark;
use crate::queue::{Queue, QueueId};
use leveret_engine::catalog::{Catalog, Change, DeclaredQueue, Effect, UNLINKED_AT_ONCE};
use leveret_model::refusal::Refusal;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// A change of the catalog that the node has followed.
pub(crate) struct CatalogChange<T> {
    /// The catalog's answer.
    pub(crate) answer: T,
    /// The mark that has to be durable before anybody is told: behind the facts of this change or, if nothing changed,
    /// behind those of all changes before.
    pub(crate) mark: Mark,
    /// The queues that were created.
    pub(crate) created: Vec<Arc<Queue>>,
    /// The queues that were deleted.
    pub(crate) deleted: Vec<DeletedQueue>,
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
        let (mut created, mut deleted) = (Vec::new(), Vec::new());
        for effect in &effects {
            match effect {
                Effect::QueueCreated { vhost, name, queue } => created.push(self.add_queue(vhost, name, queue)),
                Effect::QueueDeleted { id, .. } => deleted.extend(self.remove_queue(*id)),
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
        let mark = match waits && node.storage.get().is_some() {
            true => node.facts.hand_over(effects.into_iter().filter_map(Effect::into_fact)),
            false => Mark::NOTHING,
        };
        CatalogChange { answer, mark, created, deleted }
    }

    fn add_queue(&self, vhost: &Arc<str>, name: &Arc<str>, declared: &DeclaredQueue) -> Arc<Queue> {
        let node = self.node();
        let queue = Arc::new(Queue::new(declared, vhost.clone(), name.clone(), node.queue_context()));
        node.queues.by_id.write().insert(queue.id, queue.clone());
        node.connections.churn.queues_created.fetch_add(1, Relaxed);
        queue
    }

    fn remove_queue(&self, id: QueueId) -> Option<DeletedQueue> {
        let (node, queue) = (self.node(), self.queue(id)?);
        let deleted = queue.close();
        if queue.shards.is_some() {
            node.queues.closed.insert(queue); // before it is removed below, so that a snapshot finds it in one of the two
        }
        node.queues.by_id.write().remove(&id);
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

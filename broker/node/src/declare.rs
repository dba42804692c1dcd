//! The door for what is declared: exchanges, queues, bindings. The catalog decides, the queues follow.
//!
//! A change of the catalog, of the queues that belong to it, and the facts for the log are one step under the catalog's
//! lock, so they agree whoever looks. What is durable is logged before it is answered, in a task that nobody cancels; a queue
//! takes messages from then on.
use crate::Broker;
use crate::fact_log::Mark;
use crate::queue::{Queue, QueueId};
use leveret_engine::catalog::{
    Catalog, ConnectionId, Destination, ExchangeDeclare, QueueDeclare, UNLINKED_AT_ONCE, idle_arguments,
};
use leveret_engine::queue::{self as engine, Consumer, Depth};
use leveret_model::name::without_line_breaks;
use leveret_model::refusal::{Refusal, RefusalKind};
use leveret_model::table::FieldTable;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// On which conditions a queue is deleted.
#[derive(Clone, Copy, Debug, Default)]
pub struct DeleteOnly {
    /// It has no consumers.
    pub if_unused: bool,
    /// It has no messages, ready or delivered and not settled.
    pub if_empty: bool,
}

/// A queue that was deleted. Its consumers are told when this is dropped: after the answer to whoever deleted it, and not
/// before the deletion is durable.
pub struct Deleted {
    /// How many messages were ready in it.
    pub ready: u64,
    consumers: Vec<Consumer>,
    contents: Option<engine::Queue>,
}

impl Drop for Deleted {
    fn drop(&mut self) {
        for consumer in self.consumers.drain(..) {
            consumer.subscription.sink.cancelled();
        }
        // What takes long to drop is dropped where nobody waits.
        let large = self.contents.take().filter(|contents| contents.memory_bytes() > CONTENTS_LARGE);
        if let (Some(contents), Ok(runtime)) = (large, tokio::runtime::Handle::try_current()) {
            drop(runtime.spawn_blocking(move || drop(contents)));
        }
    }
}

impl Broker {
    /// Whether the virtual host is there.
    pub fn has_vhost(&self, vhost: &str) -> bool {
        self.catalog().has_vhost(vhost)
    }

    /// A name that nobody else was given: 22 characters.
    pub fn random_name(&self) -> String {
        const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let random: u128 = rand::random();
        (0..22).map(|at| char::from(ALPHABET[(random >> (at * 6) & 63) as usize])).collect()
    }

    /// Changes the catalog: routes are found again if they may be others now, and facts are handed over to the log. Returns
    /// what has to be durable before the answer: the change or, if there is nothing to change, what others changed before.
    fn change<T>(&self, change: impl FnOnce(&mut Catalog) -> Result<T, Refusal>) -> Result<(T, Mark), Refusal> {
        self.mark_activity();
        let node = self.node();
        let mut catalog = node.catalog.write();
        let changed = change(&mut catalog);
        let effects = catalog.take_effects();
        if !effects.is_empty() {
            node.generations.changed(effects.iter().any(|effect| effect.changes_bindings));
        }
        let waits = effects.is_empty() || effects.iter().any(|effect| effect.logged);
        let mark = if waits && node.storage.get().is_some() {
            node.facts.hand_over(effects.into_iter().filter(|effect| effect.logged).map(|effect| effect.fact))
        } else {
            Mark::NOTHING
        };
        let is_unlinking = catalog.is_unlinking();
        drop(catalog);
        if is_unlinking {
            self.go_on_unlinking();
        }
        changed.map(|changed| (changed, mark))
    }

    /// Takes apart what a deletion of something with very many bindings left in the catalog, which others want too.
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

    /// Checks that an exchange is there.
    ///
    /// # Errors
    /// 404; 403 for the default exchange, of which nothing is told.
    pub fn check_exchange(&self, vhost: &str, name: &str) -> Result<(), Refusal> {
        let name = &without_line_breaks(name);
        if name.is_empty() {
            let text = "operation not permitted on the default exchange".to_owned();
            return Err(Refusal::new(RefusalKind::AccessRefused, text));
        }
        self.catalog().exchange(vhost, name).map(drop)
    }

    /// Declares an exchange, or checks that it is there as declared. Whether it is new.
    ///
    /// # Errors
    /// The catalog's refusals.
    pub async fn declare_exchange(&self, vhost: &str, name: &str, declare: ExchangeDeclare) -> Result<bool, Refusal> {
        let name = without_line_breaks(name);
        let (created, mark) = self.change(|catalog| catalog.declare_exchange(vhost, &name, declare))?;
        self.once_logged(mark, move || created).await
    }

    /// Deletes an exchange and its bindings. Whether it was there.
    ///
    /// # Errors
    /// The catalog's refusals.
    pub async fn delete_exchange(&self, vhost: &str, name: &str, if_unused: bool) -> Result<bool, Refusal> {
        let name = without_line_breaks(name);
        let (deleted, mark) = self.change(|catalog| catalog.delete_exchange(vhost, &name, if_unused))?;
        self.once_logged(mark, move || deleted).await
    }

    /// Declares a queue, or checks that it is there as declared. Whether it is new, and the queue.
    ///
    /// # Errors
    /// The catalog's refusals.
    pub async fn declare_queue(
        &self,
        vhost: &str,
        name: &str,
        declare: QueueDeclare,
    ) -> Result<(bool, Arc<Queue>), Refusal> {
        let name = without_line_breaks(name);
        if name.is_empty() {
            return Err(Refusal::precondition("the name of a queue is empty without its line breaks".to_owned()));
        }
        self.node().connections.churn.queues_declared.fetch_add(1, Relaxed);
        let idle: Vec<String> = idle_arguments(&declare.arguments).map(str::to_owned).collect();
        let ((created, queue), mark) = self.change(|catalog| {
            let declared = catalog.declare_queue(vhost, &name, declare)?;
            if let Some(queue) = self.queues().get(&declared.id) {
                return Ok((false, queue.clone()));
            }
            let found = catalog.queue(vhost, &name, catalog.owner(vhost, &name))?;
            let names = (vhost.into(), (&*name).into());
            let node = self.node();
            let shared = (node.memory.clone(), node.unfinished.clone());
            let queue = Arc::new(Queue::new(found, names, shared, node.log.get().cloned()));
            node.queues.write().insert(declared.id, queue.clone());
            Ok((true, queue))
        })?;
        if created {
            self.node().connections.churn.queues_created.fetch_add(1, Relaxed);
        }
        if created && !idle.is_empty() {
            tracing::warn!(vhost, queue = ?queue.name, arguments = ?idle, "these arguments of a queue do nothing");
        }
        let (broker, logged) = (self.clone(), queue.clone());
        self.once_logged(mark, move || {
            if logged.set_declared() {
                broker.node().generations.changed(true); // a route found meanwhile does not lead to it
            }
        })
        .await?;
        if !created {
            queue.caught_up().await;
        }
        Ok((created, queue))
    }

    /// Finds a queue that `connection` (none: the API) may use.
    ///
    /// # Errors
    /// 404, also while its declaration is being logged, or 405 if it belongs to another connection.
    pub fn find_queue(&self, vhost: &str, name: &str, connection: Option<ConnectionId>) -> Result<Arc<Queue>, Refusal> {
        let catalog = self.catalog();
        let id = catalog.queue(vhost, name, connection)?.id;
        let found = self.queues().get(&id).filter(|queue| queue.is_declared()).cloned();
        found.ok_or_else(|| Refusal::no_queue(vhost, name))
    }

    /// The queue of that identity, to look at.
    pub fn queue(&self, id: QueueId) -> Option<Arc<Queue>> {
        self.queues().get(&id).cloned()
    }

    /// Removes what is ready in a queue: how many messages.
    ///
    /// # Errors
    /// 404, or 405 if it belongs to another connection.
    pub async fn purge_queue(&self, vhost: &str, name: &str, connection: Option<ConnectionId>) -> Result<u64, Refusal> {
        let name = without_line_breaks(name);
        let queue = self.find_queue(vhost, &name, connection)?;
        queue.caught_up().await;
        let before = queue.look(engine::Queue::next_sequence);
        let mut purged = 0;
        loop {
            let (more, done) = queue.enter().purge_some(before, PURGED_AT_ONCE);
            if queue.is_deleted() {
                return Err(Refusal::no_queue(vhost, &name));
            }
            purged += more;
            if done {
                queue.settled().await; // who is told that they are gone does not see them again after a crash
                return Ok(purged);
            }
            tokio::task::yield_now().await;
        }
    }

    /// Deletes a queue with all that is in it.
    ///
    /// # Errors
    /// 404, also if its name means another queue meanwhile, 405 if it belongs to another connection, 406 when it is in use or
    /// not empty and that was asked.
    pub async fn delete_queue(
        &self,
        vhost: &str,
        name: &str,
        only: DeleteOnly,
        connection: Option<ConnectionId>,
    ) -> Result<Deleted, Refusal> {
        let queue = self.find_queue(vhost, &without_line_breaks(name), connection)?;
        queue.caught_up().await;
        if only.if_empty {
            queue.settled().await;
        }
        self.end_queue(&queue, only).await
    }

    /// Deletes this queue, and no other that has its name by now.
    async fn end_queue(&self, queue: &Queue, only: DeleteOnly) -> Result<Deleted, Refusal> {
        let (deleted, mark) = self.change(|catalog| self.take_queue(catalog, queue, only))?;
        self.once_logged(mark, move || deleted).await
    }

    fn take_queue(&self, catalog: &mut Catalog, queue: &Queue, only: DeleteOnly) -> Result<Deleted, Refusal> {
        let (vhost, name) = (&*queue.vhost, &*queue.name);
        if catalog.queue_id(vhost, name) != Some(queue.id) {
            return Err(Refusal::no_queue(vhost, name));
        }
        // Under the queue's lock: nothing is published to it between the question and its end.
        let (ready, consumers, contents) = queue.close(|depth| refuse((vhost, name), only, depth))?;
        let deleted = Deleted { ready, consumers, contents };
        catalog.delete_queue(vhost, name, queue.id)?;
        if let Some((log, queue)) = queue.log.as_ref().zip(self.queue(queue.id)) {
            log.closed.insert(queue); // before it is gone: a snapshot looks here afterwards
        }
        self.node().queues.write().remove(&queue.id);
        self.node().connections.churn.queues_deleted.fetch_add(1, Relaxed);
        Ok(deleted)
    }

    /// A queue that was to go with its last consumer goes, unless there is another one by now.
    pub(crate) async fn delete_unused_queue(&self, queue: &Queue) {
        // A refusal says that it is in use again, or gone.
        let _ = self.end_queue(queue, DeleteOnly { if_unused: true, if_empty: false }).await;
    }

    /// The queues that belong to a connection go with it.
    pub(crate) async fn delete_exclusive_queues(&self, connection: ConnectionId) {
        if self.catalog().exclusive_queues(connection).next().is_none() {
            return;
        }
        let broker = self.clone();
        let all_gone = async move {
            while broker.delete_some_exclusive_queues(connection).await? {
                tokio::task::yield_now().await;
            }
            Ok(())
        };
        // A refusal says that the node is stopping.
        let _ = self.to_its_end(all_gone).await;
    }

    /// Whether there were any.
    async fn delete_some_exclusive_queues(&self, connection: ConnectionId) -> Result<bool, Refusal> {
        let (deleted, mark) = self.change(|catalog| {
            let owned = catalog.exclusive_queues(connection).take(DELETED_AT_ONCE);
            let owned: Vec<_> = owned.map(|(vhost, name)| (vhost.clone(), name.clone())).collect();
            let mut deleted = Vec::new();
            for (vhost, name) in owned {
                let queue = catalog.queue_id(&vhost, &name).and_then(|id| self.queue(id));
                let queue = queue.ok_or_else(|| Refusal::no_queue(&vhost, &name))?;
                deleted.push(self.take_queue(catalog, &queue, DeleteOnly::default())?);
            }
            Ok(deleted)
        })?;
        let any = !deleted.is_empty();
        self.once_logged(mark, move || drop(deleted)).await?;
        Ok(any)
    }

    /// Binds an exchange to a queue or another exchange. Whether the binding is new.
    ///
    /// # Errors
    /// The catalog's refusals.
    pub async fn bind(
        &self,
        vhost: &str,
        source: &str,
        destination: Destination,
        route: (&[u8], &FieldTable),
        connection: Option<ConnectionId>,
    ) -> Result<bool, Refusal> {
        let (source, destination) = ends(source, &destination);
        let (created, mark) = self.change(|catalog| catalog.bind(vhost, &source, destination, route, connection))?;
        self.once_logged(mark, move || created).await
    }

    /// Removes a binding. Whether it was there.
    ///
    /// # Errors
    /// The catalog's refusals.
    pub async fn unbind(
        &self,
        vhost: &str,
        source: &str,
        destination: &Destination,
        route: (&[u8], &FieldTable),
        connection: Option<ConnectionId>,
    ) -> Result<bool, Refusal> {
        let (source, destination) = ends(source, destination);
        let (removed, mark) = self.change(|catalog| catalog.unbind(vhost, &source, &destination, route, connection))?;
        self.once_logged(mark, move || removed).await
    }
}

/// Source and destination of a binding as they are called.
fn ends(source: &str, destination: &Destination) -> (String, Destination) {
    let destination = match destination {
        Destination::Queue(name) => Destination::Queue(without_line_breaks(name).into_owned()),
        Destination::Exchange(name) => Destination::Exchange(without_line_breaks(name).into_owned()),
    };
    (without_line_breaks(source).into_owned(), destination)
}

fn refuse((vhost, name): (&str, &str), only: DeleteOnly, depth: Depth) -> Result<(), Refusal> {
    if only.if_unused && depth.consumers > 0 {
        return Err(Refusal::precondition(format!("queue '{name}' in vhost '{vhost}' in use")));
    }
    if only.if_empty && depth.ready + depth.unacked > 0 {
        return Err(Refusal::precondition(format!("queue '{name}' in vhost '{vhost}' not empty")));
    }
    Ok(())
}

/// Runs that are purged in one visit to a queue, about: others want its lock as well.
const PURGED_AT_ONCE: usize = 8192;
/// Contents of more bytes than this take long to drop.
const CONTENTS_LARGE: u64 = 1 << 20;
/// Queues that go with their connection are deleted so many at a time: others want the catalog too.
const DELETED_AT_ONCE: usize = 64;

#[cfg(test)]
#[path = "declare_tests.rs"]
mod tests;

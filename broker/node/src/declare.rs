//! The door for declarations of exchanges, queues and bindings. The catalog decides, and the node follows (see `effects`).
//!
//! A change of the definitions is logged before it is carried out and answered (see `definition_log`). The log of a queue's
//! shard gets its declaration next, and the queue takes messages from then on.
use crate::Broker;
use crate::ask::LOOK_AGAIN;
use crate::ask_messages::{QueueAnswer, QueueAsk};
use crate::caller::Caller;
use crate::deleted::{DeleteOnly, DeletedQueue};
use crate::outcome::{CommandOutcome, CreatedQueue, no_majority, overtaken, stopping};
use crate::queue::{Queue, QueueId};
use leveret_engine::catalog::{
    BindingDeclare, Bond, CatalogCommand, CommandAnswer, ConnectionId, Destination, ExchangeDeclare, Purpose,
    QueueDeclare, idle_arguments, on_default_exchange,
};
use leveret_engine::queue::{self as engine, Depth};
use leveret_model::name::without_line_breaks;
use leveret_model::refusal::Refusal;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

impl Broker {
    /// Returns whether the virtual host exists.
    pub fn has_vhost(&self, vhost: &str) -> bool {
        self.catalog().has_vhost(vhost)
    }

    /// Returns a random name of 22 characters, which is practically unique.
    pub fn random_name(&self) -> String {
        const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let random: u128 = rand::random();
        (0..22).map(|at| char::from(ALPHABET[(random >> (at * 6) & 63) as usize])).collect()
    }

    /// Checks that an exchange exists.
    ///
    /// # Errors
    /// 404 if it does not exist; 403 for the default exchange, which clients must not check.
    pub fn check_exchange(&self, _caller: &Caller, vhost: &str, name: &str) -> Result<(), Refusal> {
        let name = &without_line_breaks(name);
        if name.is_empty() {
            return Err(on_default_exchange());
        }
        self.catalog().exchange(vhost, name).map(drop)
    }

    /// Declares an exchange, or checks that it exists with the declared properties. Returns whether it is new.
    ///
    /// # Errors
    /// The catalog's refusals, or that the node is stopping.
    pub async fn declare_exchange(
        &self,
        _caller: &Caller,
        vhost: &str,
        name: &str,
        declare: ExchangeDeclare,
    ) -> Result<bool, Refusal> {
        let (vhost, name) = (vhost.to_owned(), without_line_breaks(name).into_owned());
        self.changes(CatalogCommand::DeclareExchange { vhost, name, declare }).await
    }

    /// Deletes an exchange and its bindings. Returns whether it existed.
    ///
    /// # Errors
    /// The catalog's refusals, or that the node is stopping.
    pub async fn delete_exchange(
        &self,
        _caller: &Caller,
        vhost: &str,
        name: &str,
        if_unused: bool,
    ) -> Result<bool, Refusal> {
        let (vhost, name) = (vhost.to_owned(), without_line_breaks(name).into_owned());
        self.changes(CatalogCommand::DeleteExchange { vhost, name, if_unused }).await
    }

    /// Declares a queue, or checks that it exists with the declared properties. Returns whether it is new, and the queue.
    /// Returns only when the caller's earlier publishes to an existing queue are visible in it.
    ///
    /// # Errors
    /// 406 if the name consists of line breaks alone, the catalog's refusals, or that the node is stopping.
    pub async fn declare_queue(
        &self,
        caller: &Caller,
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
        loop {
            let (at, name) = (vhost.to_owned(), name.clone().into_owned());
            let command = CatalogCommand::DeclareQueue {
                vhost: at,
                name: name.clone(),
                declare: declare.clone(),
                origin: caller.origin,
            };
            let CommandOutcome { answer, created, .. } = self.command(command).await?;
            let CommandAnswer { queue: Some(id), .. } = answer else { continue };
            let Some(created) = created else {
                if let Some(queue) = self.until_in_shard(vhost, &name, id).await? {
                    queue.caught_up().await;
                    return Ok((false, queue));
                }
                continue; // it was deleted meanwhile
            };
            if !idle.is_empty() {
                tracing::warn!(vhost, queue = ?name, arguments = ?idle, "these arguments of a queue do nothing");
            }
            return Ok((true, self.once_created(created).await?));
        }
    }

    /// Returns the queue that was created, once it exists.
    ///
    /// # Errors
    /// The node is stopping, or the queue was deleted while the node was cut off from the others.
    async fn once_created(&self, created: CreatedQueue) -> Result<Arc<Queue>, Refusal> {
        match created {
            CreatedQueue::Here(queue) => Ok(queue),
            CreatedQueue::InShard(queue) => tokio::select! {
                biased;
                queue = queue => queue.map_err(|_| overtaken()),
                () = self.node().stopping.cancelled() => Err(stopping()),
            },
        }
    }

    /// Returns a queue that somebody declared, once the log of its shard has the declaration; `None` if it is deleted
    /// meanwhile.
    ///
    /// # Errors
    /// The node is stopping.
    async fn until_in_shard(&self, vhost: &str, name: &str, id: QueueId) -> Result<Option<Arc<Queue>>, Refusal> {
        loop {
            let appeared = self.node().queues.declared.next();
            if let Some(queue) = self.queue(id) {
                return Ok(Some(queue));
            }
            if self.catalog().queue_id(vhost, name) != Some(id) {
                return Ok(None);
            }
            tokio::select! {
                () = appeared => {}
                () = self.node().stopping.cancelled() => return Err(stopping()),
            }
        }
    }

    /// Returns a queue that the caller may use.
    ///
    /// # Errors
    /// 404 if the queue does not exist, also while its declaration is being logged, or 405 if it belongs to another
    /// connection.
    pub fn find_queue(&self, caller: &Caller, vhost: &str, name: &str) -> Result<Arc<Queue>, Refusal> {
        self.find_queue_for(Purpose::Use, caller, vhost, name)
    }

    fn find_queue_for(
        &self,
        purpose: Purpose,
        caller: &Caller,
        vhost: &str,
        name: &str,
    ) -> Result<Arc<Queue>, Refusal> {
        let catalog = self.catalog();
        let id = catalog.queue(vhost, name, caller.origin, purpose)?.id;
        self.queue(id).ok_or_else(|| Refusal::no_queue(vhost, name))
    }

    /// Returns the queue with this identity; `None` if it was deleted.
    pub fn queue(&self, id: QueueId) -> Option<Arc<Queue>> {
        self.queues().get(&id).cloned()
    }

    /// Removes the ready messages of a queue. Returns how many were removed.
    ///
    /// # Errors
    /// 404 if the queue does not exist or is deleted meanwhile, or 405 if it belongs to another connection.
    pub async fn purge_queue(&self, caller: &Caller, vhost: &str, name: &str) -> Result<u64, Refusal> {
        let queue = self.find_queue_for(Purpose::Administer, caller, vhost, &without_line_breaks(name))?;
        queue.check_here()?;
        queue.caught_up().await;
        self.check_majority(&queue)?;
        loop {
            if self.is_served_here(&queue) {
                return self.purge(&queue).await;
            }
            if let QueueAnswer::Done(purged) = self.ask_leader(&queue, QueueAsk::Purge).await? {
                return Ok(purged);
            }
        }
    }

    /// Removes the ready messages of a queue that this node serves. Returns how many were removed.
    pub(crate) async fn purge(&self, queue: &Queue) -> Result<u64, Refusal> {
        let before = queue.look(engine::QueueCore::next_sequence);
        let mut purged = 0;
        loop {
            let (more, done) = queue.enter().purge_some(before, PURGED_AT_ONCE);
            if queue.is_deleted() {
                return Err(queue.not_found());
            }
            purged += more;
            if done {
                queue.settled().await; // a client that was answered must not see the messages again after a crash
                return Ok(purged);
            }
            tokio::task::yield_now().await;
        }
    }

    /// Deletes a queue with all of its messages. The consumers of the queue are told when the result is dropped.
    ///
    /// # Errors
    /// 404 if the queue does not exist or its name means another queue meanwhile, 405 if it belongs to another connection,
    /// 406 if `only` forbids the deletion, or that the node is stopping.
    pub async fn delete_queue(
        &self,
        caller: &Caller,
        vhost: &str,
        name: &str,
        only: DeleteOnly,
    ) -> Result<DeletedQueue, Refusal> {
        let queue = self.find_queue_for(Purpose::Administer, caller, vhost, &without_line_breaks(name))?;
        if only != DeleteOnly::default() {
            queue.check_here()?;
        }
        queue.caught_up().await;
        if only.if_empty {
            queue.settled().await;
        }
        loop {
            if self.is_served_here(&queue) {
                if let Some(deleted) = self.end_queue(&queue, only).await? {
                    return Ok(deleted);
                }
                tokio::time::sleep(LOOK_AGAIN).await;
                continue;
            }
            if let QueueAnswer::Done(ready) = self.ask_leader(&queue, QueueAsk::Delete(only)).await? {
                self.until_deleted_here(&queue).await;
                return Ok(DeletedQueue { ready, consumers: Vec::new(), contents: None });
            }
        }
    }

    /// Waits until the definitions of this node have a deletion that another node has carried out.
    async fn until_deleted_here(&self, queue: &Queue) {
        while self.catalog().queue_id(&queue.vhost, &queue.name) == Some(queue.id) {
            tokio::select! {
                () = tokio::time::sleep(DELETED_LOOK) => {}
                () = self.node().stopping.cancelled() => return,
            }
        }
    }

    /// Deletes this queue, which this node serves, but not another one that has its name by now. Returns `None` if this node
    /// does not serve it any more.
    pub(crate) async fn end_queue(&self, queue: &Queue, only: DeleteOnly) -> Result<Option<DeletedQueue>, Refusal> {
        let (vhost, name) = (queue.vhost.to_string(), queue.name.to_string());
        if only != DeleteOnly::default() && !self.still_leads(queue).await? {
            return Ok(None);
        }
        if self.catalog().queue_id(&vhost, &name) != Some(queue.id) {
            return Err(queue.not_found());
        }
        self.until_commands_have_room().await?; // a queue that was sealed must be deleted
        queue.seal(|depth| refuse(queue, only, depth))?;
        let outcome = self.command(CatalogCommand::DeleteQueue { vhost, name, id: queue.id }).await?;
        outcome.deleted.into_iter().next().map(Some).ok_or_else(|| queue.not_found())
    }

    /// Checks that this node still leads a queue that it has led, so that what it knows of the queue's consumers and messages
    /// is so: a leader that is cut off from the others does not see that another one leads. An operation that changes nothing
    /// goes through the log.
    async fn still_leads(&self, queue: &Queue) -> Result<bool, Refusal> {
        let (Some(shards), Some(_)) = (&queue.shards, self.node().links()) else { return Ok(true) };
        self.check_majority(queue)?;
        let Some(epoch) = queue.look(|queue| queue.is_leading().then(|| queue.epoch())) else { return Ok(false) };
        let shard = shards.shard(queue.id);
        shard.mark(queue.id);
        tokio::select! {
            () = shard.outbox.until_settled() => {}
            () = shards.memory.until_cluster_alarmed() => return Err(no_majority()),
            () = self.node().stopping.cancelled() => return Err(stopping()),
            () = tokio::time::sleep(STILL_LEADS_MAX) => return Err(self.unanswered(queue, None)),
        }
        Ok(queue.look(|queue| queue.is_led_in(epoch)))
    }

    /// Deletes an auto-delete queue whose last consumer has left, unless the queue has another consumer by now.
    pub(crate) async fn delete_unused_queue(&self, queue: &Queue) {
        // A refusal means that the queue is in use again, or gone.
        let _ = self.end_queue(queue, DeleteOnly { if_unused: true, if_empty: false }).await;
    }

    /// Deletes the exclusive queues of a connection that has ended. Returns before that is done if most nodes of the cluster
    /// cannot be reached.
    pub(crate) async fn delete_exclusive_queues(&self, connection: ConnectionId) {
        let has_some = self.catalog().exclusive_queues(connection).next().is_some();
        if !has_some && self.node().definitions.outbox.is_idle() {
            return; // otherwise a declaration may be on its way whose client did not wait for the answer
        }
        let broker = self.clone();
        let all_gone = async move {
            loop {
                match broker.changes(CatalogCommand::DeleteExclusive { owner: connection, most: DELETED_AT_ONCE }).await
                {
                    Ok(true) => tokio::task::yield_now().await,
                    Ok(false) => return Ok(()),
                    Err(refusal) if broker.node().stopping.is_cancelled() => return Err(refusal),
                    Err(_) => broker.memory().until_majority(DELETE_AGAIN).await,
                }
            }
        };
        tokio::select! {
            biased; // the first has to be begun, whatever the second says
            _ = self.to_its_end(all_gone) => {}
            () = self.memory().until_cluster_alarmed() => {}
        }
    }

    /// Binds an exchange to a queue or another exchange. Returns whether the binding is new.
    ///
    /// # Errors
    /// The catalog's refusals, or that the node is stopping.
    pub async fn bind(&self, caller: &Caller, vhost: &str, binding: BindingDeclare<'_>) -> Result<bool, Refusal> {
        self.changes(CatalogCommand::Bind { bond: bond(vhost, binding), origin: caller.origin }).await
    }

    /// Removes a binding. Returns whether it existed.
    ///
    /// # Errors
    /// The catalog's refusals, or that the node is stopping.
    pub async fn unbind(&self, caller: &Caller, vhost: &str, binding: BindingDeclare<'_>) -> Result<bool, Refusal> {
        self.changes(CatalogCommand::Unbind { bond: bond(vhost, binding), origin: caller.origin }).await
    }

    /// Has a command carried out. Returns whether it changed something.
    async fn changes(&self, command: CatalogCommand) -> Result<bool, Refusal> {
        Ok(self.command(command).await?.answer.changed)
    }
}

/// Returns a binding with the names as the catalog has them: without line breaks.
fn bond(vhost: &str, binding: BindingDeclare<'_>) -> Bond {
    let BindingDeclare { source, destination, routing_key, arguments } = binding;
    let destination = match destination {
        Destination::Queue(name) => Destination::Queue(without_line_breaks(name).into_owned()),
        Destination::Exchange(name) => Destination::Exchange(without_line_breaks(name).into_owned()),
    };
    let source: &str = &without_line_breaks(source);
    let (vhost, source) = (vhost.into(), source.into());
    Bond { vhost, source, destination, routing_key: routing_key.to_vec(), arguments: arguments.clone() }
}

fn refuse(queue: &Queue, only: DeleteOnly, depth: Depth) -> Result<(), Refusal> {
    let (vhost, name) = (&*queue.vhost, &*queue.name);
    if only.if_unused && depth.consumers > 0 {
        return Err(Refusal::precondition(format!("queue '{name}' in vhost '{vhost}' in use")));
    }
    if only.if_empty && depth.ready + depth.unacked > 0 {
        return Err(Refusal::precondition(format!("queue '{name}' in vhost '{vhost}' not empty")));
    }
    Ok(())
}

/// The longest time in which a leader finds out whether it still leads.
const STILL_LEADS_MAX: Duration = Duration::from_secs(10);
/// The interval at which a node looks whether it knows of a deletion.
const DELETED_LOOK: Duration = Duration::from_millis(1);
/// The number of runs, about, that are purged in one visit to a queue: others want its lock as well.
const PURGED_AT_ONCE: usize = 8192;
/// The number of exclusive queues that are deleted at a time: others want the catalog too.
const DELETED_AT_ONCE: u32 = 64;
/// Pause before the exclusive queues of a connection are deleted again, if that was refused.
const DELETE_AGAIN: Duration = Duration::from_secs(1);

#[cfg(test)]
#[path = "declare_tests.rs"]
mod tests;

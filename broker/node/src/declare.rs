//! The door for what is declared: exchanges, queues, bindings. The catalog decides, the queues follow.
//!
//! Asynchronous from the first day: with a replicated catalog an answer waits for a majority.
use crate::Broker;
use crate::queue::{Queue, QueueId};
use leveret_engine::catalog::{Catalog, ConnectionId, Destination, ExchangeDeclare, QueueDeclare};
use leveret_engine::queue::Depth;
use leveret_model::refusal::{Refusal, RefusalKind};
use leveret_model::table::FieldTable;
use std::sync::Arc;

/// On which conditions a queue is deleted.
#[derive(Clone, Copy, Debug, Default)]
pub struct DeleteOnly {
    /// It has no consumers.
    pub if_unused: bool,
    /// It has no ready messages.
    pub if_empty: bool,
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

    fn change<T>(&self, change: impl FnOnce(&mut Catalog) -> Result<T, Refusal>) -> Result<T, Refusal> {
        let mut catalog = self.node().catalog.write();
        let changed = change(&mut catalog);
        self.catalog_changed();
        changed
    }

    /// Checks that an exchange is there.
    ///
    /// # Errors
    /// 404; 403 for the default exchange, of which nothing is told.
    pub fn check_exchange(&self, vhost: &str, name: &str) -> Result<(), Refusal> {
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
        self.change(|catalog| catalog.declare_exchange(vhost, name, declare))
    }

    /// Deletes an exchange and its bindings. Whether it was there.
    ///
    /// # Errors
    /// The catalog's refusals.
    pub async fn delete_exchange(&self, vhost: &str, name: &str, if_unused: bool) -> Result<bool, Refusal> {
        self.change(|catalog| catalog.delete_exchange(vhost, name, if_unused))
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
        let auto_delete = declare.auto_delete;
        self.change(|catalog| {
            let declared = catalog.declare_queue(vhost, name, declare)?;
            // Entered while the catalog is held: whoever finds the name finds the queue.
            let mut queues = self.node().queues.write();
            let queue = queues.entry(declared.id).or_insert_with(|| {
                let names = (vhost.into(), name.into());
                Arc::new(Queue::new(declared.id, names, auto_delete, self.node().memory.clone()))
            });
            Ok((declared.created, queue.clone()))
        })
    }

    /// Finds a queue that `connection` (none: the API) may use.
    ///
    /// # Errors
    /// 404, or 405 if it belongs to another connection.
    pub fn find_queue(&self, vhost: &str, name: &str, connection: Option<ConnectionId>) -> Result<Arc<Queue>, Refusal> {
        let catalog = self.catalog();
        let id = catalog.queue(vhost, name, connection)?.id;
        self.queues().get(&id).cloned().ok_or_else(|| Refusal::no_queue(vhost, name))
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
        Ok(self.find_queue(vhost, name, connection)?.enter().purge())
    }

    /// Deletes a queue with all that is in it: how many messages were ready.
    ///
    /// # Errors
    /// 404, 405 if it belongs to another connection, 406 when it is in use or not empty and that was asked.
    pub async fn delete_queue(
        &self,
        vhost: &str,
        name: &str,
        only: DeleteOnly,
        connection: Option<ConnectionId>,
    ) -> Result<u64, Refusal> {
        let queue = self.find_queue(vhost, name, connection)?;
        self.change(|catalog| {
            // Under the queue's lock: nothing is published to it between the question and its end.
            let consumers = queue.close(|depth| refuse((vhost, name), only, depth))?;
            catalog.delete_queue(vhost, name, connection)?;
            Ok(consumers)
        })
        .map(|(ready, consumers)| {
            self.node().queues.write().remove(&queue.id);
            for consumer in consumers {
                consumer.subscription.sink.cancelled();
            }
            ready
        })
    }

    /// A queue that was to go with its last consumer goes, unless there is another one by now.
    pub(crate) async fn delete_unused_queue(&self, queue: &Queue) {
        let current = self.catalog().queue(&queue.vhost, &queue.name, None).is_ok_and(|found| found.id == queue.id);
        let owner = self.catalog().owner(&queue.vhost, &queue.name);
        if current || owner.is_some() {
            let only = DeleteOnly { if_unused: true, if_empty: false };
            let _ = self.delete_queue(&queue.vhost, &queue.name, only, owner).await;
        }
    }

    /// The queues that belong to a connection go with it.
    pub(crate) async fn delete_exclusive_queues(&self, connection: ConnectionId) {
        let owned = self.catalog().exclusive_queues(connection);
        for (vhost, name) in owned {
            let _ = self.delete_queue(&vhost, &name, DeleteOnly::default(), Some(connection)).await;
        }
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
        self.change(|catalog| catalog.bind(vhost, source, destination, route, connection))
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
        self.change(|catalog| catalog.unbind(vhost, source, destination, route, connection))
    }
}

fn refuse((vhost, name): (&str, &str), only: DeleteOnly, depth: Depth) -> Result<(), Refusal> {
    if only.if_unused && depth.consumers > 0 {
        return Err(Refusal::precondition(format!("queue '{name}' in vhost '{vhost}' in use")));
    }
    if only.if_empty && depth.ready > 0 {
        return Err(Refusal::precondition(format!("queue '{name}' in vhost '{vhost}' not empty")));
    }
    Ok(())
}

//! The door for what is declared: exchanges, queues, bindings. The catalog decides, the queues follow.
//!
//! What is durable is logged before it is answered, one declaration after the other; a queue takes messages from then on.
use crate::Broker;
use crate::definitions::{Fact, Route};
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
        let fact = Fact::Exchange { vhost: vhost.to_owned(), name: name.to_owned(), declare: declare.clone() };
        let durable = declare.durable;
        let _turn = if durable { self.turn().await } else { None };
        let created = self.change(|catalog| catalog.declare_exchange(vhost, name, declare))?;
        if created && durable {
            self.log_facts(&[fact]).await?;
        }
        Ok(created)
    }

    /// Deletes an exchange and its bindings. Whether it was there.
    ///
    /// # Errors
    /// The catalog's refusals.
    pub async fn delete_exchange(&self, vhost: &str, name: &str, if_unused: bool) -> Result<bool, Refusal> {
        let durable = self.catalog().exchange(vhost, name).is_ok_and(|exchange| exchange.declared.durable);
        let _turn = if durable { self.turn().await } else { None };
        let deleted = self.change(|catalog| catalog.delete_exchange(vhost, name, if_unused))?;
        if deleted && durable {
            self.log_facts(&[Fact::ExchangeGone { vhost: vhost.to_owned(), name: name.to_owned() }]).await?;
        }
        Ok(deleted)
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
        let logged = declare.durable && declare.exclusive.is_none() && self.0.storage.get().is_some();
        // Whoever finds the name of a durable queue waits until the log has it.
        let _turn = if logged { self.turn().await } else { None };
        let arguments = declare.arguments.clone();
        let (declared, queue) = self.change(|catalog| {
            let declared = catalog.declare_queue(vhost, name, declare)?;
            let found = catalog.queue(vhost, name, None).or_else(|_| {
                let owner = catalog.owner(vhost, name);
                catalog.queue(vhost, name, owner)
            })?;
            if let Some(queue) = self.queues().get(&declared.id) {
                return Ok((declared, queue.clone()));
            }
            let names = (vhost.into(), name.into());
            let queue = Arc::new(Queue::new(found, names, self.node().memory.clone(), self.node().log.get().cloned()));
            if !logged {
                // Entered while the catalog is held: whoever finds the name finds the queue.
                self.node().queues.write().insert(declared.id, queue.clone());
            }
            Ok((declared, queue))
        })?;
        if declared.created && logged {
            let (vhost, name, auto_delete) = (vhost.to_owned(), name.to_owned(), queue.auto_delete);
            self.log_facts(&[Fact::Queue { vhost, name, id: declared.id.0, auto_delete, arguments }]).await?;
            self.node().queues.write().insert(declared.id, queue.clone());
            self.catalog_changed(); // a route found meanwhile does not lead to it
        }
        if !declared.created {
            queue.caught_up().await;
        }
        Ok((declared.created, queue))
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
        let queue = self.find_queue(vhost, name, connection)?;
        queue.caught_up().await;
        Ok(queue.enter().purge())
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
        queue.caught_up().await;
        let _turn = if queue.log.is_some() { self.turn().await } else { None };
        let (ready, consumers) = self.change(|catalog| {
            // Under the queue's lock: nothing is published to it between the question and its end.
            let consumers = queue.close(|depth| refuse((vhost, name), only, depth))?;
            catalog.delete_queue(vhost, name, connection)?;
            Ok(consumers)
        })?;
        self.node().queues.write().remove(&queue.id);
        for consumer in consumers {
            consumer.subscription.sink.cancelled();
        }
        if queue.log.is_some() {
            self.log_facts(&[Fact::QueueGone { vhost: vhost.to_owned(), name: name.to_owned() }]).await?;
        }
        Ok(ready)
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
        let logged = self.catalog().is_logged(vhost, source, &destination);
        let _turn = if logged { self.turn().await } else { None };
        let fact = binding(vhost, source, &destination, route);
        let created = self.change(|catalog| catalog.bind(vhost, source, destination, route, connection))?;
        if created && logged {
            self.log_facts(&[Fact::Bound(fact)]).await?;
        }
        Ok(created)
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
        let logged = self.catalog().is_logged(vhost, source, destination);
        let _turn = if logged { self.turn().await } else { None };
        let removed = self.change(|catalog| catalog.unbind(vhost, source, destination, route, connection))?;
        if removed && logged {
            self.log_facts(&[Fact::Unbound(binding(vhost, source, destination, route))]).await?;
        }
        Ok(removed)
    }
}

fn binding(vhost: &str, source: &str, destination: &Destination, route: (&[u8], &FieldTable)) -> Route {
    Route {
        vhost: vhost.to_owned(),
        source: source.to_owned(),
        destination: destination.clone(),
        routing_key: route.0.to_vec(),
        arguments: route.1.clone(),
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

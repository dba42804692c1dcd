//! Queues: declared, found equivalent or not, deleted. What is in them is not the catalog's business.
use super::bindings::{Destination, Target};
use super::limits::{self, QUEUES_MAX};
use super::{Catalog, ConnectionId, Effect, Fact, QueueId, Vhost, arguments, inequivalent};
use leveret_model::name;
use leveret_model::refusal::{Refusal, RefusalKind};
use leveret_model::table::{FieldTable, FieldValue};
use std::collections::BTreeSet;
use std::sync::Arc;

/// A queue that is declared.
#[derive(Clone, Debug)]
pub struct Queue {
    /// Its identity.
    pub id: QueueId,
    /// It outlives a restart.
    pub durable: bool,
    /// The one connection that may use it, and that it goes with.
    pub exclusive: Option<ConnectionId>,
    /// It goes with its last consumer.
    pub auto_delete: bool,
    /// As they were declared.
    pub arguments: FieldTable,
    /// Names of exchanges that are bound to it.
    pub(super) sources: BTreeSet<Arc<str>>,
}

/// How a queue is declared; by default as one that is transient and shared, without arguments, through the API.
#[derive(Clone, Debug, Default)]
pub struct QueueDeclare {
    /// It outlives a restart.
    pub durable: bool,
    /// For one connection alone, and gone with it.
    pub exclusive: Option<ConnectionId>,
    /// It goes with its last consumer.
    pub auto_delete: bool,
    /// `x-queue-type`, and what the broker does not look at.
    pub arguments: FieldTable,
    /// The name was made by the server, and may be of those that are reserved.
    pub server_named: bool,
    /// Who declares it; none: the API.
    pub connection: Option<ConnectionId>,
}

/// What a declaration came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Declared {
    /// The queue.
    pub id: QueueId,
    /// It was not there before.
    pub created: bool,
}

impl Catalog {
    /// Declares a queue.
    ///
    /// # Errors
    /// 403 for a reserved name, 405 if it belongs to another connection, 406 if it is there and different, for an argument
    /// that is not supported, and for more queues than there may be.
    pub fn declare_queue(&mut self, vhost: &str, name: &str, declare: QueueDeclare) -> Result<Declared, Refusal> {
        arguments::check((vhost, name), &declare)?;
        if let Some(current) = self.vhost(vhost)?.queues.get(name) {
            current.check_access((vhost, name), declare.connection)?;
            equivalent((vhost, name), current, &declare)?;
            return Ok(Declared { id: current.id, created: false });
        }
        if !declare.server_named {
            name::check("queue", name)?;
        }
        limits::check_arguments("queue", name, &declare.arguments)?;
        let in_vhost = self.vhost(vhost)?;
        limits::check(in_vhost.queues.len() + 1, QUEUES_MAX, "queues", vhost)?;
        in_vhost.usage.check_bytes(queue_bytes(name, &declare.arguments), self.bytes_max, vhost)?;
        let id = QueueId(self.next_id());
        let QueueDeclare { durable, exclusive, auto_delete, arguments, .. } = declare;
        let queue = Queue { id, durable, exclusive, auto_delete, arguments, sources: BTreeSet::new() };
        let in_vhost = self.vhost_mut(vhost)?;
        let (at, logged) = (in_vhost.name.clone(), queue.is_logged());
        let name: Arc<str> = name.into();
        let fact = queue.fact(&at, &name);
        in_vhost.add_queue(&name, queue);
        self.effects.push(Effect { fact, logged, changes_bindings: false });
        if let Some(owner) = exclusive {
            self.exclusive.entry(owner).or_default().insert((at, name));
        }
        Ok(Declared { id, created: true })
    }

    /// Finds a queue that `connection` (none: the API) may use.
    ///
    /// # Errors
    /// 404, or 405 if it belongs to another connection.
    pub fn queue(&self, vhost: &str, name: &str, connection: Option<ConnectionId>) -> Result<&Queue, Refusal> {
        let queue = self.vhost(vhost)?.queues.get(name).ok_or_else(|| Refusal::no_queue(vhost, name))?;
        queue.check_access((vhost, name), connection)?;
        Ok(queue)
    }

    /// The connection that a queue belongs to.
    #[must_use]
    pub fn owner(&self, vhost: &str, name: &str) -> Option<ConnectionId> {
        self.vhost(vhost).ok()?.queues.get(name)?.exclusive
    }

    /// The identity of the queue that has this name now.
    #[must_use]
    pub fn queue_id(&self, vhost: &str, name: &str) -> Option<QueueId> {
        Some(self.vhost(vhost).ok()?.queues.get(name)?.id)
    }

    /// Deletes a queue and the bindings to it; auto-delete exchanges that lose their last binding by that go too.
    ///
    /// # Errors
    /// 404, also if the name means another queue by now.
    pub fn delete_queue(&mut self, vhost: &str, name: &str, id: QueueId) -> Result<(), Refusal> {
        let in_vhost = self.vhost_mut(vhost)?;
        if in_vhost.queues.get(name).is_none_or(|queue| queue.id != id) {
            return Err(Refusal::no_queue(vhost, name));
        }
        let Some((name, queue)) = in_vhost.take_queue(name) else { return Ok(()) };
        let left_over: Vec<_> = queue.sources.iter().filter(|source| in_vhost.is_left_over(source)).cloned().collect();
        let at = in_vhost.name.clone();
        let logged = queue.is_logged();
        if let Some(owner) = queue.exclusive
            && let Some(owned) = self.exclusive.get_mut(&owner)
        {
            owned.remove(&(at.clone(), name.clone()));
            if owned.is_empty() {
                self.exclusive.remove(&owner);
            }
        }
        let (fact, changes_bindings) = (Fact::QueueGone { vhost: at, name }, !queue.sources.is_empty());
        self.effects.push(Effect { fact, logged, changes_bindings });
        self.remove_exchanges(vhost, left_over);
        Ok(())
    }

    /// The queues that belong to a connection: virtual host and name.
    pub fn exclusive_queues(&self, connection: ConnectionId) -> impl Iterator<Item = (&Arc<str>, &Arc<str>)> {
        self.exclusive.get(&connection).into_iter().flatten().map(|(vhost, name)| (vhost, name))
    }
}

impl Vhost {
    pub(super) fn add_queue(&mut self, name: &Arc<str>, queue: Queue) {
        self.usage.bytes += queue_bytes(name, &queue.arguments);
        self.queues.insert(name.clone(), queue);
    }

    /// Takes a queue away with the bindings to it, and nothing else. Its sources are then those that lost a binding by it.
    pub(super) fn take_queue(&mut self, name: &str) -> Option<(Arc<str>, Queue)> {
        let (name, mut queue) = self.queues.remove_entry(name)?;
        self.usage.bytes -= queue_bytes(&name, &queue.arguments);
        let destination = Destination::Queue(name.to_string());
        queue.sources.retain(|source| self.remove_bindings_to(source, &destination, Target::Queue(queue.id)));
        Some((name, queue))
    }
}

fn queue_bytes(name: &str, arguments: &FieldTable) -> usize {
    QUEUE_BYTES + 2 * name.len() + arguments.memory_bytes()
}

impl Queue {
    /// One that outlives restarts.
    pub(super) fn durable(id: QueueId, auto_delete: bool, arguments: FieldTable) -> Self {
        Self { id, durable: true, exclusive: None, auto_delete, arguments, sources: BTreeSet::new() }
    }

    pub(super) fn fact(&self, vhost: &Arc<str>, name: &Arc<str>) -> Fact {
        let (id, auto_delete, arguments) = (self.id, self.auto_delete, self.arguments.clone());
        Fact::Queue { vhost: vhost.clone(), name: name.clone(), id, auto_delete, arguments }
    }

    /// Whether it is kept in the log: durable, and not gone with a connection.
    #[must_use]
    pub fn is_logged(&self) -> bool {
        self.durable && self.exclusive.is_none()
    }

    /// `classic` or `quorum`.
    #[must_use]
    pub fn queue_type(&self) -> &'static str {
        queue_type(&self.arguments)
    }

    /// How often a message may be given back before it is dropped; none: for ever.
    #[must_use]
    pub fn delivery_limit(&self) -> Option<u32> {
        if self.queue_type() == "classic" {
            return None;
        }
        match self.arguments.get("x-delivery-limit").and_then(FieldValue::as_integer) {
            None => Some(DELIVERY_LIMIT),
            Some(limit) => u32::try_from(limit).ok(),
        }
    }

    fn check_access(&self, (vhost, name): (&str, &str), connection: Option<ConnectionId>) -> Result<(), Refusal> {
        match self.exclusive {
            Some(owner) if connection != Some(owner) => Err(locked(vhost, name)),
            _ => Ok(()),
        }
    }
}

fn locked(vhost: &str, name: &str) -> Refusal {
    let text = format!(
        "cannot obtain exclusive access to locked queue '{name}' in vhost '{vhost}'. It could be originally declared on \
         another connection or the exclusive property value does not match that of the original declaration."
    );
    Refusal::new(RefusalKind::ResourceLocked, text)
}

fn equivalent(at: (&str, &str), current: &Queue, new: &QueueDeclare) -> Result<(), Refusal> {
    let what = ("queue", at.1, at.0);
    if current.exclusive != new.exclusive {
        return Err(locked(at.0, at.1));
    }
    let (wanted, is) = (queue_type(&new.arguments), current.queue_type());
    if wanted != is {
        return Err(inequivalent(what, "x-queue-type", wanted, is));
    }
    let limit = |arguments: &FieldTable| arguments.get("x-delivery-limit").and_then(FieldValue::as_integer);
    let (wanted, is) = (limit(&new.arguments), limit(&current.arguments));
    if wanted != is {
        let show = |limit: Option<i64>| limit.map_or("none".to_owned(), |limit| limit.to_string());
        return Err(inequivalent(what, "x-delivery-limit", show(wanted), show(is)));
    }
    if current.durable != new.durable {
        return Err(inequivalent(what, "durable", new.durable, current.durable));
    }
    if current.auto_delete != new.auto_delete {
        return Err(inequivalent(what, "auto_delete", new.auto_delete, current.auto_delete));
    }
    Ok(())
}

pub(super) fn queue_type(arguments: &FieldTable) -> &'static str {
    match arguments.get("x-queue-type").and_then(FieldValue::as_str) {
        Some("quorum") => "quorum",
        _ => "classic",
    }
}

/// As quorum queues have it in RabbitMQ 4.
const DELIVERY_LIMIT: u32 = 20;
/// Memory of a queue without its names, arguments and contents, in bytes.
const QUEUE_BYTES: usize = 1 << 10;

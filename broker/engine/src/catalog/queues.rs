//! Queues: declared, found equivalent or not, deleted. What is in them is not the catalog's business.
use super::bindings::{Destination, Target};
use super::exchanges::unsupported;
use super::{Catalog, ConnectionId, QueueId, inequivalent};
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

/// How a queue is declared.
#[derive(Clone, Debug)]
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
    /// 403 for a reserved name, 405 if it belongs to another connection, 406 if it is there and different or for an
    /// argument that is not supported.
    pub fn declare_queue(&mut self, vhost: &str, name: &str, declare: QueueDeclare) -> Result<Declared, Refusal> {
        let id = QueueId(self.next_id);
        self.declare_queue_as(vhost, name, declare, id)
    }

    /// Declares a queue, which has identity `id` if it is new: for what a log says.
    ///
    /// # Errors
    /// As [`declare_queue`](Self::declare_queue).
    pub fn declare_queue_as(
        &mut self,
        vhost: &str,
        name: &str,
        declare: QueueDeclare,
        id: QueueId,
    ) -> Result<Declared, Refusal> {
        check_arguments((vhost, name), &declare)?;
        if let Some(current) = self.vhost(vhost)?.queues.get(name) {
            current.check_access((vhost, name), declare.connection)?;
            equivalent((vhost, name), current, &declare)?;
            return Ok(Declared { id: current.id, created: false });
        }
        if !declare.server_named {
            name::check("queue", name)?;
        }
        self.raise_next_identity(id.0 + 1);
        let QueueDeclare { durable, exclusive, auto_delete, arguments, .. } = declare;
        let queue = Queue { id, durable, exclusive, auto_delete, arguments, sources: BTreeSet::new() };
        self.vhost_mut(vhost)?.queues.insert(name.into(), queue);
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

    /// Deletes a queue and the bindings to it.
    ///
    /// # Errors
    /// 404, or 405 if it belongs to another connection.
    pub fn delete_queue(
        &mut self,
        vhost: &str,
        name: &str,
        connection: Option<ConnectionId>,
    ) -> Result<QueueId, Refusal> {
        let id = self.queue(vhost, name, connection)?.id;
        let in_vhost = self.vhost_mut(vhost)?;
        if let Some(queue) = in_vhost.queues.remove(name) {
            for source in &queue.sources {
                in_vhost.remove_bindings_to(source, &Destination::Queue(name.to_owned()), Target::Queue(id));
            }
        }
        Ok(id)
    }

    /// The queues that belong to a connection: virtual host and name.
    #[must_use]
    pub fn exclusive_queues(&self, connection: ConnectionId) -> Vec<(Arc<str>, Arc<str>)> {
        let mut found = Vec::new();
        for (vhost, inside) in &self.vhosts {
            let owned = inside.queues.iter().filter(|(_, queue)| queue.exclusive == Some(connection));
            found.extend(owned.map(|(name, _)| (vhost.clone(), name.clone())));
        }
        found
    }
}

impl Queue {
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

/// An argument that begins with `x-` would change what the queue does, and is refused unless it does so.
fn check_arguments(at: (&str, &str), declare: &QueueDeclare) -> Result<(), Refusal> {
    let quorum = queue_type(&declare.arguments) == "quorum";
    for (argument, value) in declare.arguments.iter() {
        match argument {
            "x-queue-type" if matches!(value.as_str(), Some("classic" | "quorum")) => {}
            "x-queue-type" => {
                let text = format!(
                    "invalid arg 'x-queue-type' for queue '{}' in vhost '{}': {value} is not supported, 'classic' and \
                     'quorum' are",
                    at.1, at.0
                );
                return Err(Refusal::precondition(text));
            }
            "x-delivery-limit" if quorum && value.as_integer().is_some_and(is_delivery_limit) => {}
            "x-delivery-limit" if quorum => {
                let text = format!(
                    "invalid arg 'x-delivery-limit' for queue '{}' in vhost '{}': {value} is not a number from -1 on",
                    at.1, at.0
                );
                return Err(Refusal::precondition(text));
            }
            _ if argument.starts_with("x-") => return Err(unsupported("queue", at, argument)),
            _ => {}
        }
    }
    let wrong = match declare {
        _ if !quorum => None,
        QueueDeclare { durable: false, .. } => Some("non-durable"),
        QueueDeclare { exclusive: Some(_), .. } => Some("exclusive"),
        QueueDeclare { auto_delete: true, .. } => Some("auto-delete"),
        _ => None,
    };
    match wrong {
        Some(property) => Err(Refusal::precondition(format!(
            "invalid property '{property}' for queue '{}' in vhost '{}': a quorum queue is durable, shared and stays",
            at.1, at.0
        ))),
        None => Ok(()),
    }
}

fn is_delivery_limit(limit: i64) -> bool {
    limit == -1 || u32::try_from(limit).is_ok()
}

fn queue_type(arguments: &FieldTable) -> &'static str {
    match arguments.get("x-queue-type").and_then(FieldValue::as_str) {
        Some("quorum") => "quorum",
        _ => "classic",
    }
}

/// As quorum queues have it in RabbitMQ 4.
const DELIVERY_LIMIT: u32 = 20;

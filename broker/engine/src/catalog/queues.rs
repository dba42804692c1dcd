//! Queues: declared, found equivalent or not, deleted. What is in them is not the catalog's business.
use super::bindings::{Destination, Target};
use super::exchanges::unsupported;
use super::{Catalog, ConnectionId, QueueId, inequivalent};
use leveret_model::name;
use leveret_model::refusal::{Refusal, RefusalKind};
use leveret_model::table::FieldTable;
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
        check_arguments((vhost, name), &declare.arguments)?;
        if let Some(current) = self.vhost(vhost)?.queues.get(name) {
            current.check_access((vhost, name), declare.connection)?;
            equivalent((vhost, name), current, &declare)?;
            return Ok(Declared { id: current.id, created: false });
        }
        if !declare.server_named {
            name::check("queue", name)?;
        }
        let id = QueueId(self.next_id());
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
    if current.durable != new.durable {
        return Err(inequivalent(what, "durable", new.durable, current.durable));
    }
    if current.auto_delete != new.auto_delete {
        return Err(inequivalent(what, "auto_delete", new.auto_delete, current.auto_delete));
    }
    Ok(())
}

/// `x-queue-type: classic` is what a queue is anyway; any other argument that begins with `x-` would change what the
/// queue does, and is refused until it does so.
fn check_arguments(at: (&str, &str), arguments: &FieldTable) -> Result<(), Refusal> {
    for (argument, value) in arguments.iter() {
        let honoured = match argument {
            "x-queue-type" => value.as_str() == Some("classic"),
            _ => !argument.starts_with("x-"),
        };
        if !honoured && argument == "x-queue-type" {
            let text = format!(
                "invalid arg 'x-queue-type' for queue '{}' in vhost '{}': {value} is not supported, 'classic' is",
                at.1, at.0
            );
            return Err(Refusal::precondition(text));
        }
        if !honoured {
            return Err(unsupported("queue", at, argument));
        }
    }
    Ok(())
}

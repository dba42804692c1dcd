//! Declaring queues, comparing further declarations, and deleting them. The catalog does not know the messages in them.
use super::bindings::{Destination, Target};
use super::limits::{self, QUEUES_MAX, Usage};
use super::refusals::Subject;
use super::{
    Catalog, Change, ConnectionId, Effect, Fact, NodeRun, Origin, Purpose, QueueId, QueueLife, QueueSettings,
    QueueType, Vhost,
};
use leveret_model::name;
use leveret_model::refusal::Refusal;
use leveret_model::table::FieldTable;
use std::collections::BTreeSet;
use std::sync::Arc;

/// A declared queue.
#[derive(Clone, Debug, PartialEq)]
pub struct DeclaredQueue {
    /// The identity of the queue.
    pub id: QueueId,
    /// True if the queue was declared as one that survives a restart of the broker.
    pub durable: bool,
    /// The start of the node that the queue lives on and ends with; `None` for a queue whose contents are logged.
    pub home: Option<NodeRun>,
    /// The one connection that may use the queue; the queue is deleted when the connection ends.
    pub exclusive: Option<ConnectionId>,
    /// True if the queue is deleted when its last consumer leaves.
    pub auto_delete: bool,
    /// The arguments as they were declared.
    pub arguments: FieldTable,
    /// The settings that follow from the arguments.
    pub settings: QueueSettings,
    /// The names of the exchanges that are bound to the queue.
    pub(super) sources: BTreeSet<Arc<str>>,
}

/// The properties with which a queue is declared. By default it is transient and shared, without arguments.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QueueDeclare {
    /// True if the queue survives a restart of the broker.
    pub durable: bool,
    /// True if only the connection that declares the queue may use it. The queue is deleted when that connection ends.
    pub exclusive: bool,
    /// True if the queue is deleted when its last consumer leaves.
    pub auto_delete: bool,
    /// The arguments: those that [`QueueSettings`] knows, and others that have no meaning for the broker.
    pub arguments: FieldTable,
    /// True if the server chose the name: such a name may have the reserved prefix.
    pub server_named: bool,
}

/// The result of the declaration of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeclareResult {
    /// The identity of the queue.
    pub id: QueueId,
    /// True if the declaration created the queue.
    pub created: bool,
}

impl Catalog {
    /// Declares a queue. It lives on the node that asks, `by`, unless it is logged.
    ///
    /// # Errors
    /// 403 for a reserved name, 405 if the queue belongs to another connection, 406 if it was declared differently, for an
    /// argument that is not supported, and beyond the limits of the virtual host.
    pub fn declare_queue(
        &mut self,
        by: NodeRun,
        vhost: &str,
        name: &str,
        declare: QueueDeclare,
        origin: Origin,
    ) -> Result<Change<DeclareResult>, Refusal> {
        if let Some(id) = self.queue_like(vhost, name, &declare, origin)? {
            return Ok(Change::nothing(DeclareResult { id, created: false }));
        }
        let settings = QueueSettings::of_accepted(&declare.arguments);
        let owner = owner(Subject::queue(vhost, name), declare.exclusive, origin)?;
        let id = self.next_queue();
        let QueueDeclare { durable, auto_delete, arguments, .. } = declare;
        let (home, sources) = ((!durable || owner.is_some()).then_some(by), BTreeSet::new());
        let queue = DeclaredQueue { id, durable, home, exclusive: owner, auto_delete, arguments, settings, sources };
        let in_vhost = self.vhost_mut(vhost)?;
        let (vhost, name): (_, Arc<str>) = (in_vhost.name.clone(), name.into());
        in_vhost.add_queue(&name, queue.clone());
        if let Some(owner) = owner {
            self.exclusive.entry(owner).or_default().insert((vhost.clone(), name.clone()));
        }
        Ok(Change::one(DeclareResult { id, created: true }, Effect::QueueCreated { vhost, name, queue }))
    }

    /// Returns the queue of this name if it was declared in the same way, or `None` if there is no queue of this name and it
    /// may be declared.
    ///
    /// # Errors
    /// As [`declare_queue`](Self::declare_queue).
    pub(super) fn queue_like(
        &self,
        vhost: &str,
        name: &str,
        declare: &QueueDeclare,
        origin: Origin,
    ) -> Result<Option<QueueId>, Refusal> {
        let subject = Subject::queue(vhost, name);
        let settings = QueueSettings::parse(subject, &declare.arguments)?;
        check_type(subject, settings.queue_type, declare)?;
        let owner = owner(subject, declare.exclusive, origin)?;
        if let Some(current) = self.vhost(vhost)?.queues.get(name) {
            current.check_access(subject, origin, Purpose::Use)?;
            if current.exclusive != owner {
                return Err(subject.locked());
            }
            current.check_equal(subject, declare, &settings)?;
            return Ok(Some(current.id));
        }
        if !declare.server_named {
            name::check("queue", name)?;
        }
        limits::check_arguments("queue", name, &declare.arguments)?;
        let in_vhost = self.vhost(vhost)?;
        limits::check(in_vhost.queues.len() + 1, QUEUES_MAX, "queues", vhost)?;
        let added = Usage::of(queue_bytes(name, &declare.arguments));
        in_vhost.usage.check(added, limits::BYTES_MAX, vhost)?;
        Ok(None)
    }

    /// Checks that this node has memory for a queue, unless there is one of this name.
    ///
    /// # Errors
    /// 406 naming the limit.
    pub(super) fn admit_queue(&self, vhost: &str, name: &str, declare: &QueueDeclare) -> Result<(), Refusal> {
        match self.vhosts.get(vhost) {
            Some(at) if !at.queues.contains_key(name) => {
                at.admit(Usage::of(queue_bytes(name, &declare.arguments)), self.bytes_max)
            }
            _ => Ok(()),
        }
    }

    /// Returns a queue, if it is open to the origin of the request for this purpose.
    ///
    /// # Errors
    /// 404 if there is no such queue, 405 if it belongs to another connection.
    pub fn queue(&self, vhost: &str, name: &str, origin: Origin, purpose: Purpose) -> Result<&DeclaredQueue, Refusal> {
        let queue = self.vhost(vhost)?.queues.get(name).ok_or_else(|| Refusal::no_queue(vhost, name))?;
        queue.check_access(Subject::queue(vhost, name), origin, purpose)?;
        Ok(queue)
    }

    /// Returns the identity of the queue that has this name now.
    #[must_use]
    pub fn queue_id(&self, vhost: &str, name: &str) -> Option<QueueId> {
        Some(self.vhost(vhost).ok()?.queues.get(name)?.id)
    }

    /// Deletes a queue and the bindings to it. Auto-delete exchanges that lose their last binding by that are deleted
    /// too.
    ///
    /// # Errors
    /// 404 if there is no such queue, or if the name belongs to another queue by now.
    pub fn delete_queue(&mut self, vhost: &str, name: &str, id: QueueId) -> Result<Change<()>, Refusal> {
        let in_vhost = self.vhost_mut(vhost)?;
        if in_vhost.queues.get(name).is_none_or(|queue| queue.id != id) {
            return Err(Refusal::no_queue(vhost, name));
        }
        let Some((name, queue)) = in_vhost.take_queue(name) else { return Ok(Change::nothing(())) };
        let left_over: Vec<_> = queue.sources.iter().filter(|source| in_vhost.is_left_over(source)).cloned().collect();
        let at = in_vhost.name.clone();
        if let Some(owner) = queue.exclusive
            && let Some(owned) = self.exclusive.get_mut(&owner)
        {
            owned.remove(&(at.clone(), name.clone()));
            if owned.is_empty() {
                self.exclusive.remove(&owner);
            }
        }
        let mut change = Change::one((), queue.deleted(at, name));
        self.remove_exchanges(vhost, left_over, &mut change.effects);
        Ok(change)
    }

    /// Deletes at most `most` of the queues that belong to a connection. The answer is the number of queues deleted.
    pub fn delete_exclusive_queues(&mut self, owner: ConnectionId, most: usize) -> Change<usize> {
        let mut change = Change::nothing(0);
        let owned: Vec<_> = self.exclusive.get(&owner).into_iter().flatten().take(most).cloned().collect();
        for (vhost, name) in owned {
            let Some(id) = self.queue_id(&vhost, &name) else { continue };
            if let Ok(deleted) = self.delete_queue(&vhost, &name, id) {
                change.answer += 1;
                change.effects.extend(deleted.effects);
            }
        }
        change
    }

    /// Returns the queues that belong to a connection: virtual host and name of each.
    pub fn exclusive_queues(&self, connection: ConnectionId) -> impl Iterator<Item = (&Arc<str>, &Arc<str>)> {
        self.exclusive.get(&connection).into_iter().flatten().map(|(vhost, name)| (vhost, name))
    }
}

impl Vhost {
    pub(super) fn add_queue(&mut self, name: &Arc<str>, queue: DeclaredQueue) {
        self.usage.add(Usage::of(queue_bytes(name, &queue.arguments)));
        self.queues.insert(name.clone(), queue);
    }

    /// Removes a queue with the bindings to it, and nothing else. The `sources` of the returned queue are the exchanges
    /// that lost a binding by that.
    pub(super) fn take_queue(&mut self, name: &str) -> Option<(Arc<str>, DeclaredQueue)> {
        let (name, mut queue) = self.queues.remove_entry(name)?;
        self.usage.remove(Usage::of(queue_bytes(&name, &queue.arguments)));
        let destination = Destination::Queue(name.to_string());
        queue.sources.retain(|source| self.remove_bindings_to(source, &destination, Target::Queue(queue.id)));
        Some((name, queue))
    }
}

fn queue_bytes(name: &str, arguments: &FieldTable) -> usize {
    QUEUE_BYTES + 2 * name.len() + arguments.memory_bytes()
}

impl DeclaredQueue {
    /// Returns a durable queue whose declaration was accepted before.
    #[must_use]
    pub fn durable(id: QueueId, auto_delete: bool, arguments: FieldTable) -> Self {
        let settings = QueueSettings::of_accepted(&arguments);
        let sources = BTreeSet::new();
        Self { id, durable: true, home: None, exclusive: None, auto_delete, arguments, settings, sources }
    }

    /// Returns the fact that the queue was declared.
    #[must_use]
    pub fn into_fact(self, vhost: Arc<str>, name: Arc<str>) -> Fact {
        let Self { id, durable, home, exclusive, auto_delete, arguments, .. } = self;
        match home {
            None => Fact::Queue { vhost, name, id, auto_delete, arguments },
            Some(home) => {
                let owner = exclusive.map(|owner| owner.number);
                let life = QueueLife { durable, home, owner };
                Fact::TransientQueue { vhost, name, id, life, auto_delete, arguments }
            }
        }
    }

    pub(super) fn deleted(&self, vhost: Arc<str>, name: Arc<str>) -> Effect {
        let (is_logged, had_bindings) = (self.is_logged(), !self.sources.is_empty());
        Effect::QueueDeleted { vhost, name, id: self.id, is_logged, had_bindings }
    }

    /// Returns whether the contents of the queue are logged: it is durable, and not deleted with a connection.
    #[must_use]
    pub fn is_logged(&self) -> bool {
        self.home.is_none()
    }

    /// Checks that a further declaration equals the one that created the queue.
    ///
    /// # Errors
    /// 406 naming the first difference.
    fn check_equal(&self, subject: Subject<'_>, new: &QueueDeclare, settings: &QueueSettings) -> Result<(), Refusal> {
        settings.check_equal(subject, &self.settings)?;
        for (property, received, current) in
            [("durable", new.durable, self.durable), ("auto_delete", new.auto_delete, self.auto_delete)]
        {
            if received != current {
                return Err(subject.inequivalent(property, received, current));
            }
        }
        Ok(())
    }
}

/// Returns the connection that a new queue will belong to, or `None` if the queue is not exclusive.
///
/// # Errors
/// 406 if an exclusive queue is not declared by a connection.
fn owner(subject: Subject<'_>, exclusive: bool, origin: Origin) -> Result<Option<ConnectionId>, Refusal> {
    match origin {
        _ if !exclusive => Ok(None),
        Origin::Connection(connection) => Ok(Some(connection)),
        Origin::Api | Origin::System => {
            Err(Refusal::precondition(format!("exclusive {subject} has to be declared by a connection")))
        }
    }
}

/// Checks that a queue of this type can have the declared properties.
///
/// # Errors
/// 406 naming a property that it cannot have.
fn check_type(subject: Subject<'_>, queue_type: QueueType, declare: &QueueDeclare) -> Result<(), Refusal> {
    if queue_type != QueueType::Quorum {
        return Ok(());
    }
    let wrong = match declare {
        QueueDeclare { server_named: true, .. } => {
            let text = "Cannot declare a server-named queue for type rabbit_quorum_queue".to_owned();
            return Err(Refusal::precondition(text));
        }
        QueueDeclare { durable: false, .. } => "non-durable",
        QueueDeclare { exclusive: true, .. } => "exclusive",
        QueueDeclare { auto_delete: true, .. } => "auto-delete",
        _ => return Ok(()),
    };
    let text = format!("invalid property '{wrong}' for {subject}: a quorum queue is durable, shared and stays");
    Err(Refusal::precondition(text))
}

/// The memory in bytes that a queue takes in addition to its names, arguments and contents.
const QUEUE_BYTES: usize = 1 << 10;

//! The commands that change the definitions. A command is decided when it is carried out: every node of a cluster carries
//! out the same commands in the same order, so all come to the same answer and the same definitions.
use super::bindings::BindingDeclare;
use super::{
    Bond, Catalog, Change, ConnectionId, DeclareResult, ExchangeDeclare, NodeRun, Origin, QueueDeclare, QueueId,
};
use leveret_model::refusal::Refusal;

/// A change of the definitions that somebody asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum CatalogCommand {
    /// Declare an exchange.
    DeclareExchange {
        /// The virtual host.
        vhost: String,
        /// The name of the exchange.
        name: String,
        /// The declared properties.
        declare: ExchangeDeclare,
    },
    /// Delete an exchange.
    DeleteExchange {
        /// The virtual host.
        vhost: String,
        /// The name of the exchange.
        name: String,
        /// True if it is only to be deleted if it has no bindings.
        if_unused: bool,
    },
    /// Declare a queue.
    DeclareQueue {
        /// The virtual host.
        vhost: String,
        /// The name of the queue.
        name: String,
        /// The declared properties.
        declare: QueueDeclare,
        /// The origin of the request.
        origin: Origin,
    },
    /// Delete the queue that has this name and this identity.
    DeleteQueue {
        /// The virtual host.
        vhost: String,
        /// The name of the queue.
        name: String,
        /// The identity of the queue.
        id: QueueId,
    },
    /// Delete some of the queues that belong to a connection.
    DeleteExclusive {
        /// The connection.
        owner: ConnectionId,
        /// The most queues that are deleted.
        most: u32,
    },
    /// Make a binding.
    Bind {
        /// The binding.
        bond: Bond,
        /// The origin of the request.
        origin: Origin,
    },
    /// Remove a binding.
    Unbind {
        /// The binding.
        bond: Bond,
        /// The origin of the request.
        origin: Origin,
    },
    /// The node that asks has started: what lived on its earlier starts is deleted.
    NodeStarted,
    /// This start of a node has ended for good: what lived on it is deleted.
    NodeGone(NodeRun),
}

/// The answer to a command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommandAnswer {
    /// True if the command created or deleted something.
    pub changed: bool,
    /// The queue that was declared, whether it is new or not.
    pub queue: Option<QueueId>,
}

impl Catalog {
    /// Carries out a command of the node that asks, `by`.
    ///
    /// # Errors
    /// The refusals of the functions for each command, see there. Nothing is changed then.
    pub fn execute(&mut self, by: NodeRun, command: &CatalogCommand) -> Result<Change<CommandAnswer>, Refusal> {
        Ok(match command {
            CatalogCommand::DeclareExchange { vhost, name, declare } => {
                self.declare_exchange(by, vhost, name, declare.clone())?.map(CommandAnswer::changed)
            }
            CatalogCommand::DeleteExchange { vhost, name, if_unused } => {
                self.delete_exchange(vhost, name, *if_unused)?.map(CommandAnswer::changed)
            }
            CatalogCommand::DeclareQueue { vhost, name, declare, origin } => {
                let declared = self.declare_queue(by, vhost, name, declare.clone(), *origin)?;
                declared.map(|DeclareResult { id, created }| CommandAnswer { changed: created, queue: Some(id) })
            }
            CatalogCommand::DeleteQueue { vhost, name, id } => {
                self.delete_queue(vhost, name, *id)?.map(|()| CommandAnswer::changed(true))
            }
            CatalogCommand::DeleteExclusive { owner, most } => {
                let deleted = self.delete_exclusive_queues(*owner, *most as usize);
                deleted.map(|count| CommandAnswer::changed(count > 0))
            }
            CatalogCommand::Bind { bond, origin } => {
                self.bind(&bond.vhost, bond.declared(), *origin)?.map(CommandAnswer::changed)
            }
            CatalogCommand::Unbind { bond, origin } => {
                self.unbind(&bond.vhost, bond.declared(), *origin)?.map(CommandAnswer::changed)
            }
            CatalogCommand::NodeStarted => self.node_started(by).map(|()| CommandAnswer::changed(true)),
            CatalogCommand::NodeGone(run) => self.node_gone(*run).map(|()| CommandAnswer::changed(true)),
        })
    }

    /// Returns the answer to a command that would change nothing; `None` if it would change something.
    ///
    /// # Errors
    /// The refusal with which the command would be answered.
    pub fn preview(&self, command: &CatalogCommand) -> Result<Option<CommandAnswer>, Refusal> {
        let unchanged = |is_there: bool, answer| Ok(is_there.then_some(answer));
        let nothing = CommandAnswer::default();
        match command {
            CatalogCommand::DeclareExchange { vhost, name, declare } => {
                unchanged(self.has_exchange_like(vhost, name, declare)?, nothing)
            }
            CatalogCommand::DeleteExchange { vhost, name, if_unused } => {
                unchanged(self.exchange_to_delete(vhost, name, *if_unused)?.is_none(), nothing)
            }
            CatalogCommand::DeclareQueue { vhost, name, declare, origin } => {
                let queue = self.queue_like(vhost, name, declare, *origin)?;
                unchanged(queue.is_some(), CommandAnswer { queue, ..nothing })
            }
            CatalogCommand::DeleteQueue { vhost, name, id } => match self.queue_id(vhost, name) == Some(*id) {
                true => Ok(None),
                false => Err(Refusal::no_queue(vhost, name)),
            },
            CatalogCommand::DeleteExclusive { owner, .. } => {
                unchanged(self.exclusive_queues(*owner).next().is_none(), nothing)
            }
            CatalogCommand::Bind { bond, origin } => {
                unchanged(self.binding_to_make(&bond.vhost, bond.declared(), *origin)?.is_none(), nothing)
            }
            CatalogCommand::Unbind { bond, origin } => {
                unchanged(self.binding_to_remove(&bond.vhost, bond.declared(), *origin)?.is_none(), nothing)
            }
            CatalogCommand::NodeStarted | CatalogCommand::NodeGone(_) => Ok(None),
        }
    }

    /// Checks that this node has memory for what a command creates. Other nodes may have less or more: a command that was
    /// admitted by the node that asks is carried out by all.
    ///
    /// # Errors
    /// 406 naming the limit.
    pub fn admit(&self, command: &CatalogCommand) -> Result<(), Refusal> {
        match command {
            CatalogCommand::DeclareExchange { vhost, name, declare } => self.admit_exchange(vhost, name, declare),
            CatalogCommand::DeclareQueue { vhost, name, declare, .. } => self.admit_queue(vhost, name, declare),
            CatalogCommand::Bind { bond, .. } => self.admit_binding(bond),
            CatalogCommand::DeleteExchange { .. }
            | CatalogCommand::DeleteQueue { .. }
            | CatalogCommand::DeleteExclusive { .. }
            | CatalogCommand::Unbind { .. }
            | CatalogCommand::NodeStarted
            | CatalogCommand::NodeGone(_) => Ok(()),
        }
    }
}

impl CommandAnswer {
    fn changed(changed: bool) -> Self {
        Self { changed, queue: None }
    }
}

impl Bond {
    /// Returns the binding as a client names it.
    #[must_use]
    pub fn declared(&self) -> BindingDeclare<'_> {
        BindingDeclare::new(&self.source, &self.destination, &self.routing_key, &self.arguments)
    }
}

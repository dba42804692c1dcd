//! Declaring exchanges, comparing further declarations, and deleting them.
use super::bindings::{Bindings, Destination, Target, binding_bytes};
use super::limits::{self, EXCHANGES_MAX, Usage};
use super::refusals::{Subject, on_default_exchange};
use super::{Catalog, Change, Effect, ExchangeId, ExchangeSettings, NodeRun, Vhost};
use crate::exchange::Router;
use leveret_model::exchange::ExchangeType;
use leveret_model::name;
use leveret_model::refusal::{Refusal, RefusalKind};
use leveret_model::table::FieldTable;
use std::collections::BTreeSet;
use std::sync::Arc;

/// An exchange that is declared.
pub struct Exchange {
    pub(crate) id: ExchangeId,
    /// The start of the node that answers for a transient exchange; `None` for a durable one.
    pub home: Option<NodeRun>,
    /// The declaration that made the exchange.
    pub declared: ExchangeDeclare,
    /// The settings that follow from the arguments of the declaration.
    pub settings: ExchangeSettings,
    pub(super) router: Router<Target>,
    /// The bindings from the exchange.
    pub(super) bindings: Bindings,
    /// The names of the exchanges that are bound to this one.
    pub(super) sources: BTreeSet<Arc<str>>,
}

/// The properties with which an exchange is declared.
#[derive(Clone, Debug, PartialEq)]
pub struct ExchangeDeclare {
    /// The type of the exchange.
    pub kind: ExchangeType,
    /// True if the exchange survives a restart of the broker.
    pub durable: bool,
    /// True if the exchange is deleted with its last binding.
    pub auto_delete: bool,
    /// True if clients may not publish to the exchange, so that messages arrive through bindings only.
    pub internal: bool,
    /// The arguments: those that [`ExchangeSettings`] knows, and others that have no meaning for the broker.
    pub arguments: FieldTable,
}

impl Catalog {
    /// Declares an exchange for the node that asks, `by`. The answer is whether the exchange is new.
    ///
    /// # Errors
    /// 403 for a reserved name, 406 if the exchange was declared differently, for an argument that is not supported, and
    /// beyond the limits of the virtual host.
    pub fn declare_exchange(
        &mut self,
        by: NodeRun,
        vhost: &str,
        name: &str,
        declare: ExchangeDeclare,
    ) -> Result<Change<bool>, Refusal> {
        if self.has_exchange_like(vhost, name, &declare)? {
            return Ok(Change::nothing(false));
        }
        let (id, home) = (self.next_exchange(), (!declare.durable).then_some(by));
        let in_vhost = self.vhost_mut(vhost)?;
        let (vhost, name) = (in_vhost.name.clone(), in_vhost.add_exchange(id, name, declare.clone(), home));
        Ok(Change::one(true, Effect::ExchangeCreated { vhost, name, declare }))
    }

    /// Returns whether there is an exchange of this name, which was declared in the same way; false if there is none and it
    /// may be declared.
    ///
    /// # Errors
    /// As [`declare_exchange`](Self::declare_exchange).
    pub(super) fn has_exchange_like(
        &self,
        vhost: &str,
        name: &str,
        declare: &ExchangeDeclare,
    ) -> Result<bool, Refusal> {
        if name.is_empty() {
            return Err(on_default_exchange());
        }
        let subject = Subject::exchange(vhost, name);
        let settings = ExchangeSettings::parse(subject, &declare.arguments)?;
        if let Some(current) = self.vhost(vhost)?.exchanges.get(name) {
            return current.check_equal(subject, declare, &settings).map(|()| true);
        }
        name::check("exchange", name)?;
        limits::check_arguments("exchange", name, &declare.arguments)?;
        let in_vhost = self.vhost(vhost)?;
        limits::check(in_vhost.exchanges.len() + 1, EXCHANGES_MAX, "exchanges", vhost)?;
        in_vhost.usage.check(Usage::of(exchange_bytes(name, declare)), limits::BYTES_MAX, vhost)?;
        Ok(false)
    }

    /// Checks that this node has memory for an exchange, unless there is one of this name.
    ///
    /// # Errors
    /// 406 naming the limit.
    pub(super) fn admit_exchange(&self, vhost: &str, name: &str, declare: &ExchangeDeclare) -> Result<(), Refusal> {
        match self.vhosts.get(vhost) {
            Some(at) if !at.exchanges.contains_key(name) => {
                at.admit(Usage::of(exchange_bytes(name, declare)), self.bytes_max)
            }
            _ => Ok(()),
        }
    }

    /// Returns an exchange.
    ///
    /// # Errors
    /// 404 if there is no exchange of that name.
    pub fn exchange(&self, vhost: &str, name: &str) -> Result<&Exchange, Refusal> {
        self.vhost(vhost)?.exchanges.get(name).ok_or_else(|| Refusal::no_exchange(vhost, name))
    }

    /// Deletes an exchange with its bindings. The answer is whether the exchange existed; a missing exchange is no error.
    ///
    /// # Errors
    /// 403 for a predeclared exchange; 406 with `if_unused` if the exchange has bindings.
    pub fn delete_exchange(&mut self, vhost: &str, name: &str, if_unused: bool) -> Result<Change<bool>, Refusal> {
        let Some(name) = self.exchange_to_delete(vhost, name, if_unused)? else { return Ok(Change::nothing(false)) };
        let mut change = Change::nothing(true);
        self.remove_exchanges(vhost, [name], &mut change.effects);
        Ok(change)
    }

    /// Returns the name of an exchange that may be deleted; `None` if there is none of this name.
    ///
    /// # Errors
    /// As [`delete_exchange`](Self::delete_exchange).
    pub(super) fn exchange_to_delete(
        &self,
        vhost: &str,
        name: &str,
        if_unused: bool,
    ) -> Result<Option<Arc<str>>, Refusal> {
        if name.is_empty() {
            return Err(on_default_exchange());
        }
        if name.starts_with("amq.") {
            let text = format!("deletion of system exchange '{name}' in vhost '{vhost}' not allowed");
            return Err(Refusal::new(RefusalKind::AccessRefused, text));
        }
        let Some((name, exchange)) = self.vhost(vhost)?.exchanges.get_key_value(name) else { return Ok(None) };
        if if_unused && !exchange.bindings.is_empty() {
            return Err(Refusal::precondition(format!("exchange '{name}' in vhost '{vhost}' in use")));
        }
        Ok(Some(name.clone()))
    }

    /// Removes exchanges with their bindings. Auto-delete exchanges that lose their last binding by that are removed too.
    pub(super) fn remove_exchanges(
        &mut self,
        vhost: &str,
        names: impl IntoIterator<Item = Arc<str>>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(vhost) = self.vhosts.get_mut(vhost) else { return };
        let mut gone: Vec<_> = names.into_iter().collect();
        while let Some(name) = gone.pop() {
            let Some(exchange) = vhost.take_exchange(&name) else { continue };
            gone.extend(exchange.sources.into_iter().filter(|source| vhost.is_left_over(source)));
            effects.push(Effect::ExchangeDeleted { vhost: vhost.name.clone(), name });
        }
        let _ = self.unlink(self.unlinked_at_once);
    }
}

impl Exchange {
    /// Returns about how many bytes of memory a binding from this exchange takes.
    pub(super) fn binding_bytes(&self, routing_key: &[u8], arguments: &FieldTable) -> usize {
        binding_bytes(self.declared.kind, routing_key, arguments)
    }

    /// Checks that a further declaration equals the one that made the exchange.
    ///
    /// # Errors
    /// 406 naming the first difference.
    fn check_equal(
        &self,
        subject: Subject<'_>,
        new: &ExchangeDeclare,
        settings: &ExchangeSettings,
    ) -> Result<(), Refusal> {
        let declared = &self.declared;
        if declared.kind != new.kind {
            return Err(subject.inequivalent("type", new.kind, declared.kind));
        }
        for (property, received, current) in [
            ("durable", new.durable, declared.durable),
            ("auto_delete", new.auto_delete, declared.auto_delete),
            ("internal", new.internal, declared.internal),
        ] {
            if received != current {
                return Err(subject.inequivalent(property, received, current));
            }
        }
        settings.check_equal(subject, &self.settings)
    }
}

impl Vhost {
    /// Adds an exchange. Returns its name.
    pub(super) fn add_exchange(
        &mut self,
        id: ExchangeId,
        name: &str,
        declared: ExchangeDeclare,
        home: Option<NodeRun>,
    ) -> Arc<str> {
        let name: Arc<str> = name.into();
        self.usage.add(Usage::of(exchange_bytes(&name, &declared)));
        self.exchange_names.insert(id, name.clone());
        let settings = ExchangeSettings::of_accepted(&declared.arguments);
        let exchange = Exchange {
            id,
            home,
            settings,
            router: Router::new(declared.kind),
            bindings: Bindings::default(),
            sources: BTreeSet::new(),
            declared,
        };
        self.exchanges.insert(name.clone(), exchange);
        name
    }

    /// Removes an exchange with the bindings from it and to it, and nothing else. The `sources` of the returned exchange
    /// are the exchanges that lost a binding by that.
    pub(super) fn take_exchange(&mut self, name: &str) -> Option<Exchange> {
        let mut exchange = self.exchanges.remove(name)?;
        self.exchange_names.remove(&exchange.id);
        self.usage.remove(Usage::of(exchange_bytes(name, &exchange.declared)));
        let kind = exchange.declared.kind;
        if !exchange.bindings.is_empty() {
            let router = std::mem::replace(&mut exchange.router, Router::new(kind));
            let taken = exchange.bindings.take_all();
            self.usage.remove(taken.usage);
            self.remains.add_source(name, kind, taken, router);
        }
        let destination = Destination::Exchange(name.to_owned());
        exchange.sources.retain(|source| self.remove_bindings_to(source, &destination, Target::Exchange(exchange.id)));
        Some(exchange)
    }

    /// Returns whether an exchange is an auto-delete exchange that has no bindings any more.
    pub(super) fn is_left_over(&self, name: &str) -> bool {
        let exchange = self.exchanges.get(name);
        exchange.is_some_and(|exchange| exchange.declared.auto_delete && exchange.bindings.is_empty())
    }
}

fn exchange_bytes(name: &str, declare: &ExchangeDeclare) -> usize {
    EXCHANGE_BYTES + name.len() + declare.arguments.memory_bytes()
}

/// Returns the exchanges that every virtual host has from the beginning.
pub(super) fn predeclared() -> impl Iterator<Item = (&'static str, ExchangeDeclare)> {
    use ExchangeType::{Direct, Fanout, Headers, Topic};
    [
        ("", Direct, false),
        ("amq.direct", Direct, false),
        ("amq.fanout", Fanout, false),
        ("amq.headers", Headers, false),
        ("amq.match", Headers, false),
        ("amq.rabbitmq.trace", Topic, true),
        ("amq.topic", Topic, false),
    ]
    .into_iter()
    .map(|(name, kind, internal)| {
        let arguments = FieldTable::default();
        (name, ExchangeDeclare { kind, durable: true, auto_delete: false, internal, arguments })
    })
}

/// The memory that an exchange takes without names, keys and arguments, in bytes.
const EXCHANGE_BYTES: usize = 512;

//! Exchanges: declared, found equivalent or not, deleted.
use super::bindings::{Bindings, Destination, Target};
use super::limits::{self, EXCHANGES_MAX};
use super::unlink::binding_bytes;
use super::{Catalog, Effect, ExchangeId, Fact, Vhost, inequivalent};
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
    /// As it was declared.
    pub declared: ExchangeDeclare,
    /// Where messages go that none of its bindings wants.
    pub(super) alternate: Option<Box<str>>,
    pub(super) router: Router<Target>,
    /// Bindings from it.
    pub(super) bindings: Bindings,
    /// Names of exchanges that are bound to it.
    pub(super) sources: BTreeSet<Arc<str>>,
}

/// How an exchange is declared.
#[derive(Clone, Debug, PartialEq)]
pub struct ExchangeDeclare {
    /// Its type.
    pub kind: ExchangeType,
    /// It outlives a restart.
    pub durable: bool,
    /// It goes with its last binding.
    pub auto_delete: bool,
    /// Clients may not publish to it.
    pub internal: bool,
    /// `alternate-exchange`, and what the broker does not look at.
    pub arguments: FieldTable,
}

impl Catalog {
    /// Declares an exchange. Whether it is new.
    ///
    /// # Errors
    /// 403 for a reserved name, 406 if it is there and different, for an argument that is not supported, and for more
    /// exchanges than there may be.
    pub fn declare_exchange(&mut self, vhost: &str, name: &str, declare: ExchangeDeclare) -> Result<bool, Refusal> {
        if name.is_empty() {
            return Err(on_default_exchange());
        }
        if let Some(current) = self.vhost(vhost)?.exchanges.get(name) {
            return equivalent((vhost, name), &current.declared, &declare).map(|()| false);
        }
        name::check("exchange", name)?;
        if let Some((argument, _)) = declare.arguments.iter().find(|(argument, _)| argument.starts_with("x-")) {
            return Err(unsupported("exchange", (vhost, name), argument));
        }
        alternate_of((vhost, name), &declare.arguments)?;
        limits::check_arguments("exchange", name, &declare.arguments)?;
        let in_vhost = self.vhost(vhost)?;
        limits::check(in_vhost.exchanges.len() + 1, EXCHANGES_MAX, "exchanges", vhost)?;
        in_vhost.usage.check_bytes(exchange_bytes(name, &declare), self.bytes_max, vhost)?;
        let id = self.next_id();
        let in_vhost = self.vhost_mut(vhost)?;
        let (vhost, name) = (in_vhost.name.clone(), in_vhost.add_exchange(id, name, declare.clone()));
        self.effects.push(Effect {
            logged: declare.durable,
            changes_bindings: true,
            fact: Fact::Exchange { vhost, name, declare },
        });
        Ok(true)
    }

    /// Finds an exchange.
    ///
    /// # Errors
    /// 404.
    pub fn exchange(&self, vhost: &str, name: &str) -> Result<&Exchange, Refusal> {
        self.vhost(vhost)?.exchanges.get(name).ok_or_else(|| Refusal::no_exchange(vhost, name))
    }

    /// Deletes an exchange with its bindings; one that is not there is as good as deleted. Whether it was there.
    ///
    /// # Errors
    /// 403 for those that are predeclared; 406 `if_unused` when it has bindings.
    pub fn delete_exchange(&mut self, vhost: &str, name: &str, if_unused: bool) -> Result<bool, Refusal> {
        if name.is_empty() {
            return Err(on_default_exchange());
        }
        if name.starts_with("amq.") {
            let text = format!("deletion of system exchange '{name}' in vhost '{vhost}' not allowed");
            return Err(Refusal::new(RefusalKind::AccessRefused, text));
        }
        let Some((name, exchange)) = self.vhost(vhost)?.exchanges.get_key_value(name) else { return Ok(false) };
        if if_unused && !exchange.bindings.is_empty() {
            return Err(Refusal::precondition(format!("exchange '{name}' in vhost '{vhost}' in use")));
        }
        let name = name.clone();
        self.remove_exchanges(vhost, [name]);
        Ok(true)
    }

    /// Removes exchanges with their bindings; auto-delete exchanges that lose their last binding by that go too.
    pub(super) fn remove_exchanges(&mut self, vhost: &str, names: impl IntoIterator<Item = Arc<str>>) {
        let Self { vhosts, effects, .. } = self;
        let Some(vhost) = vhosts.get_mut(vhost) else { return };
        let mut gone: Vec<_> = names.into_iter().collect();
        while let Some(name) = gone.pop() {
            let Some(exchange) = vhost.take_exchange(&name) else { continue };
            gone.extend(exchange.sources.into_iter().filter(|source| vhost.is_left_over(source)));
            let fact = Fact::ExchangeGone { vhost: vhost.name.clone(), name };
            effects.push(Effect { logged: exchange.declared.durable, changes_bindings: true, fact });
        }
        let _ = self.unlink(self.unlinked_at_once);
    }
}

impl Exchange {
    /// About how many bytes of memory a binding from it takes.
    pub(super) fn binding_bytes(&self, routing_key: &[u8], arguments: &FieldTable) -> usize {
        binding_bytes(self.declared.kind, routing_key, arguments)
    }
}

impl Vhost {
    /// Adds an exchange. Returns its name.
    pub(super) fn add_exchange(&mut self, id: u64, name: &str, declared: ExchangeDeclare) -> Arc<str> {
        let name: Arc<str> = name.into();
        self.usage.bytes += exchange_bytes(&name, &declared);
        self.exchange_names.insert(ExchangeId(id), name.clone());
        let alternate = alternate_of(("", ""), &declared.arguments).ok().flatten().map(Into::into);
        let exchange = Exchange {
            id: ExchangeId(id),
            alternate,
            router: Router::new(declared.kind),
            bindings: Bindings::default(),
            sources: BTreeSet::new(),
            declared,
        };
        self.exchanges.insert(name.clone(), exchange);
        name
    }

    /// Takes an exchange away with the bindings from it and those to it, and nothing else. Its sources are then those that lost
    /// a binding by it.
    pub(super) fn take_exchange(&mut self, name: &str) -> Option<Exchange> {
        let mut exchange = self.exchanges.remove(name)?;
        self.exchange_names.remove(&exchange.id);
        self.usage.bytes -= exchange_bytes(name, &exchange.declared);
        let kind = exchange.declared.kind;
        if !exchange.bindings.is_empty() {
            let router = std::mem::replace(&mut exchange.router, Router::new(kind));
            self.remains.add_source(name, exchange.bindings.take_all(), (kind, router));
        }
        let destination = Destination::Exchange(name.to_owned());
        exchange.sources.retain(|source| self.remove_bindings_to(source, &destination, Target::Exchange(exchange.id)));
        Some(exchange)
    }

    /// Whether this is an auto-delete exchange that has lost its last binding.
    pub(super) fn is_left_over(&self, name: &str) -> bool {
        let exchange = self.exchanges.get(name);
        exchange.is_some_and(|exchange| exchange.declared.auto_delete && exchange.bindings.is_empty())
    }
}

fn exchange_bytes(name: &str, declare: &ExchangeDeclare) -> usize {
    EXCHANGE_BYTES + name.len() + declare.arguments.memory_bytes()
}

fn equivalent(at: (&str, &str), current: &ExchangeDeclare, new: &ExchangeDeclare) -> Result<(), Refusal> {
    let what = ("exchange", at.1, at.0);
    if current.kind != new.kind {
        return Err(inequivalent(what, "type", new.kind, current.kind));
    }
    for (argument, received, is) in [
        ("durable", new.durable, current.durable),
        ("auto_delete", new.auto_delete, current.auto_delete),
        ("internal", new.internal, current.internal),
    ] {
        if received != is {
            return Err(inequivalent(what, argument, received, is));
        }
    }
    let (received, is) = (alternate_of(at, &new.arguments)?, alternate_of(at, &current.arguments)?);
    if received != is {
        let none = "none";
        return Err(inequivalent(what, ALTERNATE, received.unwrap_or(none), is.unwrap_or(none)));
    }
    Ok(())
}

fn alternate_of<'a>(at: (&str, &str), arguments: &'a FieldTable) -> Result<Option<&'a str>, Refusal> {
    let Some(value) = arguments.get(ALTERNATE) else { return Ok(None) };
    value.as_str().map(Some).ok_or_else(|| {
        let (vhost, name) = at;
        let text = format!("invalid arg '{ALTERNATE}' for exchange '{name}' in vhost '{vhost}': {value} is no string");
        Refusal::precondition(text)
    })
}

pub(super) fn unsupported(kind: &str, (vhost, name): (&str, &str), argument: &str) -> Refusal {
    Refusal::precondition(format!("invalid arg '{argument}' for {kind} '{name}' in vhost '{vhost}': not supported"))
}

pub(super) fn on_default_exchange() -> Refusal {
    Refusal::new(RefusalKind::AccessRefused, "operation not permitted on the default exchange".to_owned())
}

/// The exchanges of every virtual host.
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

const ALTERNATE: &str = "alternate-exchange";
/// Memory of an exchange without names, keys and arguments, in bytes.
const EXCHANGE_BYTES: usize = 512;

//! Exchanges: declared, found equivalent or not, deleted.
use super::bindings::{Bindings, Target};
use super::{Catalog, ExchangeId, Vhost, inequivalent};
use crate::exchange::Router;
use leveret_model::exchange::ExchangeType;
use leveret_model::name;
use leveret_model::refusal::{Refusal, RefusalKind};
use leveret_model::table::FieldTable;
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
    pub(super) sources: std::collections::BTreeSet<Arc<str>>,
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
    /// 403 for a reserved name, 406 if it is there and different, or for an argument that is not supported.
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
        let id = self.next_id();
        self.vhost_mut(vhost)?.add_exchange(id, name, declare);
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
        let in_vhost = self.vhost_mut(vhost)?;
        let Some(exchange) = in_vhost.exchanges.get(name) else { return Ok(false) };
        if if_unused && !exchange.bindings.is_empty() {
            return Err(Refusal::precondition(format!("exchange '{name}' in vhost '{vhost}' in use")));
        }
        in_vhost.remove_exchange(name);
        Ok(true)
    }
}

impl Vhost {
    pub(super) fn add_exchange(&mut self, id: u64, name: &str, declared: ExchangeDeclare) {
        let name: Arc<str> = name.into();
        self.exchange_names.insert(ExchangeId(id), name.clone());
        let alternate = alternate_of(("", ""), &declared.arguments).ok().flatten().map(Into::into);
        let exchange = Exchange {
            id: ExchangeId(id),
            alternate,
            router: Router::new(declared.kind),
            bindings: Bindings::default(),
            sources: std::collections::BTreeSet::new(),
            declared,
        };
        self.exchanges.insert(name, exchange);
    }

    /// Removes an exchange, the bindings from it and those to it; auto-delete exchanges that lose their last binding by
    /// that go too.
    pub(super) fn remove_exchange(&mut self, name: &str) {
        let Some(exchange) = self.exchanges.remove(name) else { return };
        self.exchange_names.remove(&exchange.id);
        for binding in exchange.bindings.iter() {
            self.forget_source(&binding.destination, name);
        }
        for source in &exchange.sources {
            self.remove_bindings_to(
                source,
                &super::Destination::Exchange(name.to_owned()),
                Target::Exchange(exchange.id),
            );
        }
    }
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

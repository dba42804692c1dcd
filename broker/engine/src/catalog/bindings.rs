//! Bindings: from an exchange to a queue or to another exchange.
use super::exchanges::on_default_exchange;
use super::{Catalog, ConnectionId, ExchangeId, QueueId, Vhost};
use crate::exchange::{check_headers_binding, check_topic_pattern};
use leveret_model::exchange::ExchangeType;
use leveret_model::refusal::{Refusal, RefusalKind};
use leveret_model::table::FieldTable;
use std::collections::BTreeMap;

/// What a binding leads to, by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Destination {
    /// A queue.
    Queue(String),
    /// An exchange.
    Exchange(String),
}

/// The same by identity, as routing follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Queue(QueueId),
    Exchange(ExchangeId),
}

/// One binding of an exchange.
#[derive(Clone, Debug, PartialEq)]
pub struct Binding {
    /// Where it leads.
    pub destination: Destination,
    /// The routing key or pattern.
    pub routing_key: Box<[u8]>,
    /// Its arguments.
    pub arguments: FieldTable,
    /// Names it among those with the same source and destination (RabbitMQ's `properties_key`).
    pub properties_key: String,
}

/// The bindings of one source: by destination and `properties_key`.
#[derive(Default)]
pub(crate) struct Bindings(BTreeMap<(Destination, String), Binding>);

impl Bindings {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Binding> {
        self.0.values()
    }

    fn to<'a>(&'a self, destination: &'a Destination) -> impl Iterator<Item = &'a Binding> {
        let from = (destination.clone(), String::new());
        self.0.range(from..).map(|(_, binding)| binding).take_while(move |binding| binding.destination == *destination)
    }
}

impl Catalog {
    /// Binds. Whether the binding is new.
    ///
    /// # Errors
    /// 403 on the default exchange, 404 for what is missing, 405 for another connection's queue, 406 for a key or
    /// arguments that the source's type does not take.
    pub fn bind(
        &mut self,
        vhost: &str,
        source: &str,
        destination: Destination,
        (routing_key, arguments): (&[u8], &FieldTable),
        connection: Option<ConnectionId>,
    ) -> Result<bool, Refusal> {
        let target = self.target(vhost, source, &destination, connection)?;
        match self.exchange(vhost, source)?.declared.kind {
            ExchangeType::Headers => check_headers_binding(arguments)?,
            ExchangeType::Topic => check_topic_pattern(routing_key)?,
            ExchangeType::Direct | ExchangeType::Fanout => {}
        }
        let in_vhost = self.vhost_mut(vhost)?;
        let Some((source_name, _)) = in_vhost.exchanges.get_key_value(source) else { return Ok(false) };
        let source_name = source_name.clone();
        let Some(from) = in_vhost.exchanges.get_mut(source) else { return Ok(false) };
        let properties_key = properties_key(routing_key, arguments);
        let key = (destination.clone(), properties_key.clone());
        if from.bindings.0.contains_key(&key) {
            return Ok(false);
        }
        from.router.bind(routing_key, arguments, target);
        let (arguments, routing_key) = (arguments.clone(), routing_key.into());
        from.bindings
            .0
            .insert(key, Binding { destination: destination.clone(), routing_key, arguments, properties_key });
        match destination {
            Destination::Queue(name) => {
                in_vhost.queues.get_mut(&*name).map(|queue| queue.sources.insert(source_name));
            }
            Destination::Exchange(name) => {
                in_vhost.exchanges.get_mut(&*name).map(|exchange| exchange.sources.insert(source_name));
            }
        }
        Ok(true)
    }

    /// Removes a binding; one that is not there, or whose ends are not there, is as good as removed. Whether it was there.
    ///
    /// # Errors
    /// 403 on the default exchange, 405 for another connection's queue.
    pub fn unbind(
        &mut self,
        vhost: &str,
        source: &str,
        destination: &Destination,
        (routing_key, arguments): (&[u8], &FieldTable),
        connection: Option<ConnectionId>,
    ) -> Result<bool, Refusal> {
        let target = match self.target(vhost, source, destination, connection) {
            Err(refusal) if refusal.kind == RefusalKind::NotFound => return Ok(false),
            target => target?,
        };
        let key = (destination.clone(), properties_key(routing_key, arguments));
        let in_vhost = self.vhost_mut(vhost)?;
        let Some(from) = in_vhost.exchanges.get_mut(source) else { return Ok(false) };
        let Some(binding) = from.bindings.0.remove(&key) else { return Ok(false) };
        from.router.unbind(&binding.routing_key, &binding.arguments, target);
        if from.bindings.to(destination).next().is_none() {
            in_vhost.forget_source(destination, source);
        }
        in_vhost.remove_if_unbound(source);
        Ok(true)
    }

    fn target(
        &self,
        vhost: &str,
        source: &str,
        destination: &Destination,
        connection: Option<ConnectionId>,
    ) -> Result<Target, Refusal> {
        if source.is_empty() || *destination == Destination::Exchange(String::new()) {
            return Err(on_default_exchange());
        }
        self.exchange(vhost, source)?;
        Ok(match destination {
            Destination::Queue(name) => Target::Queue(self.queue(vhost, name, connection)?.id),
            Destination::Exchange(name) => Target::Exchange(self.exchange(vhost, name)?.id),
        })
    }
}

impl Vhost {
    /// Removes all bindings from `source` to something that is gone.
    pub(super) fn remove_bindings_to(&mut self, source: &str, destination: &Destination, target: Target) {
        let Some(from) = self.exchanges.get_mut(source) else { return };
        let gone: Vec<Binding> = from.bindings.to(destination).cloned().collect();
        for binding in gone {
            from.router.unbind(&binding.routing_key, &binding.arguments, target);
            from.bindings.0.remove(&(binding.destination, binding.properties_key));
        }
        self.remove_if_unbound(source);
    }

    pub(super) fn forget_source(&mut self, destination: &Destination, source: &str) {
        match destination {
            Destination::Queue(name) => {
                self.queues.get_mut(&**name).map(|queue| queue.sources.remove(source));
            }
            Destination::Exchange(name) => {
                self.exchanges.get_mut(&**name).map(|exchange| exchange.sources.remove(source));
            }
        }
    }

    /// An auto-delete exchange goes with its last binding.
    fn remove_if_unbound(&mut self, name: &str) {
        let unbound = self
            .exchanges
            .get(name)
            .is_some_and(|exchange| exchange.declared.auto_delete && exchange.bindings.is_empty());
        if unbound {
            self.remove_exchange(name);
        }
    }
}

/// The routing key, `~` for none; arguments add a `~` and a number that stands for them.
fn properties_key(routing_key: &[u8], arguments: &FieldTable) -> String {
    let key = String::from_utf8_lossy(routing_key);
    match (routing_key.is_empty(), arguments.is_empty()) {
        (true, true) => "~".to_owned(),
        (false, true) => key.into_owned(),
        (_, false) => format!("{key}~{:016x}", hash(&format!("{arguments:?}"))),
    }
}

/// FNV-1a: the same on every machine and for ever.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

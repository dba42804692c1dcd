//! Bindings: from an exchange to a queue or to another exchange.
//!
//! Two bindings are the same if they have the same ends, the same bytes as keys, and the same arguments in any order.
use super::limits::{self, BINDINGS_MAX};
use super::refusals::on_default_exchange;
use super::{Bond, Catalog, Cause, Change, Effect, ExchangeId, Origin, Purpose, QueueId, Vhost};
use crate::exchange::check_headers_binding;
use leveret_model::exchange::ExchangeType;
use leveret_model::name::ROUTING_KEY_BYTES_MAX;
use leveret_model::refusal::{Refusal, RefusalKind};
use leveret_model::table::FieldTable;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::ops::Bound;
use std::sync::Arc;

/// The destination of a binding, by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Destination {
    /// A queue.
    Queue(String),
    /// An exchange.
    Exchange(String),
}

/// The destination of a binding by identity, which routing uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Target {
    Queue(QueueId),
    Exchange(ExchangeId),
}

/// One binding of an exchange.
#[derive(Clone, Debug, PartialEq)]
pub struct Binding {
    /// The queue or exchange that the binding leads to.
    pub destination: Destination,
    /// The routing key or pattern.
    pub routing_key: Box<[u8]>,
    /// The arguments.
    pub arguments: FieldTable,
    /// The name of the binding among the bindings with the same source and destination; see [`properties_key`].
    pub properties_key: String,
}

/// A binding to be made or removed, as named by a client.
#[derive(Clone, Copy, Debug)]
pub struct BindingDeclare<'a> {
    /// The exchange that the binding leads from.
    pub source: &'a str,
    /// The queue or exchange that the binding leads to.
    pub destination: &'a Destination,
    /// The routing key or pattern.
    pub routing_key: &'a [u8],
    /// The arguments.
    pub arguments: &'a FieldTable,
}

impl<'a> BindingDeclare<'a> {
    /// Returns the binding with these ends, routing key and arguments.
    #[must_use]
    pub fn new(
        source: &'a str,
        destination: &'a Destination,
        routing_key: &'a [u8],
        arguments: &'a FieldTable,
    ) -> Self {
        Self { source, destination, routing_key, arguments }
    }
}

/// The parts of a binding that together distinguish it from all other bindings of its source.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct BindingIdentity {
    destination: Destination,
    routing_key: Box<[u8]>,
    arguments: Box<[u8]>,
}

/// The bindings of one source.
#[derive(Default)]
pub(crate) struct Bindings(BTreeMap<BindingIdentity, Binding>);

/// Bindings that were removed.
pub(super) type Taken = Box<dyn Iterator<Item = Binding> + Send + Sync>;

impl BindingIdentity {
    fn new(destination: &Destination, routing_key: &[u8], arguments: &FieldTable) -> Self {
        let arguments = if arguments.is_empty() { Box::default() } else { arguments.identity().into() };
        Self { destination: destination.clone(), routing_key: routing_key.into(), arguments }
    }
}

impl Bindings {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Binding> {
        self.0.values()
    }

    pub(super) fn after(&self, binding: Option<&Binding>) -> impl Iterator<Item = &Binding> {
        let from = binding.map_or(Bound::Unbounded, |Binding { destination, routing_key, arguments, .. }| {
            Bound::Excluded(BindingIdentity::new(destination, routing_key, arguments))
        });
        self.0.range((from, Bound::Unbounded)).map(|(_, binding)| binding)
    }

    pub(super) fn has_to(&self, destination: &Destination) -> bool {
        self.to(destination).next().is_some()
    }

    /// Removes all bindings and returns them.
    pub(super) fn take_all(&mut self) -> Taken {
        Box::new(std::mem::take(&mut self.0).into_values())
    }

    /// Removes the bindings to a destination and returns them, if there are any.
    fn take_to(&mut self, destination: &Destination) -> Option<Taken> {
        if !self.has_to(destination) {
            return None;
        }
        let ends = [self.0.first_key_value(), self.0.last_key_value()];
        if ends.iter().flatten().all(|(identity, _)| identity.destination == *destination) {
            return Some(self.take_all());
        }
        // The next name in order is this name followed by the least character.
        let beyond = match destination {
            Destination::Queue(name) => Destination::Queue(format!("{name}\0")),
            Destination::Exchange(name) => Destination::Exchange(format!("{name}\0")),
        };
        let [from, beyond] = [destination.clone(), beyond].map(|destination| BindingIdentity {
            destination,
            routing_key: Box::default(),
            arguments: Box::default(),
        });
        let taken: Vec<Binding> = self.0.extract_if(from..beyond, |_, _| true).map(|(_, binding)| binding).collect();
        Some(Box::new(taken.into_iter()))
    }

    fn to<'a>(&'a self, destination: &'a Destination) -> impl Iterator<Item = (&'a BindingIdentity, &'a Binding)> {
        let from = BindingIdentity {
            destination: destination.clone(),
            routing_key: Box::default(),
            arguments: Box::default(),
        };
        self.0.range(from..).take_while(move |(identity, _)| identity.destination == *destination)
    }

    /// Returns the binding to a destination that a `properties_key` names; or, for clients that send the routing key
    /// instead, the binding with that key and no arguments.
    fn named(&self, destination: &Destination, properties_key: &str) -> Option<&Binding> {
        let (key, _) = properties_key.split_once('~').unwrap_or((properties_key, ""));
        let from = |routing_key: &[u8]| BindingIdentity::new(destination, routing_key, &FieldTable::default());
        let first = from(&unquoted(key));
        let of_that_key = self.0.range(first.clone()..).take_while(|(identity, _)| {
            identity.destination == first.destination && identity.routing_key == first.routing_key
        });
        let exactly = of_that_key.map(|(_, binding)| binding).find(|binding| binding.properties_key == properties_key);
        exactly.or_else(|| self.0.get(&from(properties_key.as_bytes())))
    }
}

/// Both ends of a binding, looked up.
pub(super) struct Ends {
    source: Arc<str>,
    destination: Destination,
    target: Target,
}

impl Ends {
    pub(super) fn find(vhost: &Vhost, source: &str, destination: &Destination) -> Option<Self> {
        let (source, _) = vhost.exchanges.get_key_value(source)?;
        let target = match destination {
            Destination::Queue(name) => Target::Queue(vhost.queues.get(&**name)?.id),
            Destination::Exchange(name) => Target::Exchange(vhost.exchanges.get(&**name)?.id),
        };
        Some(Self { source: source.clone(), destination: destination.clone(), target })
    }
}

impl Catalog {
    /// Makes a binding. The answer is whether the binding is new.
    ///
    /// # Errors
    /// 403 on the default exchange, 404 for a missing end, 405 for another connection's queue, 406 for a key or arguments
    /// that the type of the source does not accept, and beyond the limits of the virtual host.
    pub fn bind(&mut self, vhost: &str, binding: BindingDeclare<'_>, origin: Origin) -> Result<Change<bool>, Refusal> {
        let BindingDeclare { source, destination, routing_key, arguments } = binding;
        let ends = self.ends(vhost, source, destination, origin)?;
        check_key(source, routing_key)?;
        limits::check_arguments("a binding of exchange", source, arguments)?;
        let bytes_max = self.bytes_max;
        let in_vhost = self.vhost_mut(vhost)?;
        let Some(from) = in_vhost.exchanges.get(source) else { return Ok(Change::nothing(false)) };
        if from.declared.kind == ExchangeType::Headers {
            check_headers_binding(arguments)?;
        }
        if from.bindings.0.contains_key(&BindingIdentity::new(destination, routing_key, arguments)) {
            return Ok(Change::nothing(false));
        }
        limits::check(in_vhost.usage.bindings + 1, BINDINGS_MAX, "bindings", vhost)?;
        in_vhost.usage.check_bytes(from.binding_bytes(routing_key, arguments), bytes_max, vhost)?;
        in_vhost.add_binding(&ends, routing_key, arguments);
        let (binding, is_logged) = in_vhost.bond(&ends, routing_key, arguments);
        Ok(Change::one(true, Effect::Bound { binding, is_logged }))
    }

    /// Removes a binding. The answer is whether the binding existed; a missing binding or end is no error.
    ///
    /// # Errors
    /// 403 on the default exchange, 405 for another connection's queue.
    pub fn unbind(
        &mut self,
        vhost: &str,
        binding: BindingDeclare<'_>,
        origin: Origin,
    ) -> Result<Change<bool>, Refusal> {
        let BindingDeclare { source, destination, routing_key, arguments } = binding;
        let ends = match self.ends(vhost, source, destination, origin) {
            Err(refusal) if refusal.kind == RefusalKind::NotFound => return Ok(Change::nothing(false)),
            ends => ends?,
        };
        let in_vhost = self.vhost_mut(vhost)?;
        let (binding, is_logged) = in_vhost.bond(&ends, routing_key, arguments);
        if !in_vhost.remove_binding(&ends, routing_key, arguments) {
            return Ok(Change::nothing(false));
        }
        let unbound = in_vhost.is_left_over(source).then(|| ends.source.clone());
        let mut change = Change::one(true, Effect::Unbound { binding, is_logged });
        self.remove_exchanges(vhost, unbound, Cause::Cascade, &mut change.effects);
        Ok(change)
    }

    /// Returns the binding between two ends that a [`properties_key`] names.
    ///
    /// # Errors
    /// 404 for a virtual host or a source that does not exist.
    pub fn binding_named(
        &self,
        vhost: &str,
        source: &str,
        destination: &Destination,
        properties_key: &str,
    ) -> Result<Option<&Binding>, Refusal> {
        Ok(self.exchange(vhost, source)?.bindings.named(destination, properties_key))
    }

    fn ends(&self, vhost: &str, source: &str, destination: &Destination, origin: Origin) -> Result<Ends, Refusal> {
        if source.is_empty() || *destination == Destination::Exchange(String::new()) {
            return Err(on_default_exchange());
        }
        self.exchange(vhost, source)?;
        match destination {
            Destination::Queue(name) => self.queue(vhost, name, origin, Purpose::Use).map(drop)?,
            Destination::Exchange(name) => self.exchange(vhost, name).map(drop)?,
        }
        Ends::find(self.vhost(vhost)?, source, destination).ok_or_else(|| Refusal::no_exchange(vhost, source))
    }
}

impl Vhost {
    /// Adds a binding, unless it exists.
    pub(super) fn add_binding(&mut self, ends: &Ends, routing_key: &[u8], arguments: &FieldTable) {
        let Ends { source, destination, target } = ends;
        let Some(from) = self.exchanges.get_mut(source) else { return };
        let identity = BindingIdentity::new(destination, routing_key, arguments);
        if from.bindings.0.contains_key(&identity) {
            return;
        }
        self.usage.bindings += 1;
        self.usage.bytes += from.binding_bytes(routing_key, arguments);
        from.router.bind(routing_key, arguments, *target);
        let properties_key = properties_key(routing_key, arguments);
        let (destination, arguments) = (destination.clone(), arguments.clone());
        let binding = Binding { destination, routing_key: routing_key.into(), arguments, properties_key };
        from.bindings.0.insert(identity, binding);
        let sources = match &ends.destination {
            Destination::Queue(name) => self.queues.get_mut(&**name).map(|queue| &mut queue.sources),
            Destination::Exchange(name) => self.exchanges.get_mut(&**name).map(|exchange| &mut exchange.sources),
        };
        if let Some(sources) = sources {
            sources.insert(source.clone());
        }
    }

    /// Removes a binding. Returns whether it existed.
    pub(super) fn remove_binding(&mut self, ends: &Ends, routing_key: &[u8], arguments: &FieldTable) -> bool {
        let Ends { source, destination, target } = ends;
        let Some(from) = self.exchanges.get_mut(source) else { return false };
        let Some(binding) = from.bindings.0.remove(&BindingIdentity::new(destination, routing_key, arguments)) else {
            return false;
        };
        from.router.unbind(&binding.routing_key, &binding.arguments, *target);
        self.usage.bindings -= 1;
        self.usage.bytes -= from.binding_bytes(&binding.routing_key, &binding.arguments);
        if from.bindings.to(destination).next().is_none() {
            self.forget_source(destination, source);
        }
        true
    }

    /// Removes all bindings from `source` to a destination that was deleted. Returns whether there were any.
    pub(super) fn remove_bindings_to(&mut self, source: &Arc<str>, destination: &Destination, target: Target) -> bool {
        let Some(from) = self.exchanges.get_mut(source) else { return false };
        let Some(taken) = from.bindings.take_to(destination) else { return false };
        self.remains.add_destination(target, taken, source.clone(), from);
        true
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

    /// Returns a binding in the form that effects and facts use, and whether it survives a restart.
    fn bond(&self, ends: &Ends, routing_key: &[u8], arguments: &FieldTable) -> (Bond, bool) {
        let durable = self.exchanges.get(&ends.source).is_some_and(|source| source.declared.durable);
        let bond = Bond {
            vhost: self.name.clone(),
            source: ends.source.clone(),
            destination: ends.destination.clone(),
            routing_key: routing_key.to_vec(),
            arguments: arguments.clone(),
        };
        (bond, durable && self.is_logged(&ends.destination))
    }
}

fn check_key(source: &str, routing_key: &[u8]) -> Result<(), Refusal> {
    let bytes = routing_key.len();
    if bytes > ROUTING_KEY_BYTES_MAX {
        return Err(Refusal::precondition(format!(
            "a binding key of exchange '{source}' has {bytes} bytes, more than {ROUTING_KEY_BYTES_MAX}"
        )));
    }
    Ok(())
}

/// Returns the name of a binding among the bindings with the same source and destination, in characters that are allowed
/// in a URL. It has RabbitMQ's form: the routing key, encoded as in a query, or `~` if it is empty; if there are
/// arguments, a `~` and a digest of them follow.
#[must_use]
pub fn properties_key(routing_key: &[u8], arguments: &FieldTable) -> String {
    let mut name = quoted(routing_key);
    if !arguments.is_empty() {
        name.push('~');
        let digest = Sha256::digest(arguments.identity());
        for byte in &digest[..ARGUMENTS_DIGEST_BYTES] {
            let _ = write!(name, "{byte:02x}");
        }
    } else if name.is_empty() {
        name.push('~');
    }
    name
}

fn quoted(key: &[u8]) -> String {
    let mut out = String::with_capacity(key.len());
    for &byte in key {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => out.push(char::from(byte)),
            b' ' => out.push('+'),
            _ => drop(write!(out, "%{byte:02X}")),
        }
    }
    out
}

/// Reverses [`quoted`]. Text that is not quoted is returned as it is.
fn unquoted(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        let encoded = after.first_chunk::<2>().and_then(|digits| {
            let digits = std::str::from_utf8(digits).ok().filter(|_| byte == b'%')?;
            u8::from_str_radix(digits, 16).ok()
        });
        match encoded {
            Some(encoded) => {
                out.push(encoded);
                rest = &after[2..];
            }
            None => out.push(if byte == b'+' { b' ' } else { byte }),
        }
    }
    out
}

/// Bytes of the digest of the arguments: enough that nobody can find other arguments with the same digest.
const ARGUMENTS_DIGEST_BYTES: usize = 16;

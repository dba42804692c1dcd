//! Bindings: from an exchange to a queue or to another exchange.
//!
//! Two bindings are the same if they have the same ends, the same bytes as keys, and the same arguments in any order.
use super::limits::{self, Usage};
use super::refusals::on_default_exchange;
use super::{Bond, Catalog, Change, Effect, ExchangeId, Origin, Purpose, QueueId, Vhost};
use crate::exchange::{self, check_headers_binding};
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
pub(crate) struct Bindings {
    map: BTreeMap<BindingIdentity, Binding>,
    /// The size of all of them.
    usage: Usage,
}

/// Bindings that were removed from a source.
pub(super) struct Taken {
    pub(super) bindings: Box<dyn Iterator<Item = Binding> + Send + Sync>,
    /// The size of all of them.
    pub(super) usage: Usage,
}

impl BindingIdentity {
    fn new(destination: &Destination, routing_key: &[u8], arguments: &FieldTable) -> Self {
        let arguments = if arguments.is_empty() { Box::default() } else { arguments.identity().into() };
        Self { destination: destination.clone(), routing_key: routing_key.into(), arguments }
    }
}

impl Bindings {
    pub(super) fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Binding> {
        self.map.values()
    }

    pub(super) fn after(&self, binding: Option<&Binding>) -> impl Iterator<Item = &Binding> {
        let from = binding.map_or(Bound::Unbounded, |Binding { destination, routing_key, arguments, .. }| {
            Bound::Excluded(BindingIdentity::new(destination, routing_key, arguments))
        });
        self.map.range((from, Bound::Unbounded)).map(|(_, binding)| binding)
    }

    pub(super) fn has_to(&self, destination: &Destination) -> bool {
        self.to(destination).next().is_some()
    }

    /// Removes all bindings and returns them.
    pub(super) fn take_all(&mut self) -> Taken {
        let Self { map, usage } = std::mem::take(self);
        Taken { bindings: Box::new(map.into_values()), usage }
    }

    /// Removes the bindings to a destination and returns them, if there are any. `size` returns the bytes of a binding.
    fn take_to(&mut self, destination: &Destination, size: impl Fn(&Binding) -> usize) -> Option<Taken> {
        if !self.has_to(destination) {
            return None;
        }
        let ends = [self.map.first_key_value(), self.map.last_key_value()];
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
        let taken: Vec<Binding> = self.map.extract_if(from..beyond, |_, _| true).map(|(_, binding)| binding).collect();
        let bytes = taken.iter().map(size).sum();
        let usage = Usage { bindings: taken.len(), bytes };
        self.usage.remove(usage);
        Some(Taken { bindings: Box::new(taken.into_iter()), usage })
    }

    fn to<'a>(&'a self, destination: &'a Destination) -> impl Iterator<Item = (&'a BindingIdentity, &'a Binding)> {
        let from = BindingIdentity {
            destination: destination.clone(),
            routing_key: Box::default(),
            arguments: Box::default(),
        };
        self.map.range(from..).take_while(move |(identity, _)| identity.destination == *destination)
    }

    /// Returns the binding to a destination that a `properties_key` names; or, for clients that send the routing key
    /// instead, the binding with that key and no arguments.
    fn named(&self, destination: &Destination, properties_key: &str) -> Option<&Binding> {
        let (key, _) = properties_key.split_once('~').unwrap_or((properties_key, ""));
        let from = |routing_key: &[u8]| BindingIdentity::new(destination, routing_key, &FieldTable::default());
        let first = from(&unquoted(key));
        let of_that_key = self.map.range(first.clone()..).take_while(|(identity, _)| {
            identity.destination == first.destination && identity.routing_key == first.routing_key
        });
        let exactly = of_that_key.map(|(_, binding)| binding).find(|binding| binding.properties_key == properties_key);
        exactly.or_else(|| self.map.get(&from(properties_key.as_bytes())))
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
        let Some(ends) = self.binding_to_make(vhost, binding, origin)? else { return Ok(Change::nothing(false)) };
        let BindingDeclare { routing_key, arguments, .. } = binding;
        let in_vhost = self.vhost_mut(vhost)?;
        in_vhost.add_binding(&ends, routing_key, arguments);
        Ok(Change::one(true, Effect::Bound { binding: in_vhost.bond(&ends, routing_key, arguments) }))
    }

    /// Returns the ends of a binding that may be made; `None` if it exists.
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    pub(super) fn binding_to_make(
        &self,
        vhost: &str,
        binding: BindingDeclare<'_>,
        origin: Origin,
    ) -> Result<Option<Ends>, Refusal> {
        let BindingDeclare { source, destination, routing_key, arguments } = binding;
        let ends = self.ends(vhost, source, destination, origin)?;
        check_key(source, routing_key)?;
        limits::check_arguments("a binding of exchange", source, arguments)?;
        let (in_vhost, from) = (self.vhost(vhost)?, self.exchange(vhost, source)?);
        if from.declared.kind == ExchangeType::Headers {
            check_headers_binding(arguments)?;
        }
        if from.bindings.map.contains_key(&BindingIdentity::new(destination, routing_key, arguments)) {
            return Ok(None);
        }
        let added = Usage::of_binding(from.binding_bytes(routing_key, arguments));
        in_vhost.usage.check(added, limits::BYTES_MAX, vhost)?;
        Ok(Some(ends))
    }

    /// Checks that this node has memory for a binding, unless it exists or an end is missing.
    ///
    /// # Errors
    /// 406 naming the limit.
    pub(super) fn admit_binding(&self, bond: &Bond) -> Result<(), Refusal> {
        let Bond { vhost, source, destination, routing_key, arguments } = bond;
        let Some(at) = self.vhosts.get(vhost) else { return Ok(()) };
        let Some(from) = at.exchanges.get(source) else { return Ok(()) };
        if from.bindings.map.contains_key(&BindingIdentity::new(destination, routing_key, arguments)) {
            return Ok(());
        }
        at.admit(Usage::of_binding(from.binding_bytes(routing_key, arguments)), self.bytes_max)
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
        let Some(ends) = self.binding_to_remove(vhost, binding, origin)? else { return Ok(Change::nothing(false)) };
        let BindingDeclare { source, routing_key, arguments, .. } = binding;
        let in_vhost = self.vhost_mut(vhost)?;
        let mut change = Change::one(true, Effect::Unbound { binding: in_vhost.bond(&ends, routing_key, arguments) });
        in_vhost.remove_binding(&ends, routing_key, arguments);
        let unbound = in_vhost.is_left_over(source).then(|| ends.source.clone());
        self.remove_exchanges(vhost, unbound, &mut change.effects);
        Ok(change)
    }

    /// Returns the ends of a binding that may be removed; `None` if there is no such binding.
    ///
    /// # Errors
    /// As [`unbind`](Self::unbind).
    pub(super) fn binding_to_remove(
        &self,
        vhost: &str,
        binding: BindingDeclare<'_>,
        origin: Origin,
    ) -> Result<Option<Ends>, Refusal> {
        let BindingDeclare { source, destination, routing_key, arguments } = binding;
        let ends = match self.ends(vhost, source, destination, origin) {
            Err(refusal) if refusal.kind == RefusalKind::NotFound => return Ok(None),
            ends => ends?,
        };
        let identity = BindingIdentity::new(destination, routing_key, arguments);
        let exists = self.exchange(vhost, source)?.bindings.map.contains_key(&identity);
        Ok(exists.then_some(ends))
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
        if from.bindings.map.contains_key(&identity) {
            return;
        }
        let added = Usage::of_binding(from.binding_bytes(routing_key, arguments));
        self.usage.add(added);
        from.bindings.usage.add(added);
        from.router.bind(routing_key, arguments, *target);
        let properties_key = properties_key(routing_key, arguments);
        let (destination, arguments) = (destination.clone(), arguments.clone());
        let binding = Binding { destination, routing_key: routing_key.into(), arguments, properties_key };
        from.bindings.map.insert(identity, binding);
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
        let Some(binding) = from.bindings.map.remove(&BindingIdentity::new(destination, routing_key, arguments)) else {
            return false;
        };
        from.router.unbind(&binding.routing_key, &binding.arguments, *target);
        let removed = Usage::of_binding(from.binding_bytes(&binding.routing_key, &binding.arguments));
        self.usage.remove(removed);
        from.bindings.usage.remove(removed);
        if from.bindings.to(destination).next().is_none() {
            self.forget_source(destination, source);
        }
        true
    }

    /// Removes all bindings from `source` to a destination that was deleted. Returns whether there were any.
    pub(super) fn remove_bindings_to(&mut self, source: &Arc<str>, destination: &Destination, target: Target) -> bool {
        let Some(from) = self.exchanges.get_mut(source) else { return false };
        let kind = from.declared.kind;
        let size = |binding: &Binding| binding_bytes(kind, &binding.routing_key, &binding.arguments);
        let Some(taken) = from.bindings.take_to(destination, size) else { return false };
        self.usage.remove(taken.usage);
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

    /// Returns a binding in the form that effects and facts use.
    fn bond(&self, ends: &Ends, routing_key: &[u8], arguments: &FieldTable) -> Bond {
        Bond {
            vhost: self.name.clone(),
            source: ends.source.clone(),
            destination: ends.destination.clone(),
            routing_key: routing_key.to_vec(),
            arguments: arguments.clone(),
        }
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

/// Returns about how many bytes of memory a binding from an exchange of this type takes.
pub(super) fn binding_bytes(kind: ExchangeType, routing_key: &[u8], arguments: &FieldTable) -> usize {
    BINDING_BYTES + 3 * routing_key.len() + 3 * arguments.memory_bytes() + exchange::binding_bytes(kind, routing_key)
}

/// Bytes of the digest of the arguments: enough that nobody can find other arguments with the same digest.
const ARGUMENTS_DIGEST_BYTES: usize = 16;
/// The memory of a binding without keys and arguments, in bytes.
const BINDING_BYTES: usize = 400;

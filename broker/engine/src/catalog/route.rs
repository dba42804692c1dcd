//! The way from an exchange and a routing key to queues: along bindings between exchanges, to alternate exchanges, and at
//! each exchange with all keys that the sender gave (the routing key and the headers `CC` and `BCC`).
use super::bindings::Target;
use super::{Catalog, Exchange, ExchangeId, QueueId, Vhost};
use crate::exchange::{STEPS_MAX, SentHeaders, Steps, TooManySteps};
use leveret_model::exchange::ExchangeType;
use leveret_model::name::ROUTING_KEY_BYTES_MAX;
use leveret_model::refusal::{Refusal, RefusalKind};
use leveret_model::table::{FieldTable, FieldValue};
use smallvec::SmallVec;
use std::collections::BTreeSet;

/// Properties of a route that was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RouteProperties {
    /// True if an exchange on the way compared headers: the route is valid for this message alone.
    pub by_headers: bool,
    /// True if queues were looked up by their names, as the default exchange does.
    pub by_queue_name: bool,
    /// The number of steps that finding the route took; a step takes about ten nanoseconds.
    pub steps: u64,
}

impl Catalog {
    /// Adds the queues that a message goes to, each once, in the order of their identities.
    ///
    /// # Errors
    /// 404 for a missing exchange, 403 for an internal one, 406 for `CC` or `BCC` that are no lists of strings or give
    /// too many or too long keys, and for a message that would have to be compared with too many bindings.
    pub fn route(
        &self,
        vhost: &str,
        exchange: &str,
        routing_key: &[u8],
        headers: Option<&FieldTable>,
        queues: &mut SmallVec<[QueueId; 4]>,
    ) -> Result<RouteProperties, Refusal> {
        let first = self.exchange(vhost, exchange)?;
        if first.declared.internal {
            let text = format!("cannot publish to internal exchange '{exchange}' in vhost '{vhost}'");
            return Err(Refusal::new(RefusalKind::AccessRefused, text));
        }
        let keys = keys(routing_key, headers)?;
        let mut routing = Routing {
            vhost: self.vhost(vhost)?,
            keys: &keys,
            headers: SentHeaders::new(headers),
            queues,
            routed: RouteProperties::default(),
        };
        routing.follow(if exchange.is_empty() { Hop::ToQueues } else { Hop::Through(first) }).map_err(|TooManySteps| {
            Refusal::precondition(format!(
                "routing a message of exchange '{exchange}' in vhost '{vhost}' takes more than {STEPS_MAX} steps: it is \
                 compared with too many bindings"
            ))
        })?;
        let routed = routing.routed;
        queues.sort_unstable();
        queues.dedup();
        Ok(routed)
    }
}

struct Routing<'a> {
    vhost: &'a Vhost,
    keys: &'a [&'a [u8]],
    headers: SentHeaders<'a>,
    queues: &'a mut SmallVec<[QueueId; 4]>,
    routed: RouteProperties,
}

/// A place that a message has reached on its way.
#[derive(Clone, Copy)]
enum Hop<'a> {
    /// The default exchange, to which every queue is bound by its name.
    ToQueues,
    Through(&'a Exchange),
}

impl<'a> Routing<'a> {
    fn follow(&mut self, first: Hop<'a>) -> Result<(), TooManySteps> {
        let mut steps = Steps::for_a_message();
        let mut been = Been::default();
        let mut next: SmallVec<[Hop<'_>; 4]> = SmallVec::new();
        let vhost = self.vhost;
        next.push(first);
        while let Some(hop) = next.pop() {
            steps.spend(1)?;
            let exchange = match hop {
                Hop::ToQueues => {
                    self.add_queues_by_name();
                    continue;
                }
                Hop::Through(exchange) => exchange,
            };
            if !been.insert(exchange.id) {
                continue;
            }
            self.routed.by_headers |= exchange.declared.kind == ExchangeType::Headers;
            let (mut found, queues) = (false, &mut *self.queues);
            exchange.router.route(self.keys, &self.headers, &mut steps, &mut |target| {
                if vhost.remains.is_dead(target) {
                    return;
                }
                found = true;
                match target {
                    Target::Queue(id) => queues.push(id),
                    Target::Exchange(id) => {
                        let bound = vhost.exchange_names.get(&id).and_then(|name| vhost.exchanges.get(name));
                        next.extend(bound.map(Hop::Through));
                    }
                }
            })?;
            if !found && let Some(alternate) = &exchange.settings.alternate {
                match &**alternate {
                    "" => next.push(Hop::ToQueues),
                    name => next.extend(vhost.exchanges.get(name).map(Hop::Through)),
                }
            }
        }
        self.routed.steps = steps.spent();
        Ok(())
    }

    fn add_queues_by_name(&mut self) {
        if std::mem::replace(&mut self.routed.by_queue_name, true) {
            return;
        }
        let names = self.keys.iter().filter_map(|key| std::str::from_utf8(key).ok());
        self.queues.extend(names.filter_map(|name| self.vhost.queues.get(name)).map(|queue| queue.id));
    }
}

/// The exchanges that a message has visited: a few are searched one by one, many are in a set.
#[derive(Default)]
struct Been {
    few: SmallVec<[ExchangeId; 8]>,
    many: BTreeSet<ExchangeId>,
}

impl Been {
    /// Adds an exchange. Returns true if the message has not visited it before.
    fn insert(&mut self, id: ExchangeId) -> bool {
        if self.few.contains(&id) {
            return false;
        }
        if self.few.len() < self.few.inline_size() {
            self.few.push(id);
            return true;
        }
        self.many.insert(id)
    }
}

/// Returns the routing key and the further keys that the sender gave, each once.
fn keys<'m>(routing_key: &'m [u8], headers: Option<&'m FieldTable>) -> Result<SmallVec<[&'m [u8]; 4]>, Refusal> {
    let mut keys: SmallVec<[&[u8]; 4]> = SmallVec::new();
    keys.push(routing_key);
    let Some(headers) = headers else { return Ok(keys) };
    for name in ["CC", "BCC"] {
        let Some(value) = headers.get(name) else { continue };
        let wrong =
            || Refusal::precondition(format!("unexpected value of header '{name}': {value}, not an array of strings"));
        let FieldValue::Array(recipients) = value else { return Err(wrong()) };
        if keys.len() - 1 + recipients.len() > RECIPIENTS_MAX {
            let count = keys.len() - 1 + recipients.len();
            return Err(Refusal::precondition(format!(
                "headers 'CC' and 'BCC' name {count} keys, more than {RECIPIENTS_MAX}"
            )));
        }
        for recipient in recipients {
            let FieldValue::LongString(key) = recipient else { return Err(wrong()) };
            if key.len() > ROUTING_KEY_BYTES_MAX {
                return Err(Refusal::precondition(format!(
                    "header '{name}' names a key of {} bytes, longer than {ROUTING_KEY_BYTES_MAX}: '{}...'",
                    key.len(),
                    String::from_utf8_lossy(&key[..SHOWN_BYTES])
                )));
            }
            keys.push(key);
        }
    }
    keys.sort_unstable();
    keys.dedup();
    Ok(keys)
}

/// The most keys that the headers of a message may give in addition to its routing key.
const RECIPIENTS_MAX: usize = 1024;
/// The number of bytes of a too long key that a refusal shows.
const SHOWN_BYTES: usize = 32;

//! From an exchange and a routing key to queues: along bindings between exchanges, to alternate exchanges, for all
//! recipients that the sender named (headers `CC` and `BCC`).
use super::bindings::Target;
use super::{Catalog, Exchange, QueueId, Vhost};
use leveret_model::exchange::ExchangeType;
use leveret_model::refusal::{Refusal, RefusalKind};
use leveret_model::table::{FieldTable, FieldValue};
use smallvec::SmallVec;

/// How a route was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Routed {
    /// An exchange on the way looks at headers: the answer is good for this message alone.
    pub by_headers: bool,
}

impl Catalog {
    /// The queues that a message goes to, each once, in no order that means anything.
    ///
    /// # Errors
    /// 404 for a missing exchange, 403 for an internal one, 406 for `CC` or `BCC` that are no lists of strings.
    pub fn route(
        &self,
        vhost: &str,
        exchange: &str,
        routing_key: &[u8],
        headers: Option<&FieldTable>,
        queues: &mut SmallVec<[QueueId; 4]>,
    ) -> Result<Routed, Refusal> {
        let first = self.exchange(vhost, exchange)?;
        if first.declared.internal {
            let text = format!("cannot publish to internal exchange '{exchange}' in vhost '{vhost}'");
            return Err(Refusal::new(RefusalKind::AccessRefused, text));
        }
        let mut routing = Routing { vhost: self.vhost(vhost)?, headers, queues, routed: Routed::default() };
        routing.follow(first, exchange, routing_key);
        for name in ["CC", "BCC"] {
            if let Some(recipients) = headers.and_then(|headers| headers.get(name)) {
                for recipient in recipients_of(name, recipients)? {
                    routing.follow(first, exchange, recipient);
                }
            }
        }
        Ok(routing.routed)
    }
}

struct Routing<'a> {
    vhost: &'a Vhost,
    headers: Option<&'a FieldTable>,
    queues: &'a mut SmallVec<[QueueId; 4]>,
    routed: Routed,
}

impl Routing<'_> {
    fn follow(&mut self, first: &Exchange, name: &str, key: &[u8]) {
        if name.is_empty() {
            if let Some(queue) = std::str::from_utf8(key).ok().and_then(|key| self.vhost.queues.get(key)) {
                self.add(queue.id);
            }
            return;
        }
        let mut been: SmallVec<[super::ExchangeId; 4]> = SmallVec::new();
        let mut next: SmallVec<[&Exchange; 4]> = SmallVec::new();
        let vhost = self.vhost;
        next.push(first);
        while let Some(exchange) = next.pop() {
            if been.contains(&exchange.id) {
                continue;
            }
            been.push(exchange.id);
            self.routed.by_headers |= exchange.declared.kind == ExchangeType::Headers;
            let mut found = false;
            exchange.router.route(key, self.headers, &mut |target| {
                found = true;
                match target {
                    Target::Queue(id) => self.add(id),
                    Target::Exchange(id) => {
                        next.extend(vhost.exchange_names.get(&id).and_then(|name| vhost.exchanges.get(name)))
                    }
                }
            });
            if !found && let Some(alternate) = &exchange.alternate {
                match vhost.exchanges.get(&**alternate) {
                    Some(default) if alternate.is_empty() => self.follow(default, "", key),
                    alternate => next.extend(alternate),
                }
            }
        }
    }

    fn add(&mut self, id: QueueId) {
        if !self.queues.contains(&id) {
            self.queues.push(id);
        }
    }
}

fn recipients_of<'a>(name: &str, value: &'a FieldValue) -> Result<Vec<&'a [u8]>, Refusal> {
    let strings = match value {
        FieldValue::Array(values) => values
            .iter()
            .map(|value| match value {
                FieldValue::LongString(key) => Some(key.as_slice()),
                _ => None,
            })
            .collect(),
        _ => None,
    };
    strings.ok_or_else(|| {
        Refusal::precondition(format!("unexpected value of header '{name}': {value}, not an array of strings"))
    })
}

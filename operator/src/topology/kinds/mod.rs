//! What a kind is on the broker: the only code that knows one kind from another.
mod binding;
mod exchange;
mod queue;

use leveret_client::{Arguments, Binding, Client, Error, Exchange, Made, Queue};
use std::collections::HashMap;

/// What is wanted.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Wanted {
    Exchange(Exchange),
    Queue(Queue),
    Binding(Binding),
}

/// Names a thing on the broker: two resources with the same identity want the same thing.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Identity(Vec<String>);

/// What is on a broker, by identity.
#[derive(Default)]
pub(crate) struct Actual {
    exchanges: HashMap<Identity, Exchange>,
    queues: HashMap<Identity, Queue>,
    bindings: HashMap<Identity, Binding>,
}

/// How what is there compares with what is wanted.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Found {
    /// It is not there.
    Missing,
    /// As wanted; queues with ready, unacknowledged, consumers.
    Equal(Option<(i64, i64, i64)>),
    /// There, but different in what cannot be changed.
    Different(String),
}

impl Actual {
    /// Asks the broker for all that it has: three requests at once.
    pub(crate) async fn list(client: &Client) -> Result<Self, Error> {
        let (exchanges, queues, bindings) = tokio::try_join!(client.exchanges(), client.queues(), client.bindings())?;
        Ok(Self {
            exchanges: exchanges.into_iter().map(|exchange| (exchange::identity(&exchange), exchange)).collect(),
            queues: queues.into_iter().map(|queue| (queue::identity(&queue), queue)).collect(),
            bindings: bindings.into_iter().map(|binding| (binding::identity(&binding), binding)).collect(),
        })
    }
}

impl Wanted {
    pub(crate) fn identity(&self) -> Identity {
        match self {
            Self::Exchange(exchange) => exchange::identity(exchange),
            Self::Queue(queue) => queue::identity(queue),
            Self::Binding(binding) => binding::identity(binding),
        }
    }

    /// Bindings need what they lead from and to: they come second.
    pub(crate) fn comes_second(&self) -> bool {
        matches!(self, Self::Binding(_))
    }

    pub(crate) fn find(&self, actual: &Actual) -> Found {
        let identity = self.identity();
        match self {
            Self::Exchange(wanted) => exchange::compare(wanted, actual.exchanges.get(&identity)),
            Self::Queue(wanted) => queue::compare(wanted, actual.queues.get(&identity)),
            Self::Binding(_) if actual.bindings.contains_key(&identity) => Found::Equal(None),
            Self::Binding(_) => Found::Missing,
        }
    }

    pub(crate) async fn declare(&self, client: &Client) -> Result<Made, Error> {
        match self {
            Self::Exchange(exchange) => client.declare_exchange(exchange).await,
            Self::Queue(queue) => client.declare_queue(queue).await,
            Self::Binding(binding) => client.bind(binding).await.map(|()| Made::Created),
        }
    }

    /// Takes it from the broker; a queue with messages only if `with_messages`.
    pub(crate) async fn delete(&self, client: &Client, actual: &Actual, with_messages: bool) -> Result<(), Error> {
        match self {
            Self::Exchange(exchange) => client.delete_exchange(&exchange.vhost, &exchange.name).await,
            Self::Queue(queue) => client.delete_queue(&queue.vhost, &queue.name, !with_messages).await,
            Self::Binding(_) => match actual.bindings.get(&self.identity()) {
                Some(binding) => client.unbind(binding).await,
                None => Ok(()),
            },
        }
    }

    /// For texts: `queue 'x' in vhost '/'`.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Exchange(exchange) => format!("exchange '{}' in vhost '{}'", exchange.name, exchange.vhost),
            Self::Queue(queue) => format!("queue '{}' in vhost '{}'", queue.name, queue.vhost),
            Self::Binding(binding) => format!(
                "binding from '{}' to {} '{}' with key '{}' in vhost '{}'",
                binding.source, binding.destination_type, binding.destination, binding.routing_key, binding.vhost
            ),
        }
    }
}

/// Names the fields that differ.
fn differences(fields: &[(&str, String, String)]) -> Option<String> {
    let different = fields.iter().filter(|(_, wanted, is)| wanted != is);
    let named: Vec<_> = different.map(|(name, wanted, is)| format!("{name} is {is} there, not {wanted}")).collect();
    (!named.is_empty()).then(|| named.join(", "))
}

/// Whether each wanted argument is there; the broker may have added some.
fn arguments_differ(wanted: &Arguments, is: &Arguments) -> Option<String> {
    let different = wanted.iter().filter(|(name, value)| is.get(*name) != Some(value));
    let text = |(name, value): (&String, &serde_json::Value)| {
        let is = is.get(name).map_or_else(|| "not set".to_owned(), ToString::to_string);
        format!("argument {name} is {is} there, not {value}")
    };
    let named: Vec<_> = different.map(text).collect();
    (!named.is_empty()).then(|| named.join(", "))
}

fn found(named: [Option<String>; 2], numbers: Option<(i64, i64, i64)>) -> Found {
    let named: Vec<_> = named.into_iter().flatten().collect();
    if named.is_empty() { Found::Equal(numbers) } else { Found::Different(named.join(", ")) }
}

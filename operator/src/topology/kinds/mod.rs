//! What a kind is on the broker: the only code that knows one kind from another.
mod binding;
mod exchange;
mod queue;

use leveret_client::{Arguments, Binding, Client, DeleteOnly, Error, Exchange, Made, Queue};
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
    /// By name, with the type of queues that are declared without one.
    pub(super) vhosts: HashMap<String, Option<String>>,
    pub(super) exchanges: HashMap<Identity, Exchange>,
    pub(super) queues: HashMap<Identity, Queue>,
    pub(super) bindings: HashMap<Identity, Binding>,
}

/// What a queue holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Numbers {
    pub(crate) ready: i64,
    pub(crate) unacked: i64,
    pub(crate) consumers: i64,
}

/// What differs, or is in the way, in words.
pub(super) type Difference = String;

/// How what is there compares with what is wanted.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Found {
    /// It is not there.
    Missing,
    /// As wanted; queues with what they hold.
    Equal(Option<Numbers>),
    /// There, but different in what cannot be changed; and who would lose something if it were replaced.
    Different { named: Difference, in_use: Option<Difference> },
}

impl Actual {
    /// Asks the broker for the lists that objects of the wanted kinds are compared with, all at once.
    pub(crate) async fn list(client: &Client, wanted: impl Iterator<Item = &Wanted>) -> Result<Self, Error> {
        let needed = Lists::for_all(wanted);
        let (vhosts, exchanges, queues, bindings) = tokio::try_join!(
            client.vhosts(),
            only_if(needed.exchanges, client.exchanges()),
            only_if(needed.queues, client.queues()),
            only_if(needed.bindings, client.bindings()),
        )?;
        Ok(Self {
            vhosts: vhosts.into_iter().map(|vhost| (vhost.name, vhost.default_queue_type)).collect(),
            exchanges: exchanges.into_iter().map(|exchange| (exchange::identity(&exchange), exchange)).collect(),
            queues: queues.into_iter().map(|queue| (queue::identity(&queue), queue)).collect(),
            // Every queue is bound to the default exchange: nobody can want that.
            bindings: bindings
                .into_iter()
                .filter(|binding| !binding.source.is_empty())
                .map(|binding| (binding::identity(&binding), binding))
                .collect(),
        })
    }

    /// Takes note that something has been declared.
    pub(crate) fn declared(&mut self, wanted: &Wanted) {
        match wanted {
            Wanted::Exchange(exchange) => drop(self.exchanges.insert(wanted.identity(), exchange.clone())),
            Wanted::Queue(queue) => drop(self.queues.insert(wanted.identity(), queue.clone())),
            Wanted::Binding(binding) => drop(self.bindings.insert(wanted.identity(), binding.clone())),
        }
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

    /// What has to be on the broker before, and is not.
    pub(crate) fn waits_for(&self, actual: &Actual) -> Option<String> {
        let vhost = self.vhost();
        if !actual.vhosts.contains_key(vhost) {
            return Some(format!("vhost '{vhost}'"));
        }
        let Self::Binding(binding) = self else { return None };
        let is_there =
            |identity: &Identity| actual.exchanges.contains_key(identity) || actual.queues.contains_key(identity);
        let missing: Vec<_> = binding::ends(binding)
            .into_iter()
            .filter(|(.., identity)| !is_there(identity))
            .map(|(kind, name, _)| format!("{kind} '{name}' in vhost '{vhost}'"))
            .collect();
        (!missing.is_empty()).then(|| missing.join(" and "))
    }

    pub(crate) fn find(&self, actual: &Actual) -> Found {
        let identity = self.identity();
        match self {
            Self::Exchange(wanted) => {
                exchange::compare(wanted, actual.exchanges.get(&identity), actual.bindings.values())
            }
            Self::Queue(wanted) => {
                let default_type = actual.vhosts.get(&wanted.vhost).and_then(Option::as_deref);
                queue::compare(wanted, actual.queues.get(&identity), default_type)
            }
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

    /// Whether the broker has it, when it is asked for this one thing.
    pub(crate) async fn is_there(&self, client: &Client) -> Result<bool, Error> {
        let named = |answer: Result<bool, Error>| match answer {
            // An answer without a body is no queue.
            Err(Error::NotFound(_) | Error::Unexpected { .. }) => Ok(false),
            answer => answer,
        };
        match self {
            Self::Exchange(Exchange { vhost, name, .. }) => {
                named(client.exchange(vhost, name).await.map(|is| is.name == *name))
            }
            Self::Queue(Queue { vhost, name, .. }) => named(client.queue(vhost, name).await.map(|is| is.name == *name)),
            Self::Binding(binding) => named(
                client
                    .bindings_like(binding)
                    .await
                    .map(|all| all.iter().any(|other| binding::identity(other) == self.identity())),
            ),
        }
    }

    /// Takes it from the broker, if it is as `only` says.
    pub(crate) async fn delete(&self, client: &Client, actual: &Actual, only: DeleteOnly) -> Result<(), Error> {
        match self {
            Self::Exchange(exchange) => client.delete_exchange(&exchange.vhost, &exchange.name, only.if_unused).await,
            Self::Queue(queue) => client.delete_queue(&queue.vhost, &queue.name, only).await,
            Self::Binding(_) => match actual.bindings.get(&self.identity()) {
                Some(binding) => client.unbind(binding).await,
                None => Ok(()),
            },
        }
    }

    /// What a queue holds that was declared just now.
    pub(crate) fn nothing_yet(&self) -> Option<Numbers> {
        matches!(self, Self::Queue(_)).then(Numbers::default)
    }

    /// Whether it is the broker's own, which nobody declares or deletes.
    pub(crate) fn is_predeclared(&self) -> bool {
        matches!(self, Self::Exchange(exchange) if exchange.name.starts_with("amq."))
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

    fn vhost(&self) -> &str {
        match self {
            Self::Exchange(Exchange { vhost, .. })
            | Self::Queue(Queue { vhost, .. })
            | Self::Binding(Binding { vhost, .. }) => vhost,
        }
    }
}

/// Which lists are needed: thousands of queues are no reason to list as many bindings.
#[derive(Clone, Copy, Debug, Default)]
struct Lists {
    exchanges: bool,
    queues: bool,
    bindings: bool,
}

impl Lists {
    fn for_all<'a>(wanted: impl Iterator<Item = &'a Wanted>) -> Self {
        wanted.fold(Self::default(), |needed, wanted| match wanted {
            Wanted::Queue(_) => Self { queues: true, ..needed },
            // Whether an exchange is in use is told by its bindings.
            Wanted::Exchange(_) => Self { exchanges: true, bindings: true, ..needed },
            Wanted::Binding(_) => Self { exchanges: true, queues: true, bindings: true },
        })
    }
}

/// A list, or an empty one if it is not needed: nothing is asked then.
async fn only_if<T>(needed: bool, list: impl Future<Output = Result<Vec<T>, Error>>) -> Result<Vec<T>, Error> {
    if needed { list.await } else { Ok(Vec::new()) }
}

/// Names the fields that differ.
fn differences(fields: &[(&str, String, String)]) -> Option<Difference> {
    let different = fields.iter().filter(|(_, wanted, is)| wanted != is);
    let named: Vec<_> = different.map(|(name, wanted, is)| format!("{name} is {is} there, not {wanted}")).collect();
    (!named.is_empty()).then(|| named.join(", "))
}

/// Names the arguments that differ.
fn arguments_differ(wanted: &Arguments, is: &Arguments) -> Option<Difference> {
    let changed = wanted.iter().filter(|(name, value)| is.get(*name) != Some(value)).map(|(name, value)| {
        let is = is.get(name).map_or_else(|| "not set".to_owned(), ToString::to_string);
        format!("argument {name} is {is} there, not {value}")
    });
    let further = is.iter().filter(|(name, _)| !wanted.contains_key(*name));
    let named: Vec<_> =
        changed.chain(further.map(|(name, value)| format!("argument {name} is {value} there, not unset"))).collect();
    (!named.is_empty()).then(|| named.join(", "))
}

fn found(named: [Option<Difference>; 2], numbers: Option<Numbers>, in_use: Option<Difference>) -> Found {
    let named: Vec<_> = named.into_iter().flatten().collect();
    if named.is_empty() { Found::Equal(numbers) } else { Found::Different { named: named.join(", "), in_use } }
}

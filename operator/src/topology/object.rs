//! What is wanted on a broker: a resource, reduced to what the broker has to know of it.
use super::kinds::Wanted;
use super::outcome::Outcome;
use leveret_api::{Binding, BrokerRef, DeletionPolicy, Exchange, Queue};

/// Names a resource: kind, namespace, name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) kind: &'static str,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &*self.namespace {
            "" => write!(f, "{} {}", self.kind, self.name),
            namespace => write!(f, "{} {namespace}/{}", self.kind, self.name),
        }
    }
}

/// A resource that wants something on a broker.
#[derive(Clone, Debug)]
pub(crate) struct Object {
    pub(crate) key: Key,
    pub(crate) wanted: Wanted,
    pub(crate) deletion_policy: DeletionPolicy,
    /// It is being deleted.
    pub(crate) deleting: bool,
    /// When it was created, in seconds, and a tie-break: the older of two claims wins.
    pub(crate) age: (i64, String),
    #[cfg_attr(not(feature = "kubernetes"), allow(dead_code, reason = "reported to Kubernetes"))]
    pub(crate) generation: i64,
    /// It was on the broker as wanted, in this generation: what is missing or different now was lost.
    pub(crate) was_declared: bool,
    /// Its spec asks for another thing than was declared for it, which cannot be changed: what is wrong. What is wanted is
    /// what was declared.
    pub(crate) changed: Option<String>,
    /// What the broker said to it a moment ago: it is not asked again yet.
    pub(crate) refused: Option<Outcome>,
}

/// A kind that becomes an [`Object`].
pub(crate) trait Kind {
    const KIND: &'static str;
    #[cfg_attr(not(feature = "kubernetes"), allow(dead_code, reason = "`apply` is told which broker"))]
    fn broker(&self) -> &BrokerRef;
    fn wanted(&self, name: &str) -> Wanted;
    fn deletion_policy(&self) -> DeletionPolicy;
}

impl Kind for Exchange {
    const KIND: &'static str = "Exchange";

    fn broker(&self) -> &BrokerRef {
        &self.spec.broker_ref
    }

    fn wanted(&self, name: &str) -> Wanted {
        let spec = self.spec.clone();
        Wanted::Exchange(leveret_client::Exchange {
            name: spec.name.unwrap_or_else(|| name.to_owned()),
            vhost: spec.vhost,
            kind: spec.kind.name().to_owned(),
            durable: spec.durable,
            auto_delete: spec.auto_delete,
            internal: spec.internal,
            arguments: spec.arguments.unwrap_or_default(),
        })
    }

    fn deletion_policy(&self) -> DeletionPolicy {
        self.spec.deletion_policy
    }
}

impl Kind for Queue {
    const KIND: &'static str = "Queue";

    fn broker(&self) -> &BrokerRef {
        &self.spec.broker_ref
    }

    fn wanted(&self, name: &str) -> Wanted {
        let spec = self.spec.clone();
        Wanted::Queue(leveret_client::Queue {
            name: spec.name.unwrap_or_else(|| name.to_owned()),
            vhost: spec.vhost,
            durable: spec.durable,
            auto_delete: spec.auto_delete,
            arguments: spec.arguments.unwrap_or_default(),
            ..leveret_client::Queue::default()
        })
    }

    fn deletion_policy(&self) -> DeletionPolicy {
        self.spec.deletion_policy
    }
}

impl Kind for Binding {
    const KIND: &'static str = "Binding";

    fn broker(&self) -> &BrokerRef {
        &self.spec.broker_ref
    }

    fn wanted(&self, _: &str) -> Wanted {
        let spec = self.spec.clone();
        let destination_type = match spec.destination_type {
            leveret_api::DestinationType::Queue => "queue",
            leveret_api::DestinationType::Exchange => "exchange",
        };
        Wanted::Binding(leveret_client::Binding {
            source: spec.source,
            vhost: spec.vhost,
            destination: spec.destination,
            destination_type: destination_type.to_owned(),
            routing_key: spec.routing_key,
            arguments: spec.arguments.unwrap_or_default(),
            properties_key: String::new(),
        })
    }

    fn deletion_policy(&self) -> DeletionPolicy {
        self.spec.deletion_policy
    }
}

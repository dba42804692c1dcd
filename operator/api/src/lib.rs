//! The custom resources of Leveret: API group `leveret.dev`, version `v1alpha1`.
//!
//! The doc comments of the kinds and their fields become the descriptions that `kubectl explain` shows. Everything that
//! can be checked before an object is stored is checked by the API server, with the schema and with CEL rules.
//!
//! Unknown fields are ignored when a resource is read: if the definitions in the cluster are newer and give a new field
//! a default, the API server adds that field to every object. `leveret-operator apply`, which reads files that people
//! have written, compares the field names with the definitions ([`crds`]) instead.
#![deny(missing_docs)]
#![allow(unreachable_pub, reason = "the derive macro for schemas generates copies of the types inside functions")]
#![allow(clippy::duplicated_attributes, reason = "printcolumn occurs once for each column")]
mod binding;
mod broker;
mod exchange;
mod queue;
mod topology;

pub use binding::{Binding, BindingSpec, DestinationType};
pub use broker::{
    Broker, BrokerSpec, BrokerStatus, DefaultUser, NamedSecret, PodTemplate, Resources, Retention, Service,
    ServiceType, Storage, Topology,
};
pub use exchange::{Exchange, ExchangeSpec, ExchangeType};
pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
pub use queue::{Queue, QueueSpec};
pub use topology::{BrokerRef, DeletionPolicy, TopologyStatus};

/// Arguments of a declaration, by name.
pub type SpecArguments = serde_json::Map<String, serde_json::Value>;

/// The finalizer of the topology kinds (Exchange, Queue, Binding): it keeps a resource until its object on the broker
/// is dealt with.
pub const FINALIZER: &str = "leveret.dev/topology";

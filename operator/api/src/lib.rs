//! The custom resources of Leveret: group `leveret.dev`, version `v1alpha1`. Their comments are what `kubectl explain`
//! says; what can be checked before an object is stored is checked by the API server (CEL).
//!
//! A field that is not known is passed over: definitions of a newer version, with a default in them, have the API server
//! add it to every object. Who reads what people have written asks the definitions for the fields that there are.
#![deny(missing_docs)]
#![allow(unreachable_pub, reason = "the derive for schemas makes copies of its own inside functions")]
#![allow(clippy::duplicated_attributes, reason = "printcolumn is said once a column")]
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

/// Arguments by name, as the broker takes them.
pub type Arguments = serde_json::Map<String, serde_json::Value>;

/// The finalizer of every kind that stands for something inside a broker.
pub const FINALIZER: &str = "leveret.dev/topology";

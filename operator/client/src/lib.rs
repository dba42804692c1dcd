//! A typed client of the management HTTP API. The API is that of RabbitMQ, so the client works with RabbitMQ as well.
//!
//! [`Client`] reuses its connections; an [`Error`] carries the broker's own words.
mod error;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
mod model;
mod request;

#[cfg(test)]
mod tests;

pub use error::Error;
pub use model::{
    Arguments, BindingInfo, ClusterGroup, ClusterMember, ClusterStatus, ExchangeInfo, ObjectTotals, Overview,
    QueueInfo, QueueTotals, Vhost,
};
pub use request::{Client, DeleteOnly, Made};

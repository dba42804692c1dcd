//! A typed client of the management HTTP API: RabbitMQ's, so it speaks to a RabbitMQ as well.
//!
//! [`Client`] keeps its connections; an error carries the broker's own words.
mod error;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
mod model;
mod request;

#[cfg(test)]
mod tests;

pub use error::Error;
pub use model::{Arguments, Binding, Exchange, ObjectTotals, Overview, Queue, QueueTotals, Vhost};
pub use request::{Client, DeleteOnly, Made};

//! A typed client of the management HTTP API: RabbitMQ's, so it speaks to a RabbitMQ as well.
//!
//! [`Client`] keeps its connections; an error carries the broker's own words.
mod error;
mod model;
mod request;

pub use error::Error;
pub use model::{Arguments, Binding, Exchange, ObjectTotals, Overview, Queue, QueueTotals};
pub use request::{Client, Made};

//! Pieces of the tests in which brokers are killed under unmodified clients.

use anyhow::Result;
use lapin::options::QueueDeclareOptions;
use lapin::{Connection, ConnectionProperties};

/// Returns the next number of a sequence that `seed` determines, below 2³¹.
pub fn random(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *seed >> 33
}

/// Returns the number in an environment variable, or `or` if there is none.
pub fn variable(name: &str, or: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(or)
}

/// Returns the options that declare a durable queue.
#[must_use]
pub fn durable() -> QueueDeclareOptions {
    QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() }
}

/// Connects to the broker at an address, as a user whose password is its name.
///
/// # Errors
/// The error of the client library.
pub async fn connect(host: &str, user: &str) -> Result<Connection> {
    Ok(Connection::connect(&url(host, user), ConnectionProperties::default()).await?)
}

/// Returns the URL of the broker at an address, for a user whose password is its name.
pub fn url(host: &str, user: &str) -> String {
    format!("amqp://{user}:{user}@{host}:5672/%2f")
}

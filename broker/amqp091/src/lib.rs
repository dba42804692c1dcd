//! AMQP 0-9-1: the protocol of RabbitMQ's clients, unchanged.
//!
//! In the order of a message's journey: `connection` (handshake, the reading and the writing task), `codec` (bytes to
//! frames and methods, pure), `channel` (publish, consume, settle, declare). `leveret_listener` accepts the clients.
mod channel;
pub mod codec;
mod connection;
mod pool;

use futures::future::BoxFuture;
use leveret_listener::{AcceptedClient, Protocol};
use leveret_node::{Broker, Permit};
use pool::Pool;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Serves AMQP clients, up to the limit of the broker, until `stop` is cancelled. The clients are then sent away with
/// 320, and the future ends when the last one is gone.
///
/// The future is boxed so that all of it is compiled here, once, and not in each program that awaits it.
pub fn serve(listener: TcpListener, broker: Broker, stop: CancellationToken) -> BoxFuture<'static, ()> {
    let amqp = Amqp { broker: broker.clone(), pool: Arc::default() };
    Box::pin(leveret_listener::serve(listener, broker, amqp, stop))
}

/// The protocol, as the listener uses it.
struct Amqp {
    /// The broker, through which all clients reach their queues, and which has the limits.
    broker: Broker,
    /// The read buffers and turns that the clients share.
    pool: Arc<Pool>,
}

impl Protocol for Amqp {
    type Place = Permit;

    fn name(&self) -> &'static str {
        "amqp"
    }

    async fn admit(&self) -> Option<Permit> {
        self.broker.admit()
    }

    async fn serve(self: Arc<Self>, client: AcceptedClient, permit: Permit, stop: CancellationToken) {
        connection::serve(client, self.broker.clone(), self.pool.clone(), stop, permit).await;
    }
}

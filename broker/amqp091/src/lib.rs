//! AMQP 0-9-1: the protocol of RabbitMQ's clients, unchanged.
//!
//! In the order of a message's journey: `connection` (sockets, handshake, the reading and the writing task), `codec`
//! (bytes to frames and methods, pure), `channel` (publish, consume, settle, declare).
mod channel;
pub mod codec;
mod connection;
mod pool;

use futures::future::BoxFuture;
use leveret_node::{Broker, Door};
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Accepts clients, as many as there are places, until `stop` is cancelled; then sends them away with 320 and ends when
/// the last one is gone.
///
/// The future is boxed so that all of it is compiled here, once, and not in each program that awaits it.
pub fn serve(listener: TcpListener, broker: Broker, stop: CancellationToken) -> BoxFuture<'static, ()> {
    Box::pin(accept(listener, broker, stop))
}

async fn accept(listener: TcpListener, broker: Broker, stop: CancellationToken) {
    let (clients, pool) = (TaskTracker::new(), Arc::default());
    if let Ok(address) = listener.local_addr() {
        broker.add_listener("amqp", address);
    }
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        match accepted {
            Ok((socket, peer)) => match broker.admit(Door::Amqp) {
                Some(permit) => {
                    clients.spawn(connection::serve(socket, broker.clone(), Arc::clone(&pool), stop.clone(), permit));
                }
                None => tracing::debug!(%peer, "closed: there is no place for it"),
            },
            // The client was gone before it was accepted.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                // Descriptors or memory of the kernel are used up by others: those that are connected go on.
                broker.log_trouble(&format!("cannot accept a connection: {error}"));
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        }
    }
    drop(listener);
    clients.close();
    clients.wait().await;
}

//! The accept loop: one for each listener.
use crate::AcceptedClient;
use leveret_node::Broker;
use std::future::Future;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A protocol, as its listener sees it.
pub trait Protocol: Send + Sync + 'static {
    /// A client's place, which counts against the protocol's limits. It is dropped after the client's socket was closed.
    type Place: Send + 'static;

    /// Returns the name that the management API shows for the listener.
    fn name(&self) -> &'static str;

    /// Returns a place for one more client, or `None` if there is none: then the client is closed at once. No other
    /// client is accepted meanwhile.
    fn admit(&self) -> impl Future<Output = Option<Self::Place>> + Send;

    /// Disconnects a client that can be spared, if there is one. Called when the system has no descriptor left for a new
    /// client.
    fn make_way(&self) {}

    /// Serves one client until it disconnects, or until `stop` is cancelled and the client was disconnected.
    fn serve(
        self: Arc<Self>,
        client: AcceptedClient,
        place: Self::Place,
        stop: CancellationToken,
    ) -> impl Future<Output = ()> + Send;
}

/// Accepts clients until `stop` is cancelled. Returns when the last client has disconnected.
pub async fn serve<P: Protocol>(listener: TcpListener, broker: Broker, protocol: P, stop: CancellationToken) {
    let (clients, protocol) = (TaskTracker::new(), Arc::new(protocol));
    if let Ok(address) = listener.local_addr() {
        broker.add_listener(protocol.name(), address);
    }
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, peer)) => match protocol.admit().await {
                Some(place) => {
                    clients.spawn(serve_client(socket, protocol.clone(), place, stop.clone()));
                }
                None => tracing::debug!(%peer, "closed: there is no place for it"),
            },
            // The client disconnected before it was accepted.
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
            Err(error) => {
                // File descriptors or memory of the kernel are used up. Connected clients are not affected.
                protocol.make_way();
                broker.log_trouble(&format!("cannot accept a connection ({}): {error}", protocol.name()));
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
    drop(listener);
    clients.close();
    clients.wait().await;
}

async fn serve_client<P: Protocol>(socket: TcpStream, protocol: Arc<P>, place: P::Place, stop: CancellationToken) {
    if let Ok(client) = AcceptedClient::prepare(socket) {
        protocol.serve(client, place, stop).await;
    }
}

/// The time after which a listener tries again to accept a client.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;
    use leveret_node::Options;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// Greets each client, as long as there are places, and holds it until the end.
    struct Greeter {
        places: AtomicUsize,
    }

    impl Protocol for Greeter {
        type Place = ();

        fn name(&self) -> &'static str {
            "greeter"
        }

        async fn admit(&self) -> Option<()> {
            self.places.try_update(SeqCst, SeqCst, |places| places.checked_sub(1)).ok().map(|_| ())
        }

        async fn serve(self: Arc<Self>, mut client: AcceptedClient, _place: (), stop: CancellationToken) {
            let greeting = format!("{}", client.peer == client.stream.peer_addr().unwrap());
            client.stream.write_all(greeting.as_bytes()).await.unwrap();
            stop.cancelled().await;
        }
    }

    #[tokio::test]
    async fn clients_are_served_up_to_the_limit_and_awaited_at_the_end() {
        let (broker, stop) = (Broker::start(Options::default()), CancellationToken::new());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let greeter = Greeter { places: AtomicUsize::new(1) };
        let serving = tokio::spawn(serve(listener, broker.clone(), greeter, stop.clone()));
        let mut served = TcpStream::connect(address).await.unwrap();
        let mut greeting = [0; 4];
        served.read_exact(&mut greeting).await.unwrap();
        assert_eq!(greeting, *b"true");
        let mut refused = TcpStream::connect(address).await.unwrap();
        assert_eq!(refused.read(&mut greeting).await.unwrap(), 0, "there is no place for it");
        assert_eq!(broker.listeners()[0].protocol, "greeter");
        assert!(!serving.is_finished());
        stop.cancel();
        serving.await.unwrap();
        assert_eq!(served.read(&mut greeting).await.unwrap(), 0);
        broker.stop();
    }
}

//! The connections of a node over the simulated network, as the links of the node use them.
use super::network::Network;
use super::pipe::Host;
use futures::future::BoxFuture;
use leveret_replication::{Wire, Wires};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Makes and accepts the connections of one node.
pub(crate) struct SimWires {
    pub(crate) network: Network,
    pub(crate) host: Host,
}

/// Returns the address of a node.
pub(crate) fn address(host: Host) -> String {
    format!("node{host}:5680")
}

fn host_at(address: &str) -> Option<Host> {
    address.strip_prefix("node")?.strip_suffix(":5680")?.parse().ok()
}

impl Wires for SimWires {
    fn dial(&self, address: String) -> BoxFuture<'static, io::Result<Wire>> {
        let (network, from) = (self.network.clone(), self.host);
        Box::pin(async move {
            let to = host_at(&address).ok_or(io::ErrorKind::NotFound)?;
            let number = network.with(|state| state.dial(from, to));
            let connection = Dialling { network: network.clone(), number }.await?;
            Ok(wire(&network, connection, 0, address))
        })
    }

    fn accept(&self) -> BoxFuture<'_, io::Result<Wire>> {
        Box::pin(std::future::poll_fn(|context| {
            let connection = self.network.with(|state| {
                let machine = state.machine(self.host);
                machine.acceptor = Some(context.waker().clone());
                machine.accepted.pop_front()
            });
            match connection {
                Some(connection) => Poll::Ready(Ok(wire(&self.network, connection, 1, "another node".to_owned()))),
                None => Poll::Pending,
            }
        }))
    }
}

fn wire(network: &Network, connection: u64, writes: usize, from: String) -> Wire {
    let reader = Box::new(SimReader { network: network.clone(), connection, pipe: 1 - writes });
    let writer = Box::new(SimWriter { network: network.clone(), connection, pipe: writes });
    Wire { reader, writer, from }
}

/// An attempt to connect.
struct Dialling {
    network: Network,
    number: u64,
}

impl Future for Dialling {
    type Output = io::Result<u64>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<u64>> {
        match self.network.with(|state| state.take_dialled(self.number, context.waker())) {
            Some(outcome) => Poll::Ready(outcome),
            None => Poll::Pending,
        }
    }
}

impl Drop for Dialling {
    fn drop(&mut self) {
        self.network.with(|state| state.end_dial(self.number));
    }
}

struct SimReader {
    network: Network,
    connection: u64,
    pipe: usize,
}

struct SimWriter {
    network: Network,
    connection: u64,
    pipe: usize,
}

impl AsyncRead for SimReader {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let unfilled = into.initialize_unfilled();
        let moved = self.network.with(|state| state.read(self.connection, self.pipe, unfilled, context.waker()));
        let count = ready!(moved.map_or(Poll::Pending, Poll::Ready))?;
        into.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for SimWriter {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let moved = self.network.with(|state| state.write(self.connection, self.pipe, bytes, context.waker()));
        moved.map_or(Poll::Pending, Poll::Ready)
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.network.with(|state| state.stop_writing(self.connection, self.pipe));
        Poll::Ready(Ok(()))
    }
}

impl Drop for SimReader {
    fn drop(&mut self) {
        self.network.with(|state| state.stop_reading(self.connection, self.pipe));
    }
}

impl Drop for SimWriter {
    fn drop(&mut self) {
        self.network.with(|state| state.stop_writing(self.connection, self.pipe));
    }
}

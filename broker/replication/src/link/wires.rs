//! The streams of bytes that links run over. [`TcpWires`] is the real implementation; a simulation has one of its own.
use futures::future::BoxFuture;
use std::io;
use std::net::SocketAddr;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};

/// A stream of bytes between two nodes, and who is at its other end.
pub struct Wire {
    /// The half that is read from.
    pub reader: Box<dyn AsyncRead + Send + Unpin>,
    /// The half that is written to.
    pub writer: Box<dyn AsyncWrite + Send + Unpin>,
    /// The address of the other end, for log messages.
    pub from: String,
}

/// Makes and accepts streams of bytes.
pub trait Wires: Send + Sync + 'static {
    /// Connects to `address`, which is one that [`Peers::introduce`](super::Peers::introduce) was given.
    ///
    /// The error has to be `ConnectionRefused` exactly if nobody accepts streams at the address: the groups take that
    /// for the end of the process there, and elect another leader at once.
    fn dial(&self, address: String) -> BoxFuture<'static, io::Result<Wire>>;

    /// Waits for the next stream that another node makes, and returns it. Is not called again before it has returned.
    fn accept(&self) -> BoxFuture<'_, io::Result<Wire>>;
}

/// TCP connections.
pub struct TcpWires {
    listener: TcpListener,
}

impl TcpWires {
    /// Begins to listen at `address`, for example `0.0.0.0:5680`; port 0 stands for a free one.
    ///
    /// # Errors
    /// The error of the system, for instance if the port is in use.
    pub async fn listen(address: &str) -> io::Result<Self> {
        Ok(Self::new(TcpListener::bind(address).await?))
    }

    /// Returns the connections that are accepted by a socket which listens already.
    #[must_use]
    pub fn new(listener: TcpListener) -> Self {
        Self { listener }
    }

    /// Returns the address that this node listens at.
    ///
    /// # Errors
    /// The error of the system.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

fn wire(stream: TcpStream) -> io::Result<Wire> {
    stream.set_nodelay(true)?;
    let from = stream.peer_addr().map_or_else(|_| "an unknown address".to_owned(), |address| address.to_string());
    let (reader, writer) = stream.into_split();
    Ok(Wire { reader: Box::new(reader), writer: Box::new(writer), from })
}

impl Wires for TcpWires {
    fn dial(&self, address: String) -> BoxFuture<'static, io::Result<Wire>> {
        Box::pin(async move { wire(TcpStream::connect(address).await?) })
    }

    fn accept(&self) -> BoxFuture<'_, io::Result<Wire>> {
        Box::pin(async move { wire(self.listener.accept().await?.0) })
    }
}

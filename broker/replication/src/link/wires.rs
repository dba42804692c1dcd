//! The streams of bytes that links run over. [`TcpWires`] is the real implementation; a simulation has one of its own.
use futures::future::BoxFuture;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// A stream of bytes between two nodes, and who is at its other end.
pub struct Wire {
    /// The half that is read from.
    pub reader: Box<dyn AsyncRead + Send + Unpin>,
    /// The half that is written to.
    pub writer: Box<dyn AsyncWrite + Send + Unpin>,
    /// The address of the other end, for log messages.
    pub from: String,
}

impl Wire {
    /// Closes a stream on which this side has said why it refuses the other. Reads what still comes first, for a moment: if
    /// a socket is closed while it has unread bytes, the other side may lose the reason.
    pub(super) async fn part(mut self) {
        let parting = async {
            self.writer.shutdown().await?;
            let mut rest = [0; 4096];
            while self.reader.read(&mut rest).await? > 0 {}
            io::Result::Ok(())
        };
        let _ = timeout(PART_MAX, parting).await;
    }
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

    /// Makes a stream that was accepted ready for use, for example by agreeing on keys with the other side. This may take as
    /// long as the other side likes, so the caller bounds the time.
    fn admit(&self, wire: Wire) -> BoxFuture<'_, io::Result<Wire>> {
        Box::pin(std::future::ready(Ok(wire)))
    }

    /// Returns whether the other side of each stream that [`dial`](Self::dial) and [`admit`](Self::admit) return has
    /// proven that it belongs to the cluster.
    fn are_authenticated(&self) -> bool {
        false
    }

    /// Does what has to be done from time to time while the streams are used. Is called once, and may never return.
    fn maintain(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
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

/// The longest time for which bytes of a refused side are read.
const PART_MAX: Duration = Duration::from_secs(1);

//! A client as its protocol gets it: a stream, and the addresses of both ends.
use rustix::net::sockopt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;

/// A client that was accepted and has a place.
pub struct AcceptedClient {
    /// The bytes from and to the client.
    pub stream: TcpStream,
    /// The client's address.
    pub peer: SocketAddr,
    /// The address that the client connected to.
    pub local: SocketAddr,
}

impl AcceptedClient {
    /// Prepares the socket of a client. This runs in the client's own task and before its protocol sees a byte: a header
    /// of the PROXY protocol, which replaces `peer`, and a TLS handshake, which replaces `stream`, belong here.
    ///
    /// # Errors
    /// The error of the system if the client has disconnected.
    pub(crate) fn prepare(stream: TcpStream) -> io::Result<Self> {
        set_options(&stream);
        Ok(Self { peer: stream.peer_addr()?, local: stream.local_addr()?, stream })
    }
}

/// Sets the options of a client's socket. Keepalive finds a peer that vanished although its protocol has no heartbeats.
fn set_options(socket: &TcpStream) {
    let _ = socket.set_nodelay(true);
    let _ = sockopt::set_socket_keepalive(socket, true);
    let _ = sockopt::set_tcp_keepidle(socket, KEEPALIVE_IDLE);
    let _ = sockopt::set_tcp_keepintvl(socket, KEEPALIVE_EVERY);
    let _ = sockopt::set_tcp_keepcnt(socket, KEEPALIVE_PROBES);
}

const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 6;

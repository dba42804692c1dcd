//! Listening sockets: on both IP families where the address says so, with an error that names port and purpose.
use anyhow::Context;
use std::net::{Ipv4Addr, SocketAddr};
use tokio::net::{TcpListener, TcpSocket, lookup_host};

/// Listens at `address` (HOST:PORT) for `purpose`. Where there is no IPv6, `[::]` means all IPv4 addresses.
pub(crate) async fn listen(address: &str, purpose: &str) -> anyhow::Result<TcpListener> {
    let context = || format!("cannot listen at {address} for {purpose}");
    let resolved = lookup_host(address).await.with_context(context)?.next().with_context(context)?;
    match bind(resolved) {
        Ok(listener) => Ok(listener),
        Err(error) if resolved.is_ipv6() && resolved.ip().is_unspecified() && !in_use(&error) => {
            bind((Ipv4Addr::UNSPECIFIED, resolved.port()).into()).with_context(context)
        }
        Err(error) if in_use(&error) => {
            Err(error).with_context(|| format!("{} (is another broker running?)", context()))
        }
        Err(error) => Err(error).with_context(context),
    }
}

fn in_use(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::AddrInUse
}

fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv6() { TcpSocket::new_v6()? } else { TcpSocket::new_v4()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Connections that wait to be accepted.
const BACKLOG: u32 = 4096;

//! Opens listening sockets: for both IP families if the address says so. Errors name the address and its purpose.
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use tokio::net::{TcpListener, TcpSocket, lookup_host};

/// The reason why an address cannot be listened at.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address is in use.
    #[error("cannot listen at {address} for {purpose} (is another broker running?)")]
    InUse {
        /// HOST:PORT.
        address: String,
        /// The purpose of the listener.
        purpose: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// The address cannot be resolved or bound.
    #[error("cannot listen at {address} for {purpose}")]
    Failed {
        /// HOST:PORT.
        address: String,
        /// The purpose of the listener.
        purpose: &'static str,
        /// The system's error.
        source: io::Error,
    },
}

/// Listens at `address` (HOST:PORT) for `purpose`. On a system without IPv6, `[::]` means all IPv4 addresses.
///
/// # Errors
/// [`ListenError`], naming the address and the purpose.
pub async fn listen(address: &str, purpose: &'static str) -> Result<TcpListener, ListenError> {
    let failed = |source: io::Error| {
        let address = address.to_owned();
        match in_use(&source) {
            true => ListenError::InUse { address, purpose, source },
            false => ListenError::Failed { address, purpose, source },
        }
    };
    let mut resolved = lookup_host(address).await.map_err(failed)?;
    let resolved = resolved.next().ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
    match bind(resolved) {
        Err(error) if resolved.is_ipv6() && resolved.ip().is_unspecified() && !in_use(&error) => {
            bind((Ipv4Addr::UNSPECIFIED, resolved.port()).into()).map_err(failed)
        }
        bound => bound.map_err(failed),
    }
}

fn in_use(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrInUse
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv6() { TcpSocket::new_v6()? } else { TcpSocket::new_v4()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// The number of connections that wait to be accepted.
const BACKLOG: u32 = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_in_use_is_named_with_its_purpose() {
        let taken = listen("127.0.0.1:0", "AMQP clients").await.unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let error = listen(&address, "metrics").await.unwrap_err().to_string();
        assert_eq!(error, format!("cannot listen at {address} for metrics (is another broker running?)"));
        let error = listen("127.0.0.1:none", "metrics").await.unwrap_err().to_string();
        assert_eq!(error, "cannot listen at 127.0.0.1:none for metrics");
    }
}

//! Streams between nodes that are encrypted, and whose two sides have checked each other's certificate: TLS over other
//! wires. The side that dials also checks that the certificate is for the address that it has dialled.
//!
//! In TLS 1.3 the dialling side is done before the accepting side has seen its certificate. So a refusal by the accepting
//! side reaches the dialling side with the first bytes that it reads, in its handshake about the secret.
use super::connection::WRITE_BYTES;
use super::credentials::{CurrentCredentials, TlsFileError, TlsFiles};
use super::tls_reasons::{explained, server_name};
use super::wires::{Wire, Wires};
use futures::future::BoxFuture;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, BufReader, Join, ReadBuf};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// Encrypts the streams of other wires.
pub struct TlsWires {
    below: Arc<dyn Wires>,
    credentials: CurrentCredentials,
}

/// A stream that carries the records of TLS.
type Records = Join<BufReader<Box<dyn AsyncRead + Send + Unpin>>, Box<dyn AsyncWrite + Send + Unpin>>;

impl TlsWires {
    /// Encrypts the streams of `below` from now on. Other nodes reach this one at `own_address`.
    ///
    /// # Errors
    /// [`TlsFileError`] if one of the files cannot be used.
    pub fn new(below: Arc<dyn Wires>, files: TlsFiles, own_address: &str) -> Result<Self, TlsFileError> {
        Ok(Self { below, credentials: CurrentCredentials::read(files, own_address)? })
    }
}

impl Wires for TlsWires {
    fn dial(&self, address: String) -> BoxFuture<'static, io::Result<Wire>> {
        let (name, connector) = (server_name(&address), TlsConnector::from(self.credentials.current().client.clone()));
        let dialling = self.below.dial(address);
        Box::pin(async move {
            let (name, Wire { reader, writer, from }) = (name?, dialling.await?);
            let connecting = connector.connect_with(name, records(reader, writer), |session| {
                session.set_buffer_limit(Some(WRITE_BYTES));
            });
            agreed(connecting.into_fallible().await, from).await
        })
    }

    fn accept(&self) -> BoxFuture<'_, io::Result<Wire>> {
        self.below.accept()
    }

    fn admit(&self, wire: Wire) -> BoxFuture<'_, io::Result<Wire>> {
        let acceptor = TlsAcceptor::from(self.credentials.current().server.clone());
        Box::pin(async move {
            let Wire { reader, writer, from } = self.below.admit(wire).await?;
            let accepting = acceptor.accept_with(records(reader, writer), |session| {
                session.set_buffer_limit(Some(WRITE_BYTES));
            });
            agreed(accepting.into_fallible().await, from).await
        })
    }

    fn are_authenticated(&self) -> bool {
        true
    }

    fn maintain(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            tokio::join!(self.credentials.keep_current(), self.below.maintain());
        })
    }
}

/// TLS asks for 4 KiB at a time, so it reads from a buffer.
fn records(reader: Box<dyn AsyncRead + Send + Unpin>, writer: Box<dyn AsyncWrite + Send + Unpin>) -> Records {
    tokio::io::join(BufReader::with_capacity(READ_BUFFER, reader), writer)
}

/// Returns the encrypted stream. One on which TLS has failed is ended, after the other side was told why; the error says it in
/// words.
async fn agreed<S>(shaken: Result<S, (io::Error, Records)>, from: String) -> io::Result<Wire>
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    match shaken {
        Ok(stream) => {
            let (reader, writer) = tokio::io::split(stream);
            Ok(Wire { reader: Box::new(Explained(reader)), writer: Box::new(Explained(writer)), from })
        }
        Err((error, stream)) => {
            let (reader, writer) = stream.into_inner();
            Wire { reader: Box::new(reader), writer, from }.part().await;
            Err(explained(error))
        }
    }
}

/// One half of a TLS stream. Its errors say in words what is wrong with TLS, and its end is an end like that of any other
/// stream, also without the farewell of TLS: frames have lengths, so a stream that was cut short is noticed.
struct Explained<S>(S);

impl<S: AsyncRead + Unpin> AsyncRead for Explained<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, into).map(|read| match read {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
            read => read.map_err(explained),
        })
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Explained<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes).map_err(explained)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(context, slices).map_err(explained)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context).map_err(explained)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context).map_err(explained)
    }
}

const READ_BUFFER: usize = 64 << 10;

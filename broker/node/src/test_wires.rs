//! Connections between the nodes of a test that can be cut.
use futures::future::BoxFuture;
use leveret_replication::{TcpWires, Wire, Wires};
use parking_lot::Mutex;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, ReadBuf};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// The connections of a node.
pub(crate) struct Cut {
    /// Cancelled when the connections that exist break.
    breaks: Mutex<CancellationToken>,
    /// True while no new ones are made.
    is_cut: AtomicBool,
    /// The connections break once this many more bytes have arrived.
    left: AtomicI64,
    /// The number of bytes that have arrived so far.
    pub(crate) received: AtomicU64,
}

impl Default for Cut {
    fn default() -> Self {
        let (is_cut, left) = (AtomicBool::new(false), AtomicI64::new(i64::MAX));
        Self { breaks: Mutex::default(), is_cut, left, received: AtomicU64::new(0) }
    }
}

impl Cut {
    /// Breaks all connections, and has no new ones made.
    pub(crate) fn cut(&self) {
        self.is_cut.store(true, Relaxed);
        self.break_all();
    }

    /// Has new connections made again.
    pub(crate) fn heal(&self) {
        self.is_cut.store(false, Relaxed);
    }

    /// Breaks all connections once `bytes` more bytes have arrived.
    pub(crate) fn break_after(&self, bytes: i64) {
        self.left.store(bytes, Relaxed);
    }

    /// Returns whether [`break_after`](Self::break_after) is still to come.
    pub(crate) fn is_to_break(&self) -> bool {
        self.left.load(Relaxed) != i64::MAX
    }

    fn break_all(&self) {
        self.left.store(i64::MAX, Relaxed);
        std::mem::take(&mut *self.breaks.lock()).cancel();
    }
}

/// TCP connections that can be cut.
pub(crate) struct CutWires {
    pub(crate) wires: TcpWires,
    pub(crate) cut: Arc<Cut>,
}

impl Wires for CutWires {
    fn dial(&self, address: String) -> BoxFuture<'static, io::Result<Wire>> {
        let (dialling, cut) = (self.wires.dial(address), self.cut.clone());
        Box::pin(async move {
            match cut.is_cut.load(Relaxed) {
                true => Err(io::ErrorKind::TimedOut.into()),
                false => Ok(wrap(dialling.await?, cut)),
            }
        })
    }

    fn accept(&self) -> BoxFuture<'_, io::Result<Wire>> {
        Box::pin(async move {
            loop {
                let wire = self.wires.accept().await?;
                if !self.cut.is_cut.load(Relaxed) {
                    return Ok(wrap(wire, self.cut.clone()));
                }
            }
        })
    }
}

struct CutReader {
    reader: Box<dyn AsyncRead + Send + Unpin>,
    broken: Pin<Box<WaitForCancellationFutureOwned>>,
    cut: Arc<Cut>,
}

fn wrap(wire: Wire, cut: Arc<Cut>) -> Wire {
    let broken = Box::pin(cut.breaks.lock().clone().cancelled_owned());
    Wire { reader: Box::new(CutReader { reader: wire.reader, broken, cut }), ..wire }
}

impl AsyncRead for CutReader {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.broken.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let before = into.filled().len();
        let read = Pin::new(&mut self.reader).poll_read(context, into);
        let bytes = (into.filled().len() - before) as u64;
        self.cut.received.fetch_add(bytes, Relaxed);
        if self.cut.is_to_break() && self.cut.left.fetch_sub(bytes as i64, Relaxed) <= bytes as i64 {
            self.cut.break_all();
        }
        read
    }
}

//! A network in memory that joins the nodes of one test: links can be cut in one direction, and nodes can go away.
use crate::{Wire, Wires};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// A direction between two nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Way {
    pub(crate) from: u64,
    pub(crate) to: u64,
}

#[derive(Default)]
pub(crate) struct TestNet {
    nodes: Mutex<BTreeMap<u64, Present>>,
    /// The directions in which nothing arrives.
    cut: watch::Sender<BTreeSet<Way>>,
}

struct Present {
    streams: mpsc::Sender<Wire>,
    gone: CancellationToken,
}

/// The wires of one node.
pub(crate) struct TestWires {
    net: Arc<TestNet>,
    node: u64,
    streams: tokio::sync::Mutex<mpsc::Receiver<Wire>>,
}

impl TestNet {
    pub(crate) fn join(self: &Arc<Self>, node: u64) -> Arc<TestWires> {
        let (sender, streams) = mpsc::channel(16);
        let present = Present { streams: sender, gone: CancellationToken::new() };
        assert!(self.nodes.lock().insert(node, present).is_none(), "node {node} is there already");
        Arc::new(TestWires { net: self.clone(), node, streams: tokio::sync::Mutex::new(streams) })
    }

    /// Resets all streams of a node, and refuses new ones.
    pub(crate) fn leave(&self, node: u64) {
        if let Some(present) = self.nodes.lock().remove(&node) {
            present.gone.cancel();
        }
    }

    /// Resets all streams of a node, which can be made again at once.
    pub(crate) fn reset(&self, node: u64) {
        if let Some(present) = self.nodes.lock().get_mut(&node) {
            std::mem::replace(&mut present.gone, CancellationToken::new()).cancel();
        }
    }

    pub(crate) fn set_cut(&self, ways: impl IntoIterator<Item = Way>) {
        self.cut.send_replace(ways.into_iter().collect());
    }

    fn connect(self: &Arc<Self>, from: u64, to: u64) -> io::Result<Wire> {
        let nodes = self.nodes.lock();
        let (Some(dialler), Some(acceptor)) = (nodes.get(&from), nodes.get(&to)) else {
            return Err(io::ErrorKind::ConnectionRefused.into());
        };
        let (near, relayed_near) = tokio::io::duplex(64 << 10);
        let (far, relayed_far) = tokio::io::duplex(64 << 10);
        acceptor.streams.try_send(wire(far, from)).map_err(|_| io::ErrorKind::ConnectionRefused)?;
        let gone = (dialler.gone.clone(), acceptor.gone.clone());
        let (near_reader, near_writer) = tokio::io::split(relayed_near);
        let (far_reader, far_writer) = tokio::io::split(relayed_far);
        let there = relay(near_reader, far_writer, Way { from, to }, self.cut.subscribe());
        let back = relay(far_reader, near_writer, Way { from: to, to: from }, self.cut.subscribe());
        tokio::spawn(async move {
            tokio::select! {
                () = there => {}
                () = back => {}
                () = gone.0.cancelled() => {}
                () = gone.1.cancelled() => {}
            }
        });
        Ok(wire(near, to))
    }
}

fn wire(stream: DuplexStream, other: u64) -> Wire {
    let (reader, writer) = tokio::io::split(stream);
    Wire { reader: Box::new(reader), writer: Box::new(writer), from: format!("node {other}") }
}

async fn relay(
    mut reader: ReadHalf<DuplexStream>,
    mut writer: WriteHalf<DuplexStream>,
    way: Way,
    mut cut: watch::Receiver<BTreeSet<Way>>,
) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(len @ 1..) = reader.read(&mut buffer).await {
        let _ = cut.wait_for(|cut| !cut.contains(&way)).await;
        if writer.write_all(&buffer[..len]).await.is_err() {
            return;
        }
    }
}

impl Wires for TestWires {
    fn dial(&self, address: String) -> BoxFuture<'static, io::Result<Wire>> {
        let (net, node) = (self.net.clone(), self.node);
        Box::pin(async move { net.connect(node, address.parse().unwrap()) })
    }

    fn accept(&self) -> BoxFuture<'_, io::Result<Wire>> {
        Box::pin(async move {
            let mut streams = self.streams.lock().await;
            match streams.recv().await {
                Some(wire) => Ok(wire),
                None => std::future::pending().await,
            }
        })
    }
}

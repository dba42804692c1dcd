//! Starts the parts of the broker, and stops them in order: accept no more clients, send clients away, stop the node.
use crate::config::Config;
use crate::config::cluster::ClusterConfig;
use crate::data_dir::DataDir;
use crate::listeners::{LISTENERS, ListenerRow, Stage};
use anyhow::Context;
use futures::future::join_all;
use leveret_node::{Broker, ClusterOptions, Options, StorageOptions, TcpWires, TlsWires, Wires};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Runs the broker until a signal ends it.
pub(crate) fn run(config: Config) -> anyhow::Result<()> {
    crate::log::begin(config.log);
    // At least two: a task that appends to an idle log also syncs it, which blocks its worker.
    let workers = std::thread::available_parallelism().map_or(2, usize::from).max(2);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build()?;
    runtime.block_on(serve(config))
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let listening = listen(&config).await?;
    let links = Links::listen(&config.cluster).await?;
    let data_dir = DataDir::open(&config.data_dir)?;
    let mut signals = Signals::new()?;
    let broker = Broker::start(Options {
        name: config.node_name.clone(),
        memory_max: config.memory_max,
        message_bytes_max: config.message_bytes_max,
        default_user: config.default_user.clone(),
        default_pass: config.default_pass.clone(),
        limits: config.limits,
    });
    let (stop_clients, stop_others) = (CancellationToken::new(), CancellationToken::new());
    let mut storage = StorageOptions::in_folder(&config.data_dir);
    broker.announce_storage(&storage);
    let mut addresses = described(&listening);
    let (for_clients, others): (Vec<_>, Vec<_>) =
        listening.into_iter().partition(|one| one.listener.stage == Stage::Clients);
    // Health checks are answered from the start; everything else waits for the log to be read.
    let others = Administration::start(others, &broker, &stop_others)?;
    let folder = || format!("cannot open the data folder {}", config.data_dir.display());
    if let Some(Links { options, wires, address }) = links {
        addresses += &format!(" cluster={address}");
        if config.cluster.tls.files().is_some() {
            addresses += " (TLS)";
        }
        broker.open_links(options, wires, &mut storage).with_context(folder)?;
    }
    tracing::info!(data_dir = %config.data_dir.display(), "opening the data folder; {addresses}");
    let opening = async {
        broker.open_storage(storage).await?;
        broker.begin_cluster().await
    };
    let Some(opened) = signals.unless_given(opening).await else {
        tracing::info!("stopped before the data folder was open");
        return Ok(());
    };
    opened.with_context(folder)?;
    let clients = TaskTracker::new();
    if signals.unless_given(broker.until_cluster_is_ready()).await.is_some() {
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            data_dir = %config.data_dir.display(),
            memory_max = config.memory_max,
            connections_max = config.limits.connections_max,
            "leveret is ready; {addresses}"
        );
        for OpenListener { listener, socket, .. } in for_clients {
            clients.spawn((listener.serve)(socket, broker.clone(), stop_clients.clone()));
        }
        if signals.unless_given(broker.until_removed()).await.is_some() {
            stop_clients.cancel();
            signals.given().await;
        }
    }
    end(&config, &broker, clients, [stop_clients, stop_others], others).await;
    drop(data_dir);
    tracing::info!("stopped");
    Ok(())
}

/// Stops the parts of the broker in order. `stop` ends the listeners for clients and the other ones.
async fn end(
    config: &Config,
    broker: &Broker,
    clients: TaskTracker,
    stop: [CancellationToken; 2],
    others: Administration,
) {
    let [stop_clients, stop_others] = stop;
    broker.hand_over(config.shutdown_grace).await;
    tracing::info!(grace = ?config.shutdown_grace, "stopping: clients are sent away");
    stop_clients.cancel();
    clients.close();
    if tokio::time::timeout(config.shutdown_grace, clients.wait()).await.is_err() {
        tracing::warn!("some clients did not leave in time");
    }
    stop_others.cancel();
    let _ = tokio::time::timeout(config.shutdown_grace, others.ended).await;
    broker.close_storage().await;
    broker.stop();
}

/// The signals that end the broker.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for a signal.
    async fn given(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Returns the result of `work`; `None` if a signal comes first.
    async fn unless_given<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            done = work => Some(done),
            () = self.given() => None,
        }
    }
}

/// The socket to which other nodes of the cluster connect, and the options of the cluster.
struct Links {
    options: ClusterOptions,
    wires: Arc<dyn Wires>,
    address: SocketAddr,
}

impl Links {
    /// Opens the socket, and reads the files for TLS if there is any; returns `None` if the node is no part of a cluster.
    async fn listen(config: &ClusterConfig) -> anyhow::Result<Option<Self>> {
        if config.is_alone() {
            return Ok(None);
        }
        let socket = leveret_listener::listen(&config.listen, "other nodes").await?;
        let address = socket.local_addr()?;
        let Some(options) = config.options(address.port())? else { return Ok(None) };
        let mut wires: Arc<dyn Wires> = Arc::new(TcpWires::new(socket));
        if let Some(files) = config.tls.files() {
            wires = Arc::new(TlsWires::new(wires, files, &options.address)?);
        }
        Ok(Some(Self { options, wires, address }))
    }
}

/// A listener whose socket is open.
struct OpenListener {
    listener: &'static ListenerRow,
    socket: TcpListener,
    /// The address of the socket. The system chose the port if the configured one is 0.
    address: SocketAddr,
}

/// Opens the sockets of all listeners.
async fn listen(config: &Config) -> anyhow::Result<Vec<OpenListener>> {
    let mut listening = Vec::with_capacity(LISTENERS.len());
    for (listener, address) in LISTENERS.iter().zip(&config.addresses) {
        let socket = leveret_listener::listen(address, listener.purpose).await?;
        let address = socket.local_addr()?;
        listening.push(OpenListener { listener, socket, address });
    }
    Ok(listening)
}

/// Returns the addresses of the listeners in the form that the log shows: `amqp=HOST:PORT http=HOST:PORT`.
fn described(listening: &[OpenListener]) -> String {
    let each: Vec<_> = listening.iter().map(|one| format!("{}={}", one.listener.key, one.address)).collect();
    each.join(" ")
}

/// The management API and the metrics, on a thread and a runtime of their own: the operating system gives this thread its
/// share of the processor however busy the workers are with messages, so health checks are answered in time.
struct Administration {
    ended: tokio::sync::oneshot::Receiver<()>,
}

impl Administration {
    fn start(listening: Vec<OpenListener>, broker: &Broker, stop: &CancellationToken) -> anyhow::Result<Self> {
        let mut sockets = Vec::with_capacity(listening.len());
        for OpenListener { listener, socket, .. } in listening {
            sockets.push((listener, socket.into_std()?));
        }
        let (broker, stop) = (broker.clone(), stop.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (end, ended) = tokio::sync::oneshot::channel();
        let serve = async move {
            let mut serving = Vec::with_capacity(sockets.len());
            for (listener, socket) in sockets {
                serving.push((listener.serve)(TcpListener::from_std(socket)?, broker.clone(), stop.clone()));
            }
            join_all(serving).await;
            anyhow::Ok(())
        };
        std::thread::Builder::new().name("management".to_owned()).spawn(move || {
            if let Err(error) = runtime.block_on(serve) {
                tracing::error!(%error, "the management API cannot be served");
            }
            let _ = end.send(());
        })?;
        Ok(Self { ended })
    }
}

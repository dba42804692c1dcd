//! Puts the broker together, and takes it apart in order: stop accepting, send clients away, stop.
use crate::config::Config;
use crate::data_dir::DataDir;
use crate::listener::listen;
use anyhow::Context;
use leveret_management::Bounds;
use leveret_node::{Broker, Options, StorageOptions};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Runs the broker until a signal ends it.
pub(crate) fn run(config: Config) -> anyhow::Result<()> {
    crate::log::begin(config.log);
    // Never one alone: whoever appends to an idle log also syncs it.
    let workers = std::thread::available_parallelism().map_or(2, usize::from).max(2);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build()?;
    runtime.block_on(serve(config))
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let amqp = listen(&config.amqp, "AMQP clients").await?;
    let http = listen(&config.http, "the management API").await?;
    let metrics = listen(&config.metrics, "metrics").await?;
    let data_dir = DataDir::open(&config.data_dir)?;
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let broker = Broker::start(Options {
        name: config.node_name,
        memory_max: config.memory_max,
        message_bytes_max: config.message_bytes_max,
        default_user: config.default_user,
        default_pass: config.default_pass,
        limits: config.limits,
    });
    let clients = TaskTracker::new();
    let (stop_clients, stop_others) = (CancellationToken::new(), CancellationToken::new());
    let storage = StorageOptions::in_folder(&config.data_dir);
    broker.announce_storage(&storage);
    let (http_address, metrics_address) = (http.local_addr()?, metrics.local_addr()?);
    // Health is told from the start; everything else waits for the log to be read.
    let others = Administration::start(http, metrics, &broker, &stop_others)?;
    tracing::info!(data_dir = %config.data_dir.display(), http = %http_address, "opening the data folder");
    let opened = tokio::select! {
        biased;
        opened = broker.open_storage(storage) => Some(opened),
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
    };
    let Some(opened) = opened else {
        tracing::info!("stopped before the data folder was open");
        return Ok(());
    };
    opened.with_context(|| format!("cannot open the data folder {}", config.data_dir.display()))?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        amqp = %amqp.local_addr()?,
        http = %http_address,
        metrics = %metrics_address,
        data_dir = %config.data_dir.display(),
        memory_max = config.memory_max,
        connections_max = config.limits.connections_max,
        "leveret is ready"
    );
    clients.spawn(leveret_amqp091::serve(amqp, broker.clone(), stop_clients.clone()));

    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
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
    drop(data_dir);
    tracing::info!("stopped");
    Ok(())
}

/// The management API and the metrics, on a thread and a runtime of their own: the operating system gives it its part of
/// the processor whatever messages keep the workers busy, so health checks are answered in time.
struct Administration {
    ended: tokio::sync::oneshot::Receiver<()>,
}

impl Administration {
    fn start(
        http: TcpListener,
        metrics: TcpListener,
        broker: &Broker,
        stop: &CancellationToken,
    ) -> anyhow::Result<Self> {
        let (http, metrics) = (http.into_std()?, metrics.into_std()?);
        let (broker, stop) = (broker.clone(), stop.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (end, ended) = tokio::sync::oneshot::channel();
        let serve = async move {
            let (http, metrics) = (TcpListener::from_std(http)?, TcpListener::from_std(metrics)?);
            let limits = broker.limits();
            let within = Bounds { connections_max: limits.http_connections_max as usize, ..Bounds::http() };
            let http = leveret_management::serve_http_within(http, broker.clone(), within, stop.clone());
            let within = Bounds { connections_max: limits.metrics_connections_max as usize, ..Bounds::metrics() };
            let metrics = leveret_management::serve_metrics_within(metrics, broker, within, stop);
            tokio::join!(http, metrics);
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

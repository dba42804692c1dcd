//! Puts the broker together, and takes it apart in order: stop accepting, send clients away, stop.
use crate::config::{Config, Log};
use crate::data_dir::DataDir;
use crate::listener::listen;
use anyhow::Context;
use leveret_node::{Broker, Options, StorageOptions};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing_subscriber::EnvFilter;

/// Runs the broker until a signal ends it.
pub(crate) fn run(config: Config) -> anyhow::Result<()> {
    log(config.log);
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
    });
    let (clients, others) = (TaskTracker::new(), TaskTracker::new());
    let (stop_clients, stop_others) = (CancellationToken::new(), CancellationToken::new());
    let storage = StorageOptions::in_folder(&config.data_dir);
    broker.announce_storage(&storage);
    let http_address = http.local_addr()?;
    // Health is told from the start; everything else waits for the log to be read.
    others.spawn(leveret_management::serve_http(http, broker.clone(), stop_others.clone()));
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
        metrics = %metrics.local_addr()?,
        data_dir = %config.data_dir.display(),
        memory_max = config.memory_max,
        "leveret is ready"
    );
    clients.spawn(leveret_amqp091::serve(amqp, broker.clone(), stop_clients.clone()));
    others.spawn(leveret_management::serve_metrics(metrics, broker.clone(), stop_others.clone()));

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
    others.close();
    let _ = tokio::time::timeout(config.shutdown_grace, others.wait()).await;
    broker.close_storage().await;
    broker.stop();
    drop(data_dir);
    tracing::info!("stopped");
    Ok(())
}

/// Colours are for people: a log that is collected has none.
fn is_terminal() -> bool {
    std::io::IsTerminal::is_terminal(&std::io::stderr())
}

fn log(format: Log) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,openraft=error"));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(is_terminal());
    match format {
        Log::Text => lines.with_target(false).init(),
        Log::Json => lines.json().init(),
    }
}

//! `run`: waits to be the leader, then looks after brokers and topology until it is told to stop.
use crate::args::Run;
use crate::kubernetes::Context;
use crate::lease::Election;
use crate::metrics::Metrics;
use crate::{admin, cluster, topology};
use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// Runs the operator.
pub(crate) async fn run(args: Run) -> anyhow::Result<()> {
    log(&args.log);
    let stop = CancellationToken::new();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stopper = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stopper.cancel();
    });
    let metrics = Metrics::new()?;
    admin::serve(&args.admin, metrics.clone(), stop.clone()).await?;
    let client = kube::Client::try_default().await.context("cannot find out how to reach the cluster")?;
    let mut election = Election::new(client.clone(), &args.lease_namespace, &args.identity);
    if !election.acquire(&stop).await {
        return Ok(());
    }
    tracing::info!(identity = args.identity, "leading");
    metrics.set_leader(true);
    let context = Context::new(client, args.namespaces.clone(), &args.identity, metrics.clone());
    let working = stop.child_token();
    let brokers = tokio::spawn(cluster::run(context.clone(), args.broker_image, working.clone()));
    let topology = tokio::spawn(topology::watch::run(context, working.clone()));
    let lost = election.keep(&stop).await;
    working.cancel();
    metrics.set_leader(false);
    let ended = async { (brokers.await, topology.await) };
    let _ = tokio::time::timeout(std::time::Duration::from_secs(5), ended).await;
    // Who has lost the lease starts anew, with nothing remembered.
    if lost { anyhow::bail!("the lease was lost") } else { Ok(()) }
}

fn log(format: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if format == "json" { lines.json().init() } else { lines.with_target(false).init() }
}

//! The command `run`: waits to be the leader, then looks after Brokers and topology until it is told to stop.
use crate::args::Run;
use crate::kubernetes::{Context, limit};
use crate::lease::Election;
use crate::metrics::Metrics;
use crate::watchdog::Watchdog;
use crate::{admin, cluster, topology};
use anyhow::Context as _;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// Runs the operator and returns the exit code of the process.
///
/// # Errors
/// The operator cannot start, or has lost the lease.
pub(crate) async fn run(args: Run) -> anyhow::Result<ExitCode> {
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
    let watchdog = Watchdog::default();
    admin::serve(&args.admin, metrics.clone(), watchdog.clone(), stop.clone()).await?;
    let client = limit::client().await.context("cannot find out how to reach the cluster")?;
    let mut election = Election::new(client.clone(), &args.lease_namespace, &args.lease_name, &args.identity);
    if !election.acquire(&stop).await {
        return Ok(ExitCode::SUCCESS);
    }
    tracing::info!(identity = args.identity, "leading");
    metrics.set_leader(true);
    let mut context = Context::new(client, args.namespaces.clone(), &args.identity, metrics.clone());
    context.watchdog = watchdog;
    let working = stop.child_token();
    let defaults = cluster::Defaults { image: args.broker_image, pull_secrets: args.broker_pull_secrets };
    let mut brokers = tokio::spawn(cluster::run(context.clone(), defaults, working.clone()));
    let mut topology = tokio::spawn(topology::watch::run(context, working.clone()));
    // Work that ends by itself has failed: an operator that does not work must not lead.
    let (lost, failed) = tokio::select! {
        lost = election.keep(&stop) => (lost, false),
        _ = &mut brokers => (false, !stop.is_cancelled()),
        _ = &mut topology => (false, !stop.is_cancelled()),
    };
    working.cancel();
    metrics.set_leader(false);
    let aborts = [brokers.abort_handle(), topology.abort_handle()];
    let ended = async {
        for task in [brokers, topology] {
            if !task.is_finished() {
                let _ = task.await;
            }
        }
    };
    let _ = tokio::time::timeout(DRAIN_MAX, ended).await;
    aborts.iter().for_each(tokio::task::AbortHandle::abort);
    // An operator that has lost the lease ends and is started again, so that it keeps nothing in memory.
    anyhow::ensure!(!lost, "the lease was lost");
    if failed {
        tracing::error!("the work has ended by itself");
        return Ok(ExitCode::from(WORK_FAILED));
    }
    let _ = tokio::time::timeout(DRAIN_MAX, election.release()).await;
    Ok(ExitCode::SUCCESS)
}

/// Returns whether the log goes to a terminal: only there it has colours.
fn is_terminal() -> bool {
    std::io::IsTerminal::is_terminal(&std::io::stderr())
}

fn log(format: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(is_terminal());
    if format == "json" { lines.json().init() } else { lines.with_target(false).init() }
}

/// The exit code if a part of the operator has failed that the rest needs: the same as the broker's after a panic.
const WORK_FAILED: u8 = 70;
/// The longest time that work under way may take to end.
pub(crate) const DRAIN_MAX: std::time::Duration = std::time::Duration::from_secs(3);

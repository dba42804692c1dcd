//! `leveret-operator`: `run` in a cluster, `apply` without one, and `crds` to install the definitions.
#[cfg(feature = "kubernetes")]
mod admin;
mod apply;
mod args;
#[cfg(feature = "kubernetes")]
mod cluster;
mod crds;
#[cfg(feature = "kubernetes")]
mod kubernetes;
#[cfg(feature = "kubernetes")]
mod lease;
#[cfg(feature = "kubernetes")]
mod metrics;
#[cfg(feature = "kubernetes")]
mod start;
mod topology;
#[cfg(feature = "kubernetes")]
mod watchdog;

use args::Command;
use clap::Parser;
use std::process::ExitCode;

// This allocator returns the memory of a pass over thousands of objects to the system; the system's own one keeps it.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    match run(args::Args::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("leveret-operator: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match command {
        #[cfg(feature = "kubernetes")]
        Command::Run(run) => runtime.block_on(start::run(run)),
        Command::Crds { dir } => crds::run(dir.as_deref()).map(|()| ExitCode::SUCCESS),
        Command::Apply { folder, broker } => {
            let is_applied = runtime.block_on(apply::apply(&folder, &broker))?;
            Ok(if is_applied { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
    }
}

//! `leveret`, the broker: `serve` runs it, `config` prints its annotated default configuration, `cluster` shows or changes
//! the cluster of a running node.
mod args;
mod cluster;
mod config;
mod data_dir;
mod descriptors;
mod listeners;
mod log;
mod start;

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    leveret_node::install_panic_hook();
    match args::parse() {
        args::Request::Config => show(Ok(config::settings::annotated())),
        args::Request::Cluster(command) => show(cluster::run(&command)),
        args::Request::Serve(given) => {
            show(config::load(&given).map_err(anyhow::Error::from).and_then(start::run).map(|()| String::new()))
        }
    }
}

/// Prints the outcome of a command.
fn show(outcome: anyhow::Result<String>) -> ExitCode {
    match outcome {
        Ok(text) => {
            #[expect(clippy::print_stdout, reason = "the purpose of the command")]
            {
                print!("{text}");
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("leveret: {error:#}");
            ExitCode::FAILURE
        }
    }
}

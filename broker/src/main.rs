//! `leveret`, the broker: `serve` runs it, `config` prints its annotated default configuration.
mod args;
mod config;
mod data_dir;
mod descriptors;
mod listener;
mod log;
mod start;

use clap::Parser;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    leveret_node::install_panic_hook();
    match args::Args::parse().command {
        args::Command::Config => {
            #[expect(clippy::print_stdout, reason = "what the command is for")]
            {
                print!("{}", config::reference::annotated());
            }
            ExitCode::SUCCESS
        }
        args::Command::Serve(serve) => match config::load(*serve).map_err(anyhow::Error::from).and_then(start::run) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("leveret: {error:#}");
                ExitCode::FAILURE
            }
        },
    }
}

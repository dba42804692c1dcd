//! `leveret`, the broker: `serve` runs it, `config` prints its annotated default configuration.
mod args;
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
        args::Request::Config => {
            #[expect(clippy::print_stdout, reason = "the purpose of the command")]
            {
                print!("{}", config::settings::annotated());
            }
            ExitCode::SUCCESS
        }
        args::Request::Serve(given) => match config::load(&given).map_err(anyhow::Error::from).and_then(start::run) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("leveret: {error:#}");
                ExitCode::FAILURE
            }
        },
    }
}

//! The command line. Every option of `serve` is also `LEVERET_...` in the environment and a key of the file.
use clap::{Args as ClapArgs, Parser, Subcommand};
use std::path::PathBuf;

/// An AMQP message broker.
#[derive(Parser)]
#[command(name = "leveret", version, about)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Run the broker until SIGTERM or SIGINT.
    Serve(Box<Serve>),
    /// Print the annotated default configuration file.
    Config,
}

/// What `serve` takes. The order of precedence: option, environment, file, default.
#[derive(ClapArgs, Default)]
pub(crate) struct Serve {
    /// Configuration file (TOML); `leveret config` prints one.
    #[arg(long, env = "LEVERET_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Folder of all that the broker keeps.
    #[arg(long, env = "LEVERET_DATA_DIR", value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Where AMQP clients connect.
    #[arg(long, env = "LEVERET_AMQP", value_name = "HOST:PORT")]
    pub(crate) amqp: Option<String>,
    /// Where the management API answers.
    #[arg(long, env = "LEVERET_HTTP", value_name = "HOST:PORT")]
    pub(crate) http: Option<String>,
    /// Where Prometheus scrapes.
    #[arg(long, env = "LEVERET_METRICS", value_name = "HOST:PORT")]
    pub(crate) metrics: Option<String>,
    /// How log lines look: text or json.
    #[arg(long, env = "LEVERET_LOG", value_name = "FORMAT")]
    pub(crate) log: Option<String>,
    /// Memory budget: past it publishers are held back. Bytes, 512MiB, 60%.
    #[arg(long, env = "LEVERET_MEMORY_MAX", value_name = "SIZE")]
    pub(crate) memory_max: Option<String>,
    /// The user that is there from the start.
    #[arg(long, env = "LEVERET_DEFAULT_USER", value_name = "NAME")]
    pub(crate) default_user: Option<String>,
    /// Its password; better in the environment or the file, where other users of the machine do not see it.
    #[arg(long, env = "LEVERET_DEFAULT_PASS", value_name = "PASSWORD", hide_env_values = true)]
    pub(crate) default_pass: Option<String>,
}

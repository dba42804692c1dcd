//! The command line.
use clap::{Parser, Subcommand};
use std::path::PathBuf;

/// Runs Leveret brokers in Kubernetes, and declares what is inside them.
#[derive(Parser)]
#[command(name = "leveret-operator", version, about)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Run the operator in a cluster.
    #[cfg(feature = "kubernetes")]
    Run(Run),
    /// Print the definitions of all kinds as YAML.
    Crds {
        /// Write them into this folder instead, one file a kind.
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
    /// Declare the exchanges, queues and bindings of a folder of YAML on a broker, without Kubernetes.
    Apply {
        /// The folder.
        #[arg(value_name = "DIR")]
        folder: PathBuf,
        /// The broker's management API.
        #[arg(
            long,
            env = "LEVERET_BROKER",
            value_name = "http://[USER:PASSWORD@]HOST:PORT",
            default_value = "http://guest:guest@127.0.0.1:15672",
            hide_env_values = true
        )]
        broker: String,
    },
}

/// What `run` takes.
#[cfg(feature = "kubernetes")]
#[derive(clap::Args, Clone)]
pub(crate) struct Run {
    /// Namespaces to look after, with commas between them; all of the cluster unless given.
    #[arg(long, env = "LEVERET_NAMESPACES", value_delimiter = ',', value_name = "NAMES")]
    pub(crate) namespaces: Vec<String>,
    /// Image of brokers that name none.
    #[arg(long, env = "LEVERET_BROKER_IMAGE", default_value = concat!("leveret.local/leveret:", env!("CARGO_PKG_VERSION")))]
    pub(crate) broker_image: String,
    /// Secrets that the pods of all brokers pull their images with, with commas between them; each has to be in the broker's
    /// namespace.
    #[arg(long, env = "LEVERET_BROKER_PULL_SECRETS", value_delimiter = ',', value_name = "NAMES")]
    pub(crate) broker_pull_secrets: Vec<String>,
    /// Where health checks and metrics answer.
    #[arg(long, env = "LEVERET_ADMIN", default_value = "[::]:8080", value_name = "HOST:PORT")]
    pub(crate) admin: String,
    /// Namespace of the lease that makes one of several operators the leader: the operator's own.
    #[arg(long, env = "LEVERET_NAMESPACE", default_value = "default")]
    pub(crate) lease_namespace: String,
    /// Name of the lease: operators with the same one take turns.
    #[arg(long, env = "LEVERET_LEASE", default_value = "leveret-operator", value_name = "NAME")]
    pub(crate) lease_name: String,
    /// Name of this operator among several: its pod's.
    #[arg(long, env = "LEVERET_IDENTITY", default_value = "leveret-operator")]
    pub(crate) identity: String,
    /// How log lines look: text or json.
    #[arg(long, env = "LEVERET_LOG", default_value = "text", value_parser = ["text", "json"])]
    pub(crate) log: String,
}

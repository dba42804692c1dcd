//! The command line.
use clap::{Parser, Subcommand};
use std::path::PathBuf;

/// Runs Leveret brokers in Kubernetes and declares their exchanges, queues and bindings.
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
        /// Write the definitions into this folder instead, one file per kind.
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
    /// Declare the exchanges, queues and bindings of a folder of YAML on a broker, without Kubernetes.
    Apply {
        /// The folder with the YAML files.
        #[arg(value_name = "DIR")]
        folder: PathBuf,
        /// The address of the broker's management API.
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

/// The arguments of `run`.
#[cfg(feature = "kubernetes")]
#[derive(clap::Args, Clone)]
pub(crate) struct Run {
    /// The namespaces to look after, separated by commas; all namespaces of the cluster by default.
    #[arg(long, env = "LEVERET_NAMESPACES", value_delimiter = ',', value_name = "NAMES")]
    pub(crate) namespaces: Vec<String>,
    /// The image of Brokers that name none.
    #[arg(long, env = "LEVERET_BROKER_IMAGE", default_value = concat!("leveret.local/leveret:", env!("CARGO_PKG_VERSION")))]
    pub(crate) broker_image: String,
    /// The Secrets that the pods of all Brokers pull their images with, separated by commas; each Secret has to exist
    /// in the namespace of the Broker.
    #[arg(long, env = "LEVERET_BROKER_PULL_SECRETS", value_delimiter = ',', value_name = "NAMES")]
    pub(crate) broker_pull_secrets: Vec<String>,
    /// The address of health checks and metrics.
    #[arg(long, env = "LEVERET_ADMIN", default_value = "[::]:8080", value_name = "HOST:PORT")]
    pub(crate) admin: String,
    /// The namespace of the lease that makes one of several operators the leader: the operator's own namespace.
    #[arg(long, env = "LEVERET_NAMESPACE", default_value = "default")]
    pub(crate) lease_namespace: String,
    /// The name of the lease: of the operators that share it, one works at a time.
    #[arg(long, env = "LEVERET_LEASE", default_value = "leveret-operator", value_name = "NAME")]
    pub(crate) lease_name: String,
    /// The name of this operator among several: the name of its pod.
    #[arg(long, env = "LEVERET_IDENTITY", default_value = "leveret-operator")]
    pub(crate) identity: String,
    /// The format of log lines: text or json.
    #[arg(long, env = "LEVERET_LOG", default_value = "text", value_parser = ["text", "json"])]
    pub(crate) log: String,
}

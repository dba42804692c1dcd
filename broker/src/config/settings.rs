//! The settings: each is declared once, with its key, default, reference text and the function that reads its value.
//!
//! The flags of the command line, the environment variables, the keys of the file, `config/leveret.toml`, and the
//! defaults all come from this table. The default is written as the file has it and is read in the same way as any other
//! value.
use super::cluster::{ClusterSecret, checked_address};
use super::{Config, Log, size};
use crate::listeners::{LISTENERS, ListenerRow};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::num::NonZeroU64;
use std::sync::OnceLock;
use std::time::Duration;
use toml::de::ValueDeserializer;

/// A setting.
pub(crate) struct Setting {
    /// The key in the file. The flag and the environment variable are named after it.
    pub(crate) key: &'static str,
    /// The name of the flag, without the dashes before it.
    pub(crate) flag: String,
    /// The name of the environment variable.
    pub(crate) variable: String,
    /// The places in which the setting can be set.
    pub(crate) source: GivenIn,
    /// The default, as TOML.
    pub(super) default: &'static str,
    /// The reference text. Its first sentence is the help of the flag.
    about: &'static str,
    /// Sets the value in a configuration.
    set: Set,
}

/// The places in which a setting can be set.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum GivenIn {
    /// The file.
    File,
    /// The command line, the environment and the file. The text names the value in the command line's help.
    Anywhere(&'static str),
    /// The same, but the reference text does not recommend the command line, which other users of the machine can see.
    Secret(&'static str),
    /// As [`Anywhere`](Self::Anywhere), with several values: the flag can be repeated, and the environment and a text in the
    /// file separate them by commas.
    List(&'static str),
}

/// The way in which the value of a setting is stored in a configuration.
enum Set {
    /// A field of the configuration.
    Field(fn(&mut Config, ValueDeserializer<'_>) -> Result<(), String>),
    /// The address of this listener.
    Address(usize),
}

impl Setting {
    fn new(key: &'static str, source: GivenIn, default: &'static str, about: &'static str, set: Set) -> Self {
        let variable = format!("LEVERET_{}", key.to_uppercase());
        Self { key, flag: key.replace('_', "-"), variable, source, default, about, set }
    }

    /// Returns the first sentence of the reference, without the full stop.
    pub(crate) fn summary(&self) -> String {
        let text = self.about.replace('\n', " ");
        let summary = text.split_once(". ").map_or(text.as_str(), |(first, _)| first);
        summary.trim_end_matches('.').to_owned()
    }

    /// Reads a value into a configuration.
    ///
    /// # Errors
    /// The text says what is wrong with the value.
    pub(super) fn read(&self, config: &mut Config, value: ValueDeserializer<'_>) -> Result<(), String> {
        match self.set {
            Set::Field(set) => set(config, value),
            Set::Address(number) => take(value).map(|address| config.addresses[number] = address),
        }
    }

    /// Returns the setting's lines in the annotated file.
    fn annotated(&self) -> String {
        let also = match self.source {
            GivenIn::File => String::new(),
            GivenIn::Anywhere(_) | GivenIn::List(_) => format!("\nAlso --{}, {}.", self.flag, self.variable),
            GivenIn::Secret(_) => format!("\nAlso {}.", self.variable),
        };
        let lines: String = format!("{}{also}", self.about).lines().map(|line| format!("## {line}\n")).collect();
        format!("\n{lines}# {} = {}\n", self.key, self.default)
    }
}

/// Returns the settings in the order in which the file has them.
pub(crate) fn settings() -> &'static [Setting] {
    static ALL: OnceLock<Vec<Setting>> = OnceLock::new();
    ALL.get_or_init(|| {
        let groups = [addresses(), node(), users_and_shutdown(), cluster(), cluster_tls(), limits()];
        groups.into_iter().flatten().collect()
    })
}

/// Returns the configuration file with every setting at its default and commented out, below its reference text.
pub(crate) fn annotated() -> String {
    let head = "# Configuration of leveret: `leveret serve --config FILE`. Every key is shown at its default.\n\
                # The order of precedence: command line, environment, this file.\n";
    settings().iter().fold(head.to_owned(), |text, setting| text + &setting.annotated())
}

/// Returns the data folder's setting, and the settings of the listeners' addresses.
fn addresses() -> Vec<Setting> {
    let data_dir = Setting::new(
        "data_dir",
        GivenIn::Anywhere("DIR"),
        "\"leveret-data\"",
        "The folder of everything that the broker stores. Only one broker at a time can use it.",
        Set::Field(|config, value| take(value).map(|path| config.data_dir = path)),
    );
    let listeners = LISTENERS.iter().enumerate().map(|(number, listener)| {
        let ListenerRow { key, default, about, .. } = listener;
        Setting::new(key, GivenIn::Anywhere("HOST:PORT"), default, about, Set::Address(number))
    });
    std::iter::once(data_dir).chain(listeners).collect()
}

fn node() -> Vec<Setting> {
    vec![
        Setting::new(
            "log",
            GivenIn::Anywhere("FORMAT"),
            "\"text\"",
            "The format of log lines: \"text\" or \"json\". The environment variable RUST_LOG says how much is logged;\n\
             \"info\" unless it is set.",
            Set::Field(|config, value| {
                config.log = match &*take::<String>(value)? {
                    "text" => Log::Text,
                    "json" => Log::Json,
                    other => return Err(format!("'{other}' is neither text nor json")),
                };
                Ok(())
            }),
        ),
        Setting::new(
            "node_name",
            GivenIn::File,
            "\"leveret@HOSTNAME\"",
            "The name of this node, shown to clients and in the management API.",
            Set::Field(|config, value| {
                let name: String = take(value)?;
                let host = rustix::system::uname();
                let is_default = name == "leveret@HOSTNAME";
                config.node_name =
                    if is_default { format!("leveret@{}", host.nodename().to_string_lossy()) } else { name };
                Ok(())
            }),
        ),
        Setting::new(
            "memory_max",
            GivenIn::Anywhere("SIZE"),
            "\"60%\"",
            "The memory budget. Beyond it publishers are held back and told connection.blocked, until consumers have\n\
             made room. Bytes, \"512MiB\", \"2GiB\", or a share of the memory that the control group or the machine allows.",
            Set::Field(|config, value| {
                config.memory_max = bytes(value)?;
                match config.memory_max {
                    ..MEMORY_MIN => Err(format!(
                        "{} bytes are less than the {MEMORY_MIN} that the broker needs to work at all",
                        config.memory_max
                    )),
                    _ => Ok(()),
                }
            }),
        ),
        Setting::new(
            "message_bytes_max",
            GivenIn::File,
            "16777216",
            "The largest message that is accepted, in bytes; at most 512 MiB.",
            Set::Field(|config, value| {
                config.message_bytes_max = bytes(value)?;
                match config.message_bytes_max {
                    1..=MESSAGE_MAX => Ok(()),
                    bytes => Err(format!("{bytes} bytes are not between 1 and {MESSAGE_MAX}")),
                }
            }),
        ),
    ]
}

fn users_and_shutdown() -> Vec<Setting> {
    vec![
        Setting::new(
            "default_user",
            GivenIn::Anywhere("NAME"),
            "\"guest\"",
            "The user that exists from the start. A user named guest can only log in from this machine.",
            Set::Field(|config, value| take(value).map(|user| config.default_user = user)),
        ),
        Setting::new(
            "default_pass",
            GivenIn::Secret("PASSWORD"),
            "\"guest\"",
            "The password of the default user. It is better set in the environment or in this file, where other users\n\
             of the machine do not see it, than on the command line.",
            Set::Field(|config, value| take(value).map(|password| config.default_pass = password)),
        ),
        Setting::new(
            "shutdown_grace_seconds",
            GivenIn::File,
            "10",
            "The time that clients have to leave after SIGTERM, in seconds.",
            Set::Field(|config, value| take(value).map(|seconds| config.shutdown_grace = Duration::from_secs(seconds))),
        ),
    ]
}

fn cluster() -> Vec<Setting> {
    vec![
        Setting::new(
            "peer",
            GivenIn::List("HOST:PORT"),
            "[]",
            "The nodes of the cluster that this node is part of, itself among them or not. The option can be repeated, and the\n\
             variable separates them by commas. If all of them are empty, they form a cluster; if one is a member of a\n\
             cluster, this node joins it. Without peers and without join this node is alone, and no port is opened for others.",
            Set::Field(|config, value| addresses_of(value).map(|peers| config.cluster.peers = peers)),
        ),
        Setting::new(
            "join",
            GivenIn::List("HOST:PORT"),
            "[]",
            "Nodes of a cluster that exists, which this node joins. With join and without peers it never forms a cluster.",
            Set::Field(|config, value| addresses_of(value).map(|join| config.cluster.join = join)),
        ),
        Setting::new(
            "cluster_listen",
            GivenIn::Anywhere("HOST:PORT"),
            "\"[::]:25672\"",
            "Where other nodes of the cluster connect.",
            Set::Field(|config, value| take(value).map(|address| config.cluster.listen = address)),
        ),
        Setting::new(
            "cluster_address",
            GivenIn::Anywhere("HOST:PORT"),
            "\"HOSTNAME:PORT\"",
            "The address at which other nodes reach this one: a name or an address that means this node everywhere in the\n\
             cluster, also after a restart. The default is the name of the machine with the port of cluster_listen.",
            Set::Field(|config, value| {
                let address: String = take(value)?;
                let is_default = address == "HOSTNAME:PORT";
                config.cluster.address = if is_default { None } else { Some(checked_address(address)?) };
                Ok(())
            }),
        ),
        Setting::new(
            "cluster_name",
            GivenIn::Anywhere("NAME"),
            "\"leveret\"",
            "The name of the cluster. Nodes of clusters with other names refuse each other.",
            Set::Field(|config, value| take(value).map(|name| config.cluster.name = name)),
        ),
        Setting::new(
            "cluster_secret",
            GivenIn::Secret("SECRET"),
            "\"\"",
            "The secret that all nodes of the cluster share, and nobody else knows: whoever knows it can become a member. It\n\
             is better set in the environment or in this file than on the command line.",
            Set::Field(|config, value| take(value).map(|secret| config.cluster.secret = ClusterSecret(secret))),
        ),
        Setting::new(
            "cluster_secret_file",
            GivenIn::Anywhere("FILE"),
            "\"\"",
            "A file that holds the secret of the cluster, for example a mounted one, instead of cluster_secret. White space\n\
             at its end does not count.",
            Set::Field(|config, value| take(value).map(|file| config.cluster.secret_file = file)),
        ),
    ]
}

fn cluster_tls() -> Vec<Setting> {
    vec![
        Setting::new(
            "cluster_tls_cert",
            GivenIn::Anywhere("FILE"),
            "\"\"",
            "The certificate of this node for TLS between nodes, with those between it and its authority: a file in PEM form.\n\
             With cluster_tls_cert, cluster_tls_key and cluster_tls_ca, all links between nodes are TLS 1.3, and both sides\n\
             check the other's certificate. It must be for the address at which others reach this node (cluster_address),\n\
             and for server and client authentication if it says what it is for. If cluster_secret is set, it is checked\n\
             as well; without it the certificate alone admits. All three files are read again when they change.",
            Set::Field(|config, value| take(value).map(|file| config.cluster.tls.cert = file)),
        ),
        Setting::new(
            "cluster_tls_key",
            GivenIn::Anywhere("FILE"),
            "\"\"",
            "The private key of cluster_tls_cert: a file in PEM form that is not encrypted.",
            Set::Field(|config, value| take(value).map(|file| config.cluster.tls.key = file)),
        ),
        Setting::new(
            "cluster_tls_ca",
            GivenIn::Anywhere("FILE"),
            "\"\"",
            "The certificates of the authorities that other nodes may have theirs from: a file in PEM form with one or more.\n\
             Without cluster_secret, whoever has a certificate from one of them can become a member.",
            Set::Field(|config, value| take(value).map(|file| config.cluster.tls.ca = file)),
        ),
    ]
}

fn limits() -> Vec<Setting> {
    vec![
        Setting::new(
            "connections_max",
            GivenIn::File,
            "\"auto\"",
            "The most AMQP connections that may be open at a time; a further client is refused with 530. \"auto\": as\n\
             many as the file descriptors of the process (ulimit -n) allow after a reserve for storage, and at most\n\
             one for each 16 KiB of memory_max.",
            Set::Field(|config, value| count(value).map(|most| config.wishes.connections_max = most)),
        ),
        Setting::new(
            "half_open_connections_max",
            GivenIn::File,
            "\"auto\"",
            "The most AMQP connections that may be waiting for their login at a time. Beyond that the oldest is closed, or\n\
             the new one if none is older than a second. \"auto\": a quarter of the connections for AMQP, at most 4096.",
            Set::Field(|config, value| count(value).map(|most| config.wishes.half_open_connections_max = most)),
        ),
        Setting::new(
            "http_connections_max",
            GivenIn::File,
            "\"auto\"",
            "The most connections to the management API that may be open at a time. Beyond that the client that has\n\
             kept the broker waiting for the longest is disconnected or, if all are being served, the new one is\n\
             refused with 503. \"auto\": a quarter of the descriptors for clients, at most 1024.",
            Set::Field(|config, value| count(value).map(|most| config.wishes.http_connections_max = most)),
        ),
    ]
}

/// Reads a value of any type.
fn take<T: DeserializeOwned>(value: ValueDeserializer<'_>) -> Result<T, String> {
    T::deserialize(value).map_err(|error| error.message().trim().replace('\n', ", "))
}

/// A list, or a text that separates its parts by commas.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a list of HOST:PORT")]
enum Several {
    Text(String),
    List(Vec<String>),
}

fn addresses_of(value: ValueDeserializer<'_>) -> Result<Vec<String>, String> {
    let all = match take(value)? {
        Several::Text(text) => text.split(',').map(|part| part.trim().to_owned()).collect(),
        Several::List(list) => list,
    };
    all.into_iter().filter(|address: &String| !address.is_empty()).map(checked_address).collect()
}

fn bytes(value: ValueDeserializer<'_>) -> Result<u64, String> {
    take::<size::Size>(value)?.bytes()
}

/// A number, or "auto" to have the number determined.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a number from 1 on, or \"auto\"")]
enum Count {
    Number(NonZeroU64),
    Auto(Auto),
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Auto {
    Auto,
}

fn count(value: ValueDeserializer<'_>) -> Result<Option<u64>, String> {
    Ok(match take(value)? {
        Count::Number(number) => Some(number.get()),
        Count::Auto(Auto::Auto) => None,
    })
}

/// The smallest memory budget, in bytes: with a smaller one publishers would be held back for ever.
const MEMORY_MIN: u64 = 32 << 20;
/// The largest message that can be configured, in bytes: RabbitMQ's limit.
const MESSAGE_MAX: u64 = 512 << 20;

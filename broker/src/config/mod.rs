//! The configuration: file, environment and command line become one `Config`, or an error that says where it is wrong.
pub(crate) mod cluster;
pub(crate) mod settings;
mod size;

use crate::args::Given;
use crate::config::cluster::ClusterConfig;
use crate::descriptors;
use crate::listeners::LISTENERS;
use leveret_node::{Limits, Wishes};
use settings::{Setting, settings};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

/// The configuration of the broker. `settings` has the meaning and the default of each field.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Config {
    pub(crate) data_dir: PathBuf,
    /// The address of each listener.
    pub(crate) addresses: [String; LISTENERS.len()],
    pub(crate) log: Log,
    pub(crate) node_name: String,
    pub(crate) memory_max: u64,
    pub(crate) message_bytes_max: u64,
    pub(crate) default_user: String,
    pub(crate) default_pass: String,
    pub(crate) shutdown_grace: Duration,
    pub(crate) cluster: ClusterConfig,
    /// The limits that were configured.
    wishes: Wishes,
    /// The limits that follow from `wishes`.
    pub(crate) limits: Limits,
}

/// The format of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Log {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// The reason why the configuration cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {0}: {1}")]
    Unreadable(PathBuf, std::io::Error),
    /// The file has an error in some line.
    #[error("{file}:{line}: {problem}")]
    Wrong { file: PathBuf, line: usize, problem: String },
    /// A value on the command line or in the environment is wrong, or values contradict each other.
    #[error("{key}: {problem}")]
    Value { key: &'static str, problem: String },
}

/// Returns the configuration that follows from the command line, the environment and the configuration file named there.
///
/// # Errors
/// [`ConfigError`], naming file and line, or the key.
pub(crate) fn load(given: &Given) -> Result<Config, ConfigError> {
    let file = match &given.file {
        None => File::default(),
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|error| ConfigError::Unreadable(path.clone(), error))?;
            File { path: path.clone(), text }
        }
    };
    merge(given, &file, descriptors::raise_limit())
}

/// A configuration file.
#[derive(Default)]
struct File {
    path: PathBuf,
    text: String,
}

impl File {
    /// Returns the values by the key of their setting.
    fn values(&self) -> Result<BTreeMap<&'static str, Spanned<DeValue<'_>>>, ConfigError> {
        let table = DeTable::parse(&self.text).map_err(|error| {
            let span = error.span().unwrap_or_default();
            let line = self.text.lines().nth(self.line(&span) - 1).unwrap_or_default();
            let key = line.split('=').next().unwrap_or_default().trim();
            self.wrong(&span, format!("{key}: {}", error.message().trim().replace('\n', ", ")))
        })?;
        let mut values = BTreeMap::new();
        for (key, value) in table.into_inner() {
            let known = settings().iter().find(|setting| setting.key == &**key.get_ref());
            let Some(setting) = known else { return Err(self.wrong(&key.span(), unknown(key.get_ref()))) };
            values.insert(setting.key, value);
        }
        Ok(values)
    }

    fn wrong(&self, span: &Range<usize>, problem: String) -> ConfigError {
        ConfigError::Wrong { file: self.path.clone(), line: self.line(span), problem }
    }

    /// Returns the line in which a span begins, counted from 1.
    fn line(&self, span: &Range<usize>) -> usize {
        self.text.as_bytes()[..span.start.min(self.text.len())].iter().filter(|&&byte| byte == b'\n').count() + 1
    }
}

/// Returns the error text for an unknown key, with the known key that was probably meant.
fn unknown(key: &str) -> String {
    let similarity = |setting: &&Setting| strsim::jaro_winkler(setting.key, key);
    let nearest = settings().iter().max_by(|a, b| similarity(a).total_cmp(&similarity(b)));
    match nearest {
        Some(nearest) if similarity(&nearest) > 0.75 => {
            format!("unknown key '{key}': did you mean '{}'?", nearest.key)
        }
        _ => format!("unknown key '{key}'; `leveret config` lists those that are known"),
    }
}

/// Returns the configuration for a process that may have `descriptors` file descriptors.
fn merge(given: &Given, file: &File, descriptors: u64) -> Result<Config, ConfigError> {
    let (mut config, mut in_file, mut spans) = (Config::default(), file.values()?, BTreeMap::new());
    for setting in settings() {
        let key = setting.key;
        if let Some(value) = in_file.remove(key) {
            // The value is read even if the command line or the environment overrides it, so that a mistake in the file
            // is reported.
            let span = value.span();
            let read = setting.read(&mut config, value.into());
            read.map_err(|problem| file.wrong(&span, format!("{key}: {problem}")))?;
            spans.insert(key, span);
        } else {
            let default = ValueDeserializer::parse(setting.default).map_err(|error| error.to_string());
            let read = default.and_then(|default| setting.read(&mut config, default));
            read.map_err(|problem| ConfigError::Value { key, problem })?;
        }
        if let Some(text) = given.values.get(key) {
            let value = Spanned::new(0..0, DeValue::String(text.into()));
            let read = setting.read(&mut config, value.into());
            read.map_err(|problem| ConfigError::Value { key, problem })?;
            spans.remove(key);
        }
    }
    config.limits = Limits::share_out(descriptors, config.memory_max, config.wishes)
        .map_err(|error| ConfigError::Value { key: "connections_max", problem: error.to_string() })?;
    config.cluster.check().map_err(|(key, problem)| match spans.get(key) {
        Some(span) => file.wrong(span, format!("{key}: {problem}")),
        None => ConfigError::Value { key, problem },
    })?;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DESCRIPTORS: u64 = 65_536;

    fn file(text: &str) -> File {
        File { path: "x.toml".into(), text: text.to_owned() }
    }

    fn from_file(text: &str) -> Result<Config, ConfigError> {
        merge(&Given::default(), &file(text), DESCRIPTORS)
    }

    fn given(values: &[(&'static str, &str)]) -> Given {
        let values = values.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
        Given { file: None, values }
    }

    fn error_of(text: &str) -> String {
        from_file(text).unwrap_err().to_string()
    }

    #[test]
    fn errors_name_the_line_and_the_nearest_key() {
        assert_eq!(
            error_of("amqp = \"a:1\"\nmemroy_max = 1"),
            "x.toml:2: unknown key 'memroy_max': did you mean 'memory_max'?"
        );
        assert!(error_of("qqq = 1").starts_with("x.toml:1: unknown key 'qqq'; "));
        assert_eq!(error_of("\n\namqp = 5672"), "x.toml:3: amqp: invalid type: integer `5672`, expected a string");
        assert!(error_of("amqp = ").starts_with("x.toml:1: amqp: "));
        assert_eq!(error_of("\nlog = \"xml\""), "x.toml:2: log: 'xml' is neither text nor json");
    }

    #[test]
    fn the_command_line_overrides_the_file_and_the_file_the_default() {
        let file = file("amqp = \"file:1\"\nhttp = \"file:2\"\nmemory_max = \"1GiB\"");
        let config = merge(&given(&[("amqp", "line:1")]), &file, DESCRIPTORS).unwrap();
        let Config { addresses, memory_max, .. } = config;
        assert_eq!(addresses, ["line:1", "file:2", "[::]:15692"]);
        assert_eq!(memory_max, 1 << 30);
    }

    #[test]
    fn values_that_make_no_sense_are_refused() {
        for (key, value, expected) in [
            ("log", "xml", "log: 'xml' is neither text nor json"),
            ("memory_max", "12 parsecs", "memory_max: '12 parsecs' is no size: bytes, 512MiB, 512M, 2GB or 60% are"),
            (
                "memory_max",
                "1KiB",
                "memory_max: 1024 bytes are less than the 33554432 that the broker needs to work at all",
            ),
        ] {
            let refused = merge(&given(&[(key, value)]), &File::default(), DESCRIPTORS);
            assert_eq!(refused.unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn limits_come_from_the_file_or_from_the_descriptors() {
        let text = "connections_max = 40\nhalf_open_connections_max = 3\nhttp_connections_max = \"auto\"";
        let config = merge(&Given::default(), &file(text), 1024).unwrap();
        let Limits { connections_max, half_open_connections_max, http_connections_max, .. } = config.limits;
        assert_eq!((connections_max, half_open_connections_max, http_connections_max), (40, 3, 208));
        let problem = merge(&Given::default(), &file("connections_max = 9000"), 1024).unwrap_err().to_string();
        assert!(problem.starts_with("connections_max: ") && problem.contains("the 1024 file descriptors"), "{problem}");
        for wrong in ["0", "-1", "\"many\""] {
            let error = error_of(&format!("connections_max = {wrong}"));
            assert_eq!(error, "x.toml:1: connections_max: expected a number from 1 on, or \"auto\"");
        }
    }

    #[test]
    fn a_cluster_needs_a_secret_and_addresses_with_ports() {
        let config = from_file("peer = [\"a:1\", \"[::1]:2\"]\ncluster_secret = \"s\"").unwrap();
        assert_eq!(config.cluster.peers, ["a:1", "[::1]:2"]);
        assert!(!format!("{config:?}").contains("\"s\""), "the secret is printed");
        let given = given(&[("peer", "b:1, c:2"), ("cluster_secret_file", "/f")]);
        assert_eq!(merge(&given, &File::default(), DESCRIPTORS).unwrap().cluster.peers, ["b:1", "c:2"]);
        assert!(from_file("").unwrap().cluster.is_alone());
        for (text, expected) in [
            ("\npeer = [\"a\"]", "x.toml:2: peer: 'a' is no HOST:PORT"),
            ("peer = [\"a:0\"]", "x.toml:1: peer: 'a:0' is no HOST:PORT"),
            ("join = 5", "x.toml:1: join: expected a list of HOST:PORT"),
            ("peeer = []", "x.toml:1: unknown key 'peeer': did you mean 'peer'?"),
            ("cluster_address = \":5\"", "x.toml:1: cluster_address: ':5' is no HOST:PORT"),
            (
                "peer = \"a:1\"",
                "cluster_secret: a node with peers needs the secret of its cluster, or certificates: set cluster_secret, or \
                 cluster_secret_file, or cluster_tls_cert, cluster_tls_key and cluster_tls_ca",
            ),
            (
                "join = \"a:1\"\ncluster_secret = \"s\"\ncluster_secret_file = \"f\"",
                "x.toml:3: cluster_secret_file: cluster_secret is set as well",
            ),
        ] {
            assert_eq!(error_of(text), expected);
        }
    }

    #[test]
    fn certificates_come_with_their_key_and_authorities_and_may_replace_the_secret() {
        let all = "peer = \"a:1\"\ncluster_tls_cert = \"c\"\ncluster_tls_key = \"k\"\ncluster_tls_ca = \"a\"";
        let files = from_file(all).unwrap().cluster.tls.files().unwrap();
        assert_eq!([files.cert, files.key, files.ca], ["c", "k", "a"].map(PathBuf::from));
        assert!(from_file(&format!("{all}\ncluster_secret = \"s\"")).is_ok());
        assert!(from_file("").unwrap().cluster.tls.files().is_none());
        for (text, expected) in [
            (
                "peer = \"a:1\"\ncluster_tls_cert = \"c\"\ncluster_tls_ca = \"a\"",
                "x.toml:2: cluster_tls_cert: TLS between nodes needs cluster_tls_key as well, which is not set",
            ),
            (
                "\n\ncluster_tls_key = \"k\"",
                "x.toml:3: cluster_tls_key: TLS between nodes needs cluster_tls_cert and cluster_tls_ca as well, which are not set",
            ),
        ] {
            assert_eq!(error_of(text), expected);
        }
        let on_the_line = merge(&given(&[("cluster_tls_ca", "a")]), &file("\ncluster_tls_ca = \"b\""), DESCRIPTORS);
        let error = on_the_line.unwrap_err().to_string();
        assert!(error.starts_with("cluster_tls_ca: TLS between nodes needs"), "{error}");
    }

    #[test]
    fn message_bytes_max_is_bounded() {
        for (size, is_taken) in
            [("\"512MiB\"", true), ("1", true), ("0", false), ("\"513MiB\"", false), ("\"5GiB\"", false)]
        {
            assert_eq!(from_file(&format!("message_bytes_max = {size}")).is_ok(), is_taken, "{size}");
        }
    }

    #[test]
    fn the_annotated_file_is_the_default() {
        let (text, default) = (settings::annotated(), from_file("").unwrap());
        assert_eq!(from_file(&text).unwrap(), default);
        let set: String = text
            .lines()
            .filter_map(|line| line.strip_prefix("# ").filter(|line| line.contains(" = ")))
            .fold(String::new(), |all, line| all + line + "\n");
        assert_eq!(from_file(&set).unwrap(), default);
        let node = leveret_node::Options::default();
        assert_eq!(
            (default.memory_max, default.message_bytes_max, default.default_user),
            (node.memory_max, node.message_bytes_max, node.default_user)
        );
        let kept =
            std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../config/leveret.toml")).unwrap_or_default();
        assert_eq!(kept, text, "config/leveret.toml is not what `leveret config` prints");
    }
}

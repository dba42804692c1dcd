//! The configuration: file, environment and command line become one `Config`, or an error that says where it is wrong.
pub(crate) mod reference;
mod size;

use crate::args::Serve;
use crate::descriptors;
use leveret_node::{Limits, Wishes};
use serde::Deserialize;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How the broker runs.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Config {
    pub(crate) data_dir: PathBuf,
    pub(crate) amqp: String,
    pub(crate) http: String,
    pub(crate) metrics: String,
    pub(crate) log: Log,
    pub(crate) node_name: String,
    pub(crate) memory_max: u64,
    pub(crate) message_bytes_max: u64,
    pub(crate) default_user: String,
    pub(crate) default_pass: String,
    pub(crate) shutdown_grace: Duration,
    pub(crate) limits: Limits,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Log {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The file cannot be read.
    #[error("cannot read the configuration file {0}: {1}")]
    Unreadable(PathBuf, std::io::Error),
    /// The file is wrong somewhere.
    #[error("{file}:{line}: {problem}")]
    Wrong { file: PathBuf, line: usize, problem: String },
    /// A value is wrong, wherever it came from.
    #[error("{key}: {problem}")]
    Value { key: &'static str, problem: String },
}

/// The keys of the file; `reference` documents them.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct File {
    data_dir: Option<PathBuf>,
    amqp: Option<String>,
    http: Option<String>,
    metrics: Option<String>,
    log: Option<String>,
    node_name: Option<String>,
    memory_max: Option<size::Size>,
    message_bytes_max: Option<size::Size>,
    default_user: Option<String>,
    default_pass: Option<String>,
    shutdown_grace_seconds: Option<u64>,
    connections_max: Option<Count>,
    half_open_connections_max: Option<Count>,
    http_connections_max: Option<Count>,
}

/// A number in the file, or "auto" to have it worked out.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(untagged, expecting = "expected a number from 1 on, or \"auto\"")]
enum Count {
    Number(NonZeroU64),
    Auto(Auto),
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Auto {
    Auto,
}

/// The configuration that the command line, the environment and the file it names come to.
///
/// # Errors
/// [`Error`], naming file and line or key.
pub(crate) fn load(serve: Serve) -> Result<Config, Error> {
    let file = match &serve.config {
        None => File::default(),
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|error| Error::Unreadable(path.clone(), error))?;
            parse(path, &text)?
        }
    };
    merge(serve, file, descriptors::raise_limit())
}

fn parse(path: &Path, text: &str) -> Result<File, Error> {
    toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start.min(text.len()));
        let line = text[..at].matches('\n').count() + 1;
        Error::Wrong { file: path.to_owned(), line, problem: problem(error.message(), text.lines().nth(line - 1)) }
    })
}

/// What is wrong, for a person; for a key that is not known, the one that was probably meant.
fn problem(message: &str, line: Option<&str>) -> String {
    let Some(unknown) = message.strip_prefix("unknown field `").and_then(|rest| rest.split('`').next()) else {
        let key = line.and_then(|line| line.split('=').next()).map(str::trim).unwrap_or_default();
        return format!("{key}: {}", message.trim().replace('\n', ", "));
    };
    let known = reference::KEYS.iter().map(|key| key.name);
    let nearest = known.max_by(|a, b| {
        let [a, b] = [a, b].map(|known| strsim::jaro_winkler(known, unknown));
        a.total_cmp(&b)
    });
    match nearest {
        Some(nearest) if strsim::jaro_winkler(nearest, unknown) > 0.75 => {
            format!("unknown key '{unknown}': did you mean '{nearest}'?")
        }
        _ => format!("unknown key '{unknown}'; `leveret config` lists those that are known"),
    }
}

/// What command line, environment and file say, for a process that may have so many file descriptors.
fn merge(serve: Serve, file: File, descriptors: u64) -> Result<Config, Error> {
    let defaults = leveret_node::Options::default();
    let log = match serve.log.or(file.log).as_deref() {
        None | Some("text") => Log::Text,
        Some("json") => Log::Json,
        Some(other) => return Err(Error::Value { key: "log", problem: format!("'{other}' is neither text nor json") }),
    };
    let given = |key, text: Option<String>, in_file: Option<size::Size>, default: u64| match (text, in_file) {
        (Some(text), _) => size::parse(&text).map_err(|problem| Error::Value { key, problem }),
        (None, Some(size)) => size.bytes().map_err(|problem| Error::Value { key, problem }),
        (None, None) => Ok(default),
    };
    let memory_max = given("memory_max", serve.memory_max, file.memory_max, defaults.memory_max)?;
    if memory_max < MEMORY_MIN {
        let problem = format!("{memory_max} bytes are less than the {MEMORY_MIN} that the broker needs to work at all");
        return Err(Error::Value { key: "memory_max", problem });
    }
    let message_bytes_max = given("message_bytes_max", None, file.message_bytes_max, defaults.message_bytes_max)?;
    if !(1..=MESSAGE_MAX).contains(&message_bytes_max) {
        let problem = format!("{message_bytes_max} bytes are not between 1 and {MESSAGE_MAX}");
        return Err(Error::Value { key: "message_bytes_max", problem });
    }
    let number = |count: Option<Count>| match count {
        Some(Count::Number(number)) => Some(number.get()),
        Some(Count::Auto(_)) | None => None,
    };
    let wishes = Wishes {
        connections_max: number(file.connections_max),
        half_open_connections_max: number(file.half_open_connections_max),
        http_connections_max: number(file.http_connections_max),
    };
    let limits = Limits::share_out(descriptors, memory_max, wishes)
        .map_err(|error| Error::Value { key: "connections_max", problem: error.to_string() })?;
    Ok(Config {
        data_dir: serve.data_dir.or(file.data_dir).unwrap_or_else(|| "leveret-data".into()),
        amqp: serve.amqp.or(file.amqp).unwrap_or_else(|| "[::]:5672".to_owned()),
        http: serve.http.or(file.http).unwrap_or_else(|| "[::]:15672".to_owned()),
        metrics: serve.metrics.or(file.metrics).unwrap_or_else(|| "[::]:15692".to_owned()),
        log,
        node_name: file.node_name.unwrap_or_else(host_name),
        memory_max,
        message_bytes_max,
        default_user: serve.default_user.or(file.default_user).unwrap_or(defaults.default_user),
        default_pass: serve.default_pass.or(file.default_pass).unwrap_or(defaults.default_pass),
        shutdown_grace: Duration::from_secs(file.shutdown_grace_seconds.unwrap_or(10)),
        limits,
    })
}

/// `leveret@` and the name of the machine.
fn host_name() -> String {
    format!("leveret@{}", rustix::system::uname().nodename().to_string_lossy())
}

/// A budget below this would hold publishers back for ever.
const MEMORY_MIN: u64 = 32 << 20;
/// Largest message that can be configured: RabbitMQ's.
const MESSAGE_MAX: u64 = 512 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    const DESCRIPTORS: u64 = 65_536;

    fn error_of(text: &str) -> String {
        parse(Path::new("x.toml"), text).unwrap_err().to_string()
    }

    #[test]
    fn mistakes_are_named_with_line_and_nearest_key() {
        assert_eq!(
            error_of("amqp = \"a:1\"\nmemroy_max = 1"),
            "x.toml:2: unknown key 'memroy_max': did you mean 'memory_max'?"
        );
        assert!(error_of("qqq = 1").starts_with("x.toml:1: unknown key 'qqq'; "));
        assert_eq!(error_of("\n\namqp = 5672"), "x.toml:3: amqp: invalid type: integer `5672`, expected a string");
        assert!(error_of("amqp = ").starts_with("x.toml:1: amqp: "));
    }

    #[test]
    fn the_command_line_wins_over_the_file_over_the_default() {
        let file = parse(Path::new("x"), "amqp = \"file:1\"\nhttp = \"file:2\"\nmemory_max = \"1GiB\"").unwrap();
        let serve = Serve { amqp: Some("line:1".to_owned()), ..Serve::default() };
        let config = merge(serve, file, DESCRIPTORS).unwrap();
        let Config { amqp, http, metrics, memory_max, .. } = config;
        assert_eq!((&*amqp, &*http, &*metrics, memory_max), ("line:1", "file:2", "[::]:15692", 1 << 30));
    }

    #[test]
    fn values_that_make_no_sense_are_refused() {
        for (log, memory, expected) in [
            (Some("xml"), None, "log: 'xml' is neither text nor json"),
            (None, Some("12 parsecs"), "memory_max: '12 parsecs' is no size: bytes, 512MiB, 512M, 2GB or 60% are"),
            (
                None,
                Some("1KiB"),
                "memory_max: 1024 bytes are less than the 33554432 that the broker needs to work at all",
            ),
        ] {
            let serve = Serve { log: log.map(Into::into), memory_max: memory.map(Into::into), ..Serve::default() };
            assert_eq!(merge(serve, File::default(), DESCRIPTORS).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn limits_come_from_the_file_or_from_the_descriptors() {
        let text = "connections_max = 40\nhalf_open_connections_max = 3\nhttp_connections_max = \"auto\"";
        let config = merge(Serve::default(), parse(Path::new("x"), text).unwrap(), 1024).unwrap();
        let Limits { connections_max, half_open_connections_max, http_connections_max, .. } = config.limits;
        assert_eq!((connections_max, half_open_connections_max, http_connections_max), (40, 3, 208));
        let too_many = merge(Serve::default(), parse(Path::new("x"), "connections_max = 9000").unwrap(), 1024);
        let problem = too_many.unwrap_err().to_string();
        assert!(problem.starts_with("connections_max: ") && problem.contains("the 1024 file descriptors"), "{problem}");
        for wrong in ["0", "-1", "\"many\""] {
            let error = error_of(&format!("connections_max = {wrong}"));
            assert_eq!(error, "x.toml:1: connections_max: expected a number from 1 on, or \"auto\"");
        }
    }

    #[test]
    fn messages_have_a_largest_size() {
        for (size, is_taken) in
            [("\"512MiB\"", true), ("1", true), ("0", false), ("\"513MiB\"", false), ("\"5GiB\"", false)]
        {
            let file = parse(Path::new("x"), &format!("message_bytes_max = {size}")).unwrap();
            assert_eq!(merge(Serve::default(), file, DESCRIPTORS).is_ok(), is_taken, "{size}");
        }
    }

    #[test]
    fn the_annotated_file_is_the_default() {
        let text = reference::annotated();
        let file = parse(Path::new("x"), &text).unwrap();
        assert_eq!(file, File::default());
        let set: String = text
            .lines()
            .filter_map(|line| line.strip_prefix("# ").filter(|line| line.contains(" = ")))
            .fold(String::new(), |all, line| all + line + "\n");
        let config = merge(Serve::default(), parse(Path::new("x"), &set).unwrap(), DESCRIPTORS).unwrap();
        let default = merge(Serve::default(), File::default(), DESCRIPTORS).unwrap();
        assert_eq!(Config { node_name: default.node_name.clone(), ..config }, default);
        let kept =
            std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../config/leveret.toml")).unwrap_or_default();
        assert_eq!(kept, text, "config/leveret.toml is not what `leveret config` prints");
    }
}

//! The keys of the configuration file: what each means and what it is unless set. `config/leveret.toml` is made of it.

/// One key.
pub(crate) struct Key {
    pub(crate) name: &'static str,
    default: &'static str,
    about: &'static str,
}

/// All keys, in the order of the file.
pub(crate) const KEYS: &[Key] = &[
    key(
        "data_dir",
        "\"leveret-data\"",
        "Folder of all that the broker keeps. One broker at a time uses it.\nAlso --data-dir, LEVERET_DATA_DIR.",
    ),
    key(
        "amqp",
        "\"[::]:5672\"",
        "Where AMQP 0-9-1 clients connect: HOST:PORT. [::] listens on IPv6 and IPv4.\nAlso --amqp, LEVERET_AMQP.",
    ),
    key("http", "\"[::]:15672\"", "Where the management API and the health checks answer. Also --http, LEVERET_HTTP."),
    key("metrics", "\"[::]:15692\"", "Where Prometheus scrapes /metrics. Also --metrics, LEVERET_METRICS."),
    key(
        "log",
        "\"text\"",
        "How log lines look: \"text\" or \"json\". Also --log, LEVERET_LOG.\nHow much is logged: the environment's RUST_LOG, \"info\" unless set.",
    ),
    key("node_name", "\"leveret@HOSTNAME\"", "The name of this node, shown to clients and in the management API."),
    key(
        "memory_max",
        "\"60%\"",
        "Memory budget: past it publishers are held back and told connection.blocked, until consumers have\nmade room. Bytes, \"512MiB\", \"2GiB\", or a share of what the control group or the machine allows.\nAlso --memory-max, LEVERET_MEMORY_MAX.",
    ),
    key("message_bytes_max", "16777216", "Largest message that is accepted, in bytes; at most 512 MiB."),
    key(
        "default_user",
        "\"guest\"",
        "The user that is there from the start. A user named guest may come from this machine only.\nAlso --default-user, LEVERET_DEFAULT_USER.",
    ),
    key("default_pass", "\"guest\"", "Its password. Also LEVERET_DEFAULT_PASS."),
    key("shutdown_grace_seconds", "10", "How long clients have to leave after SIGTERM, in seconds."),
    key(
        "connections_max",
        "\"auto\"",
        "AMQP connections that may be open at a time; a client beyond that is told 530. \"auto\": as many as the file\ndescriptors of the process (ulimit -n) allow after a reserve for storage, and at most one for each 16 KiB of\nmemory_max.",
    ),
    key(
        "half_open_connections_max",
        "\"auto\"",
        "AMQP connections that may be waiting for their login at a time. Beyond that the oldest is closed, or the new one\nif none is older than a second. \"auto\": a quarter of what there is for AMQP, at most 4096.",
    ),
    key(
        "http_connections_max",
        "\"auto\"",
        "Connections to the management API that may be open at a time; those beyond are closed at once. \"auto\": a quarter\nof the descriptors that there are for clients, at most 1024.",
    ),
];

const fn key(name: &'static str, default: &'static str, about: &'static str) -> Key {
    Key { name, default, about }
}

/// The file with every key at its default, commented out, under what it means.
pub(crate) fn annotated() -> String {
    let mut text = "# Configuration of leveret: `leveret serve --config FILE`. Every key is shown at its default.\n\
                    # The order of precedence: command line, environment, this file.\n"
        .to_owned();
    for Key { name, default, about } in KEYS {
        text += "\n";
        for line in about.lines() {
            text += &format!("## {line}\n");
        }
        text += &format!("# {name} = {default}\n");
    }
    text
}

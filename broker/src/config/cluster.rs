//! The part of the configuration that makes a node part of a cluster.
use anyhow::{Context, ensure};
use leveret_node::{ClusterOptions, ClusterTimes, TlsFiles};
use std::fmt;
use std::path::PathBuf;

/// The configuration of a node that is part of a cluster. `settings` has the meaning and the default of each field.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ClusterConfig {
    pub(crate) peers: Vec<String>,
    pub(crate) join: Vec<String>,
    pub(crate) listen: String,
    /// `None` stands for the name of the machine with the port of `listen`.
    pub(crate) address: Option<String>,
    pub(crate) name: String,
    pub(crate) secret: ClusterSecret,
    pub(crate) secret_file: PathBuf,
    pub(crate) tls: ClusterTls,
}

/// The files for TLS between nodes; all of them are empty if there is none.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ClusterTls {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) ca: PathBuf,
}

/// A secret, which is not printed.
#[derive(Clone, Default, PartialEq)]
pub(crate) struct ClusterSecret(pub(crate) String);

impl fmt::Debug for ClusterSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

impl ClusterConfig {
    /// Returns whether the node is no part of a cluster.
    pub(crate) fn is_alone(&self) -> bool {
        self.peers.is_empty() && self.join.is_empty()
    }

    /// Checks that the values fit together.
    ///
    /// # Errors
    /// The key that is wrong, and what is wrong with it.
    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        let (has_secret, has_file) = (!self.secret.0.is_empty(), !self.secret_file.as_os_str().is_empty());
        let has_tls = self.tls.check()?;
        match (self.is_alone(), has_secret, has_file) {
            (false, false, false) if !has_tls => {
                let problem = "a node with peers needs the secret of its cluster, or certificates: set cluster_secret, or \
                               cluster_secret_file, or cluster_tls_cert, cluster_tls_key and cluster_tls_ca";
                Err(("cluster_secret", problem.to_owned()))
            }
            (_, true, true) => Err(("cluster_secret_file", "cluster_secret is set as well".to_owned())),
            _ => Ok(()),
        }
    }

    /// Returns the options of the node; `None` if it is no part of a cluster. `port` is the one that others connect to.
    ///
    /// # Errors
    /// If the file with the secret cannot be read or is empty.
    pub(crate) fn options(&self, port: u16) -> anyhow::Result<Option<ClusterOptions>> {
        if self.is_alone() {
            return Ok(None);
        }
        let mut secret = self.secret.0.clone();
        if !self.secret_file.as_os_str().is_empty() {
            let file = self.secret_file.display();
            let text = std::fs::read_to_string(&self.secret_file)
                .with_context(|| format!("cluster_secret_file: cannot read {file}"))?;
            text.trim_end().clone_into(&mut secret);
            ensure!(!secret.is_empty(), "cluster_secret_file: {file} is empty");
        }
        let host = rustix::system::uname();
        let own = || format!("{}:{port}", host.nodename().to_string_lossy());
        Ok(Some(ClusterOptions {
            name: self.name.clone(),
            secret: secret.into_bytes().into(),
            address: self.address.clone().unwrap_or_else(own),
            peers: self.peers.clone(),
            join: self.join.clone(),
            times: ClusterTimes::default(),
        }))
    }
}

impl ClusterTls {
    /// Checks that all of the files are given, or none. Returns whether they are.
    fn check(&self) -> Result<bool, (&'static str, String)> {
        let files = [("cluster_tls_cert", &self.cert), ("cluster_tls_key", &self.key), ("cluster_tls_ca", &self.ca)];
        let (given, missing): (Vec<_>, Vec<_>) = files.iter().partition(|(_, file)| !file.as_os_str().is_empty());
        let keys: Vec<&str> = missing.iter().map(|(key, _)| *key).collect();
        match given.first() {
            Some((key, _)) if !keys.is_empty() => {
                let verb = if keys.len() == 1 { "is" } else { "are" };
                Err((key, format!("TLS between nodes needs {} as well, which {verb} not set", keys.join(" and "))))
            }
            given => Ok(given.is_some()),
        }
    }

    /// Returns the files; `None` without TLS between nodes.
    pub(crate) fn files(&self) -> Option<TlsFiles> {
        let Self { cert, key, ca } = self.clone();
        (!cert.as_os_str().is_empty()).then_some(TlsFiles { cert, key, ca })
    }
}

/// Returns an address if it has the form HOST:PORT.
///
/// # Errors
/// A text that says that it does not.
pub(super) fn checked_address(address: String) -> Result<String, String> {
    let parts = address.rsplit_once(':');
    let is_right = parts.is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0));
    if is_right { Ok(address) } else { Err(format!("'{address}' is no HOST:PORT")) }
}

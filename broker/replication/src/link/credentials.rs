//! What a node proves its identity with in TLS, and what it checks others by: a certificate with its key, and the
//! certificates of the authorities (CA) that it trusts. They are read from files, and again when the files change, because
//! certificates are renewed while the node runs. Files that cannot be used change nothing.
//!
//! TLS 1.3 only, and no resumption: each connection is checked against the certificates of its own time.
use super::tls_reasons;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_rustls::rustls::client::danger::ServerCertVerifier;
use tokio_rustls::rustls::client::{Resumption, WebPkiServerVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{ClientConfig, Error, InconsistentKeys, RootCertStore, ServerConfig};

/// The files with what TLS between nodes needs, all in PEM form, and the keys of the configuration that name them.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The certificate of this node, and those between it and its authority: `cluster_tls_cert`.
    pub cert: PathBuf,
    /// The private key of the certificate, not encrypted: `cluster_tls_key`.
    pub key: PathBuf,
    /// The certificates of the authorities whose certificates are trusted: `cluster_tls_ca`.
    pub ca: PathBuf,
}

/// The reasons why files cannot be used. Each begins with the key of the configuration.
#[derive(Debug, thiserror::Error)]
pub enum TlsFileError {
    /// A file cannot be read.
    #[error("{key}: cannot read {file}: {error}")]
    Unreadable {
        /// The key of the configuration.
        key: &'static str,
        /// The file.
        file: String,
        /// The error of the system.
        error: io::Error,
    },
    /// The contents of a file are of no use.
    #[error("{key}: {file} {problem}")]
    Unusable {
        /// The key of the configuration.
        key: &'static str,
        /// The file.
        file: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// What the two sides of TLS connections are configured with.
pub(super) struct Credentials {
    pub(super) client: Arc<ClientConfig>,
    pub(super) server: Arc<ServerConfig>,
    own: Arc<CertifiedKey>,
    /// The checks that this node makes of others.
    servers: Arc<dyn ServerCertVerifier>,
    clients: Arc<dyn ClientCertVerifier>,
}

/// The credentials of the files as they were when they could last be used.
pub(super) struct CurrentCredentials {
    files: TlsFiles,
    /// The address at which other nodes reach this one.
    own_address: String,
    current: Mutex<Arc<Credentials>>,
    /// The checksum of the contents from which the current ones were made.
    digest: Mutex<[u8; 32]>,
}

impl CurrentCredentials {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsFileError`] if one of them cannot be used.
    pub(super) fn read(files: TlsFiles, own_address: &str) -> Result<Self, TlsFileError> {
        let contents = Contents::read(&files)?;
        let credentials = contents.credentials(&files)?;
        credentials.log_doubt(own_address);
        let (digest, current) = (Mutex::new(contents.digest()), Mutex::new(Arc::new(credentials)));
        Ok(Self { files, own_address: own_address.to_owned(), current, digest })
    }

    /// Returns the credentials for a new connection.
    pub(super) fn current(&self) -> Arc<Credentials> {
        self.current.lock().clone()
    }

    /// Reads the files again and again, until the future is dropped.
    pub(super) async fn keep_current(&self) {
        let (mut log, mut checked_at) = (ReloadLog::default(), Instant::now());
        loop {
            tokio::time::sleep(LOOK).await;
            if checked_at.elapsed() >= LOG_EVERY {
                checked_at = Instant::now();
                self.current().log_doubt(&self.own_address); // it expires while the node runs
            }
            match self.read_again().await {
                Ok(()) => log = ReloadLog::default(),
                Err(error) => log.failed(&error.to_string()),
            }
        }
    }

    /// Reads the files again, and uses their contents if these have changed.
    ///
    /// # Errors
    /// [`TlsFileError`] if one of them cannot be used; then nothing changes.
    pub(super) async fn read_again(&self) -> Result<(), TlsFileError> {
        let files = self.files.clone();
        let Ok(contents) = tokio::task::spawn_blocking(move || Contents::read(&files)).await else { return Ok(()) };
        let contents = contents?;
        let digest = contents.digest();
        if *self.digest.lock() == digest {
            return Ok(());
        }
        let credentials = contents.credentials(&self.files)?;
        tracing::info!("the certificates for TLS between nodes were read again: new connections use them");
        credentials.log_doubt(&self.own_address);
        *self.digest.lock() = digest;
        *self.current.lock() = Arc::new(credentials);
        Ok(())
    }
}

/// Logs why the files cannot be used any more: the same reason only every [`LOG_EVERY`], and only one that is found twice
/// in a row, because the files may not be replaced all at once.
#[derive(Default)]
struct ReloadLog {
    found: String,
    logged_at: Option<Instant>,
}

impl ReloadLog {
    fn failed(&mut self, text: &str) {
        if self.found != text {
            *self = Self { found: text.to_owned(), logged_at: None };
        } else if self.logged_at.is_none_or(|at| at.elapsed() >= LOG_EVERY) {
            self.logged_at = Some(Instant::now());
            tracing::warn!(
                "the certificates for TLS between nodes stay the old ones, the new ones cannot be used: {text}"
            );
        }
    }
}

/// The contents of the files.
struct Contents {
    cert: Vec<u8>,
    key: Vec<u8>,
    ca: Vec<u8>,
}

impl Contents {
    fn read(files: &TlsFiles) -> Result<Self, TlsFileError> {
        Ok(Self { cert: read(CERT, &files.cert)?, key: read(KEY, &files.key)?, ca: read(CA, &files.ca)? })
    }

    fn digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        for part in [&self.cert, &self.key, &self.ca] {
            digest.update((part.len() as u64).to_le_bytes());
            digest.update(part);
        }
        digest.finalize().into()
    }

    fn credentials(&self, files: &TlsFiles) -> Result<Credentials, TlsFileError> {
        let provider = Arc::new(provider());
        let chain = certificates(CERT, &files.cert, &self.cert)?;
        if chain.iter().map(|certificate| certificate.len()).sum::<usize>() > CHAIN_MAX {
            let problem = format!("has certificates of more than {CHAIN_MAX} bytes, which no other node takes");
            return Err(unusable(CERT, &files.cert, &problem));
        }
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|error| match error {
            pem::Error::NoItemsFound => {
                unusable(KEY, &files.key, "has no private key in PEM form that is not encrypted")
            }
            error => unusable(KEY, &files.key, &format!("is no private key in PEM form: {error}")),
        })?;
        let certified = CertifiedKey::from_der(chain, key, &provider).map_err(|error| match error {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                unusable(KEY, &files.key, &format!("is not the key of the certificate in {}", files.cert.display()))
            }
            Error::InvalidCertificate(_) => unusable(CERT, &files.cert, &format!("has a broken certificate: {error}")),
            error => unusable(KEY, &files.key, &format!("has a key that cannot be used: {error}")),
        })?;
        let mut roots = RootCertStore::empty();
        for (number, certificate) in (1..).zip(certificates(CA, &files.ca, &self.ca)?) {
            let broken =
                |error| unusable(CA, &files.ca, &format!("has a broken certificate, number {number}: {error}"));
            roots.add(certificate).map_err(broken)?;
        }
        let unsuitable = |error: String| unusable(CA, &files.ca, &format!("cannot be used: {error}"));
        Credentials::new(certified, roots, provider).map_err(unsuitable)
    }
}

impl Credentials {
    /// Returns the configurations for a certificate and trusted authorities. The error is in words.
    fn new(own: CertifiedKey, roots: RootCertStore, provider: Arc<CryptoProvider>) -> Result<Self, String> {
        let (own, roots, said) = (Arc::new(own), Arc::new(roots), |error: &dyn ToString| error.to_string());
        let servers = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone()).build();
        let servers = servers.map_err(|error| said(&error))?;
        let clients = WebPkiClientVerifier::builder_with_provider(roots, provider.clone()).build();
        let clients = clients.map_err(|error| said(&error))?;
        let resolver = Arc::new(SingleCertAndKey::from(own.clone()));
        let client = ClientConfig::builder_with_provider(provider.clone()).with_protocol_versions(&[&TLS13]);
        let client = client.map_err(|error| said(&error))?.with_webpki_verifier(servers.clone());
        let mut client = client.with_client_cert_resolver(resolver.clone());
        client.resumption = Resumption::disabled();
        let server = ServerConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13]);
        let server = server.map_err(|error| said(&error))?.with_client_cert_verifier(clients.clone());
        let mut server = server.with_cert_resolver(resolver);
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        Ok(Self { client: Arc::new(client), server: Arc::new(server), own, servers, clients })
    }

    /// Returns why this node would refuse its own certificate if it were another node, as the end of a sentence that begins
    /// with it. It is used all the same: the other nodes may trust other authorities.
    pub(super) fn doubt(&self, own_address: &str) -> Option<String> {
        let ([own, between @ ..], now) = (&self.own.cert[..], UnixTime::now()) else { return None };
        let accepted = self.clients.verify_client_cert(own, between, now).map(|_| ());
        let accepted = accepted.and_then(|()| match tls_reasons::server_name(own_address) {
            Ok(name) => self.servers.verify_server_cert(own, between, &name, &[], now).map(|_| ()),
            Err(_) => Ok(()),
        });
        accepted.err().map(|error| tls_reasons::fault(&error))
    }

    fn log_doubt(&self, own_address: &str) {
        if let Some(doubt) = self.doubt(own_address) {
            tracing::warn!("other nodes will probably refuse the certificate of this node: {CERT} {doubt}");
        }
    }
}

/// Returns the ciphers, the cheapest first.
fn provider() -> CryptoProvider {
    let suites = [
        aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
        aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384,
        aws_lc_rs::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    ];
    CryptoProvider { cipher_suites: suites.to_vec(), ..aws_lc_rs::default_provider() }
}

fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, TlsFileError> {
    let unreadable = |error| TlsFileError::Unreadable { key, file: path.display().to_string(), error };
    let file = File::open(path).map_err(unreadable)?;
    let mut contents = Vec::new();
    file.take(FILE_MAX + 1).read_to_end(&mut contents).map_err(unreadable)?;
    match contents.len() as u64 {
        ..=FILE_MAX => Ok(contents),
        _ => Err(unusable(key, path, &format!("has more than {FILE_MAX} bytes"))),
    }
}

fn certificates(key: &'static str, path: &Path, contents: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsFileError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(contents).collect();
    let all = all.map_err(|error| unusable(key, path, &format!("is not in PEM form: {error}")))?;
    if all.is_empty() { Err(unusable(key, path, "has no certificate in PEM form")) } else { Ok(all) }
}

fn unusable(key: &'static str, path: &Path, problem: &str) -> TlsFileError {
    TlsFileError::Unusable { key, file: path.display().to_string(), problem: problem.to_owned() }
}

const CERT: &str = "cluster_tls_cert";
const KEY: &str = "cluster_tls_key";
const CA: &str = "cluster_tls_ca";
/// The largest file that is read, in bytes.
const FILE_MAX: u64 = 1 << 20;
/// The most bytes of certificates that a node sends: the other side takes no message of 64 KiB.
const CHAIN_MAX: usize = 60_000;
/// Pause between two looks at the files.
const LOOK: Duration = Duration::from_secs(2);
/// Time after which it is logged again that the files cannot be used, or that others will refuse the certificate.
const LOG_EVERY: Duration = Duration::from_secs(600);

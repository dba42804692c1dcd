//! Tests of TLS between nodes: who gets in, what both sides say about those who do not, files that change, and how much is
//! written at once.
use super::credentials::CurrentCredentials;
use super::frame::{self, FrameToSend};
use super::handshake;
use super::state::PeersInner;
use super::tests::{LinkEnd, link_until_one_ends, serving};
use super::tls_reasons;
use super::*;
use crate::tests::cluster::{Applied, PATIENCE, peers_options, until};
use bytes::Bytes;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, date_time_ymd,
};
use std::io::{self, IoSlice};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, HandshakeKind, RootCertStore, crypto::aws_lc_rs, version::TLS13};

/// An authority that signs certificates.
struct Authority(CertifiedIssuer<'static, KeyPair>);

/// The contents of the three files of a node.
#[derive(Clone, Default)]
struct Papers {
    cert: String,
    key: String,
    ca: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Returns a certificate for 127.0.0.1 with its key and this authority, after `change` has changed it.
    fn certify(&self, change: impl FnOnce(&mut CertificateParams)) -> Papers {
        let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.0).unwrap();
        Papers { cert: cert.pem(), key: key.serialize_pem(), ca: self.0.pem() }
    }

    fn papers(&self) -> Papers {
        self.certify(|_| ())
    }
}

impl Papers {
    /// Returns the papers with a further authority that is trusted.
    fn trusting(mut self, authority: &Authority) -> Self {
        self.ca += &authority.0.pem();
        self
    }
}

/// A temporary folder with the files of a node.
struct PaperFolder(PathBuf);

impl PaperFolder {
    fn new(papers: &Papers) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("leveret-tls-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
        let folder = Self(std::env::temp_dir().join(name));
        std::fs::create_dir_all(&folder.0).unwrap();
        folder.write(papers);
        folder
    }

    fn write(&self, papers: &Papers) {
        let files = self.files();
        for (path, text) in [(files.cert, &papers.cert), (files.key, &papers.key), (files.ca, &papers.ca)] {
            std::fs::write(path, text).unwrap();
        }
    }

    fn files(&self) -> TlsFiles {
        let file = |name: &str| self.0.join(name);
        TlsFiles { cert: file("tls.crt"), key: file("tls.key"), ca: file("ca.crt") }
    }
}

impl Drop for PaperFolder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Wires over TCP, with TLS if there are papers, and their address.
struct Side {
    wires: Arc<dyn Wires>,
    address: String,
}

async fn side(papers: Option<&Papers>) -> Side {
    let tcp = TcpWires::listen("127.0.0.1:0").await.unwrap();
    let address = tcp.local_address().unwrap().to_string();
    let wires: Arc<dyn Wires> = match papers {
        None => Arc::new(tcp),
        Some(papers) => Arc::new(TlsWires::new(Arc::new(tcp), PaperFolder::new(papers).files(), &address).unwrap()),
    };
    Side { wires, address }
}

fn without_secret(node: u64) -> PeersOptions {
    PeersOptions { secret: Bytes::new(), ..peers_options(node, node) }
}

/// What both sides say about one connection; empty if all is well.
#[derive(Debug)]
struct Said {
    dialling: String,
    accepting: String,
}

/// Has node 1 dial node 2 at an address, with these options.
async fn meet(one: &Side, two: &Side, address: &str, options: [PeersOptions; 2]) -> Said {
    let [own, others] = options;
    let said = |outcome: Result<(), String>| outcome.err().unwrap_or_default();
    let dialling = async {
        let mut wire = one.wires.dial(address.to_owned()).await.map_err(|error| error.to_string())?;
        handshake::dialled(&mut wire, &own, Lane::Control, 2).await.map_err(|error| error.to_string())?;
        Ok(())
    };
    let accepting = async {
        let peers = PeersInner::new(others, two.wires.clone(), Arc::new(Applied::default()));
        let wire = two.wires.accept().await.unwrap();
        accept::authenticate(&peers, wire).await.map(|_| ()).map_err(|error| error.to_string())
    };
    let both = async { tokio::join!(dialling, accepting) };
    let (dialling, accepting) = timeout(PATIENCE, both).await.expect("a handshake does not end");
    Said { dialling: said(dialling), accepting: said(accepting) }
}

/// Has a node with one of the papers dial a node with the other, both without a secret.
async fn said(one: Option<&Papers>, two: Option<&Papers>) -> Said {
    let (one, two) = (side(one).await, side(two).await);
    meet(&one, &two, &two.address, [without_secret(1), without_secret(2)]).await
}

#[tokio::test]
async fn both_sides_say_why_a_certificate_does_not_get_in() {
    let (ours, foreign) = (Authority::new("ours"), Authority::new("foreign"));
    let same_name = Authority::new("ours");
    let right = ours.papers();
    let all_is_well = said(Some(&right), Some(&ours.papers())).await;
    assert!(all_is_well.dialling.is_empty() && all_is_well.accepting.is_empty(), "{all_is_well:?}");
    let expired = ours.certify(|params| params.not_after = date_time_ymd(2020, 1, 1));
    let early = ours.certify(|params| params.not_before = date_time_ymd(4000, 1, 1));
    let elsewhere = ours.certify(|params| params.subject_alt_names.clear());
    let only = |purpose| ours.certify(|params| params.extended_key_usages = vec![purpose]);
    let (only_server, only_client) =
        (only(ExtendedKeyUsagePurpose::ServerAuth), only(ExtendedKeyUsagePurpose::ClientAuth));
    let (stranger, namesake) = (foreign.papers().trusting(&ours), same_name.papers().trusting(&ours));
    let (unknown, refused) =
        ("not from an authority in cluster_tls_ca", "not from an authority that the other side trusts");
    for (wrong, at_dialling, at_accepting, checker, refused_one) in [
        (&stranger, true, true, unknown, refused),
        (&namesake, true, true, "only has the name of one in cluster_tls_ca", "whom the other side does not trust"),
        (&expired, true, true, "has expired", "it has expired or is not valid yet"),
        (&early, true, true, "not valid yet", "it has expired or is not valid yet"),
        (&elsewhere, false, true, "is not for 127.0.0.1", "not for the address that the other side has dialled"),
        (&only_server, true, false, "may not be used for this", "needs both server and client authentication"),
        (&only_client, false, true, "may not be used for this", "needs both server and client authentication"),
    ] {
        let (dialling, accepting) = (said(Some(wrong), Some(&right)).await, said(Some(&right), Some(wrong)).await);
        assert_eq!([!dialling.accepting.is_empty(), !accepting.dialling.is_empty()], [at_dialling, at_accepting]);
        for (is_wrong, check, refusal) in [
            (at_dialling, dialling.accepting, dialling.dialling),
            (at_accepting, accepting.dialling, accepting.accepting),
        ] {
            assert!(!is_wrong || check.contains(checker), "{check}");
            assert!(!is_wrong || refusal.contains(refused_one), "{refusal}");
        }
    }
}

#[tokio::test]
async fn the_name_that_is_dialled_has_to_be_in_the_certificate() {
    let ours = Authority::new("ours");
    let named = ours.certify(|params| *params = CertificateParams::new(["localhost".to_owned()]).unwrap());
    let (one, two) = (side(Some(&named)).await, side(Some(&named)).await);
    let port = two.address.rsplit_once(':').unwrap().1;
    let options = || [without_secret(1), without_secret(2)];
    let known = meet(&one, &two, &format!("localhost:{port}"), options()).await;
    assert!(known.dialling.is_empty() && known.accepting.is_empty(), "{known:?}");
    let unknown = meet(&one, &two, &two.address, options()).await;
    assert!(unknown.dialling.contains("is not for 127.0.0.1, only for localhost"), "{unknown:?}");
    for (address, name) in [("a.b:1", "a.b"), ("a.b.:1", "a.b"), ("1.2.3.4:5", "1.2.3.4"), ("[::1]:5", "::1")] {
        assert_eq!(tls_reasons::server_name(address).unwrap().to_str(), name);
    }
    let error = one.wires.dial("no name:1".to_owned()).await.map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("'no name' is no name"), "{error}");
}

#[tokio::test]
async fn a_node_with_tls_and_one_without_say_so_on_both_sides() {
    let papers = Authority::new("ours").papers();
    let said = [said(Some(&papers), None).await, said(None, Some(&papers)).await];
    let [
        Said { dialling: tls_dials, accepting: plain_accepts },
        Said { dialling: plain_dials, accepting: tls_accepts },
    ] = said;
    for plain in [plain_accepts, plain_dials] {
        assert_eq!(plain, "the other side speaks TLS, and this node does not: it has no cluster_tls_cert");
    }
    for tls in [tls_dials, tls_accepts] {
        assert_eq!(tls, "the other side speaks no TLS: is its cluster_tls_cert set?");
    }
}

#[tokio::test]
async fn the_secret_is_checked_beside_the_certificate() {
    let papers = Authority::new("ours").papers();
    let (one, two) = (side(Some(&papers)).await, side(Some(&papers)).await);
    let with =
        |node, secret: &'static [u8]| PeersOptions { secret: Bytes::from_static(secret), ..without_secret(node) };
    for (own, others, is_well) in [("s", "s", true), ("s", "t", false), ("s", "", false), ("", "t", false)] {
        let options = [with(1, own.as_bytes()), with(2, others.as_bytes())];
        let said = meet(&one, &two, &two.address, options).await;
        assert_eq!(said.dialling.is_empty() && said.accepting.is_empty(), is_well, "{said:?}");
        assert!(is_well || said.accepting.contains("does not know the secret"), "{said:?}");
    }
    let foreign = PeersOptions { cluster: 6, ..without_secret(1) };
    let said = meet(&one, &two, &two.address, [foreign, without_secret(2)]).await;
    assert!(said.accepting.contains("belongs to another cluster"), "{said:?}");
}

#[tokio::test]
#[should_panic(expected = "open to everybody")]
async fn links_with_neither_secret_nor_certificates_do_not_start() {
    let _ = Peers::start(without_secret(1), side(None).await.wires, Arc::new(Applied::default()));
}

/// Returns TLS for a client that shows this chain of certificates, with all that the library does by itself.
fn client(papers: &Papers, chain: Vec<CertificateDer<'static>>) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(papers.ca.as_bytes()).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let config = config.with_protocol_versions(&[&TLS13]).unwrap().with_root_certificates(roots);
    let key = PrivateKeyDer::from_pem_slice(papers.key.as_bytes()).unwrap();
    TlsConnector::from(Arc::new(match chain.is_empty() {
        true => config.with_no_client_auth(),
        false => config.with_client_auth_cert(chain, key).unwrap(),
    }))
}

async fn connect(connector: &TlsConnector, to: &Side) -> TlsStream<TcpStream> {
    let stream = TcpStream::connect(&to.address).await.unwrap();
    connector.connect(ServerName::try_from("127.0.0.1").unwrap(), stream).await.unwrap()
}

/// Has a client that shows this chain of certificates dial a node. Returns what the client is told, and the node says.
async fn shown(papers: &Papers, chain: Vec<CertificateDer<'static>>) -> Said {
    let (two, connector) = (side(Some(papers)).await, client(papers, chain));
    let dialling = async { connect(&connector, &two).await.read_u8().await.unwrap_err().to_string() };
    let accepting = async {
        let wire = two.wires.accept().await.unwrap();
        two.wires.admit(wire).await.map(|_| ()).unwrap_err().to_string()
    };
    let both = async { tokio::join!(dialling, accepting) };
    let (dialling, accepting) = timeout(PATIENCE, both).await.expect("a handshake does not end");
    Said { dialling, accepting }
}

#[tokio::test]
async fn each_connection_shows_its_certificate_again() {
    let papers = Authority::new("ours").papers();
    let certificate = CertificateDer::from_pem_slice(papers.cert.as_bytes()).unwrap();
    let (two, connector) = (side(Some(&papers)).await, client(&papers, vec![certificate]));
    for _ in 0..2 {
        let dialling = async {
            let mut stream = connect(&connector, &two).await;
            stream.read_u8().await.unwrap(); // tickets come with the first bytes
            stream.get_ref().1.handshake_kind()
        };
        let accepting = async {
            let mut wire = two.wires.admit(two.wires.accept().await.unwrap()).await.unwrap();
            wire.writer.write_all(&[1]).await.unwrap();
            wire.writer.flush().await.unwrap();
        };
        let (kind, ()) = tokio::join!(dialling, accepting);
        assert_eq!(kind, Some(HandshakeKind::Full), "an expired certificate would go on being accepted");
    }
}

#[tokio::test]
async fn a_client_with_no_certificate_and_one_with_far_too_many_are_refused() {
    let papers = Authority::new("ours").papers();
    let none = shown(&papers, Vec::new()).await;
    assert!(none.dialling.contains("CertificateRequired"), "{none:?}");
    assert_eq!(none.accepting, "the other side has shown no certificate");
    let certificate = CertificateDer::from_pem_slice(papers.cert.as_bytes()).unwrap();
    let many = shown(&papers, vec![certificate; 400]).await;
    assert_eq!(many.accepting, "the certificates of the other side take more than 64 KiB", "{many:?}");
}

#[tokio::test]
async fn links_run_over_tls_without_a_secret() {
    let ours = Authority::new("ours");
    let (one, two) = (side(Some(&ours.papers())).await, side(Some(&ours.papers())).await);
    let (first, second) = (serving(without_secret(1), one.wires, false), serving(without_secret(2), two.wires, false));
    link_until_one_ends(first, second, &two.address).await;
}

#[tokio::test]
async fn strangers_that_say_nothing_or_garbage_do_not_keep_nodes_out_for_long() {
    let papers = Authority::new("ours").papers();
    let times = LinkTimes { handshake_max: Duration::from_millis(300), ..LinkTimes::default() };
    let Side { wires, address } = side(Some(&papers)).await;
    let LinkEnd { peers: two, heard } = serving(PeersOptions { times, ..without_secret(2) }, wires, false);
    let mut silent = Vec::new();
    for number in 0..150 {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        let greeting: &[u8] = match number % 4 {
            0 => b"",
            1 => b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            2 => &[22, 3, 1, 255, 255, 1, 0, 255, 255], // the beginning of a long TLS message
            _ => &[255; 5000],
        };
        let _ = stream.write_all(greeting).await;
        silent.push(stream);
    }
    let one = serving(without_secret(1), side(Some(&papers)).await.wires, false).peers;
    one.introduce(2, &address);
    until("a connection", || one.is_connected(2)).await;
    until("a connection for messages", || !heard.notices.lock().is_empty()).await;
    for mut stream in silent {
        let mut rest = Vec::new();
        let closed = timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
        assert!(closed.is_ok(), "it is not closed");
    }
    one.send(2, 3, Bytes::from_static(b"x")).await.unwrap();
    until("it arrives", || heard.messages.lock().len() == 1).await;
    one.stop().await;
    two.stop().await;
}

/// Keeps what is written to the streams that are dialled, write by write.
struct Recorded {
    below: TcpWires,
    written: Arc<Mutex<Vec<Vec<u8>>>>,
}

struct RecordingWriter {
    below: Box<dyn AsyncWrite + Send + Unpin>,
    written: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Wires for Recorded {
    fn dial(&self, address: String) -> BoxFuture<'static, io::Result<Wire>> {
        let (dialling, written) = (self.below.dial(address), self.written.clone());
        Box::pin(async move {
            let Wire { reader, writer, from } = dialling.await?;
            Ok(Wire { reader, writer: Box::new(RecordingWriter { below: writer, written }), from })
        })
    }

    fn accept(&self) -> BoxFuture<'_, io::Result<Wire>> {
        self.below.accept()
    }
}

impl AsyncWrite for RecordingWriter {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.as_mut().poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.below).poll_write_vectored(context, slices);
        if let Poll::Ready(Ok(length)) = written {
            let mut bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
            bytes.truncate(length);
            self.written.lock().push(bytes);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.below).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.below).poll_shutdown(context)
    }
}

/// Returns the number of TLS records in these bytes.
fn records(mut bytes: &[u8]) -> usize {
    let mut count = 0;
    while let [_, _, _, high, low, rest @ ..] = bytes {
        bytes = &rest[usize::from(u16::from_be_bytes([*high, *low]))..];
        count += 1;
    }
    count
}

#[tokio::test]
async fn many_small_frames_share_a_record_and_a_write_and_nobody_else_can_read_them() {
    let (papers, written) = (Authority::new("ours").papers(), Arc::<Mutex<Vec<Vec<u8>>>>::default());
    let below = Arc::new(Recorded { below: TcpWires::listen("127.0.0.1:0").await.unwrap(), written: written.clone() });
    let one = TlsWires::new(below, PaperFolder::new(&papers).files(), "127.0.0.1:1").unwrap();
    let two = side(Some(&papers)).await;
    let accepting = async { two.wires.admit(two.wires.accept().await.unwrap()).await.unwrap() };
    let (dialled, mut accepted) = tokio::join!(one.dial(two.address.clone()), accepting);
    let mut writer = dialled.unwrap().writer;
    for (frames_len, body, records_max) in [(200, 20, 1), (200, 1000, 14), (1, 100_000, 7), (1, 0, 1)] {
        written.lock().clear();
        let frame = || FrameToSend::new(1, 2, 3, vec![Bytes::from(vec![7; body])]);
        let frames: Vec<FrameToSend> = (0..frames_len).map(|_| frame()).collect();
        let reading = async {
            for _ in 0..frames_len {
                let frame = frame::read(&mut accepted.reader, 1 << 20, PATIENCE).await.unwrap().unwrap();
                assert_eq!(frame.body, vec![7; body]);
            }
        };
        let (sent, ()) = tokio::join!(frame::write(&mut writer, &frames, || ()), reading);
        sent.unwrap();
        let written = written.lock();
        let (bytes, plain) = (written.concat(), [7; 16]);
        assert_eq!(written.len(), 1, "the frames are written at once");
        assert!(records(&bytes) <= records_max, "{} records for {frames_len} of {body}", records(&bytes));
        assert!(!bytes.windows(16).any(|part| part == plain), "the frames can be read on the way");
    }
}

#[tokio::test]
async fn new_files_are_used_by_new_connections_and_broken_ones_change_nothing() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let folder = PaperFolder::new(&old.papers());
    let credentials = CurrentCredentials::read(folder.files(), "127.0.0.1:1").unwrap();
    let first = credentials.current();
    credentials.read_again().await.unwrap();
    assert!(Arc::ptr_eq(&first, &credentials.current()), "nothing has changed");
    let (renewed, other) = (new.papers().trusting(&old), new.papers());
    for (expected, broken) in [
        ("cluster_tls_key: ", Some(Papers { key: other.key, ..renewed.clone() })),
        ("cluster_tls_ca: ", Some(Papers { ca: "broken".to_owned(), ..renewed.clone() })),
        ("cluster_tls_cert: cannot read", None),
        ("cluster_tls_cert: ", Some(Papers::default())),
    ] {
        match broken {
            Some(papers) => folder.write(&papers),
            None => std::fs::remove_file(folder.files().cert).unwrap(),
        }
        let error = credentials.read_again().await.unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
        assert!(Arc::ptr_eq(&first, &credentials.current()));
    }
    folder.write(&renewed);
    credentials.read_again().await.unwrap();
    assert!(!Arc::ptr_eq(&first, &credentials.current()));
}

#[test]
fn a_node_notices_that_others_will_refuse_its_certificate() {
    let (ours, foreign) = (Authority::new("ours"), Authority::new("foreign"));
    let doubt = |papers: &Papers, address: &str| {
        let folder = PaperFolder::new(papers);
        CurrentCredentials::read(folder.files(), address).unwrap().current().doubt(address)
    };
    assert_eq!(doubt(&ours.papers(), "127.0.0.1:1"), None);
    let expired = ours.certify(|params| params.not_after = date_time_ymd(2020, 1, 1));
    let foreign = Papers { ca: foreign.0.pem(), ..ours.papers() };
    for (papers, address, expected) in [
        (&expired, "127.0.0.1:1", "has expired"),
        (&foreign, "127.0.0.1:1", "is not from an authority in cluster_tls_ca"),
        (&ours.papers(), "a.b:1", "is not for a.b, only for 127.0.0.1"),
    ] {
        assert_eq!(doubt(papers, address).unwrap(), expected);
    }
}

#[test]
fn files_that_cannot_be_used_are_refused_with_the_reason() {
    let ours = Authority::new("ours");
    let (right, other) = (ours.papers(), ours.papers());
    let encrypted = right.key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned();
    let with =
        |cert: &str, key: &str, ca: &str| Papers { cert: cert.to_owned(), key: key.to_owned(), ca: ca.to_owned() };
    let Papers { cert, key, ca } = &right;
    for (papers, expected) in [
        (with("", key, ca), "cluster_tls_cert: FOLDER/tls.crt has no certificate in PEM form"),
        (with(key, key, ca), "cluster_tls_cert: FOLDER/tls.crt has no certificate in PEM form"),
        (with(&broken, key, ca), "cluster_tls_cert: FOLDER/tls.crt has a broken certificate: "),
        (
            with(&cert.repeat(200), key, ca),
            "cluster_tls_cert: FOLDER/tls.crt has certificates of more than 60000 bytes",
        ),
        (with(&cert.repeat(3000), key, ca), "cluster_tls_cert: FOLDER/tls.crt has more than 1048576 bytes"),
        (with(cert, "", ca), "cluster_tls_key: FOLDER/tls.key has no private key in PEM form"),
        (
            with(cert, &encrypted, ca),
            "cluster_tls_key: FOLDER/tls.key has no private key in PEM form that is not encrypted",
        ),
        (
            with(cert, &other.key, ca),
            "cluster_tls_key: FOLDER/tls.key is not the key of the certificate in FOLDER/tls.crt",
        ),
        (
            with(cert, key, &format!("{ca}{broken}")),
            "cluster_tls_ca: FOLDER/ca.crt has a broken certificate, number 2: ",
        ),
        (with(cert, key, "-----BEGIN CERTIFICATE-----\nA"), "cluster_tls_ca: FOLDER/ca.crt is not in PEM form: "),
    ] {
        let folder = PaperFolder::new(&papers);
        let error = CurrentCredentials::read(folder.files(), "127.0.0.1:1").map(|_| ()).unwrap_err().to_string();
        let error = error.replace(&folder.0.display().to_string(), "FOLDER");
        assert!(error.starts_with(expected), "{error}");
    }
}

//! Tests of the links: strangers, peers that break the protocol, connections that break, and messages.
use super::frame::{self, FrameToSend};
use super::*;
use crate::tests::cluster::{Applied, PATIENCE, peers_options, until};
use crate::tests::net::{TestNet, TestWires, Way};
use bytes::Bytes;
use futures::future::BoxFuture;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A node that only has links.
struct LinkNode {
    peers: Peers,
    heard: Arc<Applied>,
    wires: Arc<TestWires>,
}

/// The links of a node, and what it hears through them.
pub(super) struct LinkEnd {
    pub(super) peers: Peers,
    pub(super) heard: Arc<Applied>,
}

/// Answers each request with its own bytes, or never.
struct Echo {
    answers: Answers,
    is_silent: bool,
}

struct Echoes {
    is_silent: bool,
}

impl FrameHandler for Echo {
    fn handle(&mut self, frame: LinkFrame) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            if !self.is_silent {
                self.answers.send(frame.kind, frame.request, frame.group, frame.body).await;
            }
            Ok(())
        })
    }
}

impl PeerRequests for Echoes {
    fn handler(&self, _: u64, _: Lane, answers: Answers) -> Box<dyn FrameHandler> {
        Box::new(Echo { answers, is_silent: self.is_silent })
    }
}

fn node_with(net: &Arc<TestNet>, options: PeersOptions, is_silent: bool) -> LinkNode {
    let wires = net.join(options.node);
    let LinkEnd { peers, heard } = serving(options, wires.clone(), is_silent);
    LinkNode { peers, heard, wires }
}

/// Starts the links of a node, which answers requests unless it `is_silent`.
pub(super) fn serving(options: PeersOptions, wires: Arc<dyn Wires>, is_silent: bool) -> LinkEnd {
    let heard = Arc::new(Applied::default());
    let peers = Peers::start(options, wires, heard.clone());
    peers.serve(Arc::new(Echoes { is_silent }), Arc::new(|_, _| ()));
    LinkEnd { peers, heard }
}

fn node(net: &Arc<TestNet>, id: u64) -> LinkNode {
    node_with(net, peers_options(id, id * 10), false)
}

async fn connected(from: &LinkNode, to: u64) {
    from.peers.introduce(to, &to.to_string());
    until("a connection", || from.peers.is_connected(to)).await;
    let listens = || from.heard.notices.lock().iter().any(|notice| notice.0 == to && notice.3);
    until("a connection for messages", listens).await;
}

async fn call(from: &LinkNode, to: u64, body: &[u8]) -> Result<LinkFrame, CallError> {
    let parts = vec![Bytes::copy_from_slice(body)];
    let mut answer = from.peers.call(to, Lane::Control, 9, 4, parts).await?;
    tokio::time::timeout(PATIENCE, answer.get()).await.unwrap()
}

#[tokio::test]
async fn requests_are_answered_over_each_lane() {
    let net = Arc::default();
    let (one, _two) = (node(&net, 1), node(&net, 2));
    connected(&one, 2).await;
    for lane in [Lane::Control, Lane::Append, Lane::Snapshot] {
        let is_open = async { while one.peers.call(2, lane, 9, 4, Vec::new()).await.is_err() {} };
        tokio::time::timeout(PATIENCE, is_open).await.unwrap();
        let parts = vec![Bytes::from_static(b"ab"), Bytes::new(), Bytes::from(vec![7; 500_000])];
        let mut answer = one.peers.call(2, lane, 9, 4, parts).await.unwrap();
        let frame = tokio::time::timeout(PATIENCE, answer.get()).await.unwrap().unwrap();
        assert_eq!((frame.kind, frame.group, frame.body.len()), (9, 4, 500_002));
    }
}

#[tokio::test(start_paused = true)]
async fn strangers_do_not_get_in() {
    let base = peers_options(2, 20);
    let strangers = [
        PeersOptions { secret: Bytes::from_static(b"another secret"), ..base.clone() },
        PeersOptions { secret: Bytes::from(vec![1; 100]), ..base.clone() },
        PeersOptions { cluster: 6, ..base.clone() },
    ];
    for stranger in strangers {
        let net = Arc::default();
        let (one, stranger) = (node(&net, 1), node_with(&net, stranger, false));
        one.peers.introduce(2, "2");
        stranger.peers.introduce(1, "1");
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert!(!one.peers.is_connected(2) && !stranger.peers.is_connected(1));
        assert!(one.heard.notices.lock().is_empty() && stranger.heard.notices.lock().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_not_the_expected_one_is_refused() {
    let net = Arc::default();
    let (one, _two) = (node(&net, 1), node(&net, 2));
    one.peers.introduce(3, "2"); // the address of node 2
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(!one.peers.is_connected(3));
    let double = PeersOptions { boot: 77, ..peers_options(2, 20) };
    let (heard, wires) = (Arc::new(Applied::default()), net.join(9));
    let double = Peers::start(double, wires, heard);
    double.introduce(2, "2"); // itself
    double.introduce(1, "2");
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(!double.is_connected(1) && !double.is_connected(2));
}

/// Dials node 1 as node 2, without a handshake.
async fn raw(two: &LinkNode) -> Wire {
    two.wires.dial("1".to_owned()).await.unwrap()
}

async fn until_closed(wire: &mut Wire) {
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, wire.reader.read_to_end(&mut rest)).await.expect("it is not closed");
}

#[tokio::test(start_paused = true)]
async fn garbage_silence_and_replays_instead_of_a_handshake_end_the_connection() {
    let net = Arc::default();
    let (one, two) = (node(&net, 1), node(&net, 2));
    for garbage in [&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..], &[0; 1000], &[255; 1000], b"LVLK"] {
        let mut wire = raw(&two).await;
        let _ = wire.writer.write_all(garbage).await;
        until_closed(&mut wire).await;
    }
    until_closed(&mut raw(&two).await).await; // says nothing
    // A recorded handshake is worth nothing the next time: the other side has another nonce.
    let options = peers_options(2, 20);
    let mut recorded = Vec::new();
    for _ in 0..2 {
        let mut wire = raw(&two).await;
        if recorded.is_empty() {
            let (near, mut far) = tokio::io::duplex(4096);
            let (reader, writer) = tokio::io::split(near);
            let mut recording = Wire { reader: Box::new(reader), writer: Box::new(writer), from: String::new() };
            let (shaken, ()) = tokio::join!(handshake::dialled(&mut recording, &options, Lane::Control, 1), async {
                let mut hello = [0; 70];
                far.read_exact(&mut hello).await.unwrap();
                wire.writer.write_all(&hello).await.unwrap();
                let mut answer = [0; 82];
                wire.reader.read_exact(&mut answer).await.unwrap();
                far.write_all(&answer).await.unwrap();
                let mut proof = [0; 33];
                far.read_exact(&mut proof).await.unwrap();
                wire.writer.write_all(&proof).await.unwrap();
                let mut end = [9];
                wire.reader.read_exact(&mut end).await.unwrap();
                assert_eq!(end, [0], "the handshake that is recorded succeeds");
                far.write_all(&end).await.unwrap();
                recorded = [&hello[..], &proof].concat();
            });
            shaken.unwrap();
        } else {
            wire.writer.write_all(&recorded[..70]).await.unwrap();
            let mut answer = [0; 82];
            wire.reader.read_exact(&mut answer).await.unwrap();
            wire.writer.write_all(&recorded[70..]).await.unwrap();
            assert_eq!(wire.reader.read_u8().await.unwrap(), 4, "the number of `RefusedLink::Secret`");
            until_closed(&mut wire).await;
        }
    }
    // The node still serves others.
    connected(&two, 1).await;
    assert_eq!(&call(&two, 1, b"x").await.unwrap().body[..], b"x");
    drop(one);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_breaks_the_protocol_loses_its_connection() {
    let net = Arc::default();
    let (_one, two) = (node(&net, 1), node(&net, 2));
    let huge = [255, 255, 255, 255, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let small = [3, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let half = [100, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3];
    for bytes in [&huge[..], &small, &half] {
        let mut wire = raw(&two).await;
        handshake::dialled(&mut wire, &peers_options(2, 20), Lane::Append, 1).await.unwrap();
        wire.writer.write_all(bytes).await.unwrap();
        until_closed(&mut wire).await; // after half a frame because of the silence
    }
}

#[tokio::test]
async fn a_frame_that_claims_to_be_large_takes_no_memory_before_it_arrives() {
    let mut bytes = (1u32 << 30).to_le_bytes().to_vec();
    bytes.extend_from_slice(&[0; 11]);
    bytes.extend_from_slice(&[1; 1000]);
    let error = frame::read(&mut &bytes[..], 2 << 30, PATIENCE).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
    let mut sent = Vec::new();
    let parts = vec![Bytes::from_static(b"abc"), Bytes::from(vec![5; 300_000]), Bytes::from_static(b"z")];
    frame::write(&mut sent, &[FrameToSend::new(7, 8, 9, parts), FrameToSend::sign_of_life()], || ()).await.unwrap();
    let rest = &mut &sent[..];
    let read = frame::read(rest, 1 << 20, PATIENCE).await.unwrap().unwrap();
    assert_eq!((read.kind, read.request, read.group, read.body.len()), (7, 8, 9, 300_004));
    assert_eq!(frame::read(rest, 0, PATIENCE).await.unwrap().unwrap().kind, frame::SIGN_OF_LIFE);
    assert!(frame::read(rest, 0, PATIENCE).await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_given_up_or_whose_connection_ends_leaves_nothing_behind() {
    let net = Arc::default();
    let (one, two) = (node(&net, 1), node_with(&net, peers_options(2, 20), true));
    connected(&one, 2).await;
    let given_up = one.peers.call(2, Lane::Control, 1, 0, Vec::new()).await.unwrap();
    drop(given_up);
    let mut waiting = one.peers.call(2, Lane::Control, 1, 0, Vec::new()).await.unwrap();
    net.leave(2);
    let lost = tokio::time::timeout(PATIENCE, waiting.get()).await.unwrap();
    assert_eq!(lost.unwrap_err(), CallError::Lost(2));
    until("it is gone", || one.peers.is_gone(2)).await;
    assert_eq!(call(&one, 2, b"x").await.unwrap_err(), CallError::NotConnected(2));
    two.peers.stop().await;
    let again = node_with(&net, peers_options(2, 21), false);
    until("a connection", || one.peers.is_connected(2)).await;
    assert!(!one.peers.is_gone(2));
    assert_eq!(&call(&one, 2, b"y").await.unwrap().body[..], b"y");
    again.peers.stop().await;
    one.peers.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_noticed() {
    let net: Arc<TestNet> = Arc::default();
    let (one, two) = (node(&net, 1), node(&net, 2));
    connected(&one, 2).await;
    connected(&two, 1).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(one.peers.is_connected(2), "an idle connection stays open");
    net.set_cut([Way { from: 2, to: 1 }]);
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert!(!one.peers.is_connected(2));
    assert!(!one.peers.is_gone(2), "it may live");
    net.set_cut([]);
    until("a connection", || one.peers.is_connected(2) && two.peers.is_connected(1)).await;
}

#[tokio::test(start_paused = true)]
async fn messages_arrive_in_order_and_a_restart_is_told() {
    let net = Arc::default();
    let (one, two) = (node(&net, 1), node(&net, 2));
    assert_eq!(one.peers.send(2, 0, Bytes::new()).await, Err(SendError::NotConnected(2)));
    connected(&one, 2).await;
    for at in 0..1000u32 {
        let message = Bytes::from(vec![at as u8; (at as usize * 37) % 3000]);
        one.peers.send(2, (at % 3) as u8, message).await.unwrap();
    }
    assert_eq!(one.peers.send(2, 0, vec![0; 2 << 20].into()).await, Err(SendError::TooLarge(2 << 20)));
    until("all arrive", || two.heard.messages.lock().len() == 1000).await;
    for (at, (from, channel, message)) in two.heard.messages.lock().iter().enumerate() {
        assert_eq!((*from, usize::from(*channel), message.len()), (1, at % 3, at * 37 % 3000));
        assert!(message.iter().all(|byte| *byte == at as u8));
    }
    one.peers.stop().await;
    net.leave(1);
    let again = node_with(&net, peers_options(1, 11), false);
    connected(&again, 2).await;
    until("told", || two.heard.notices.lock().len() == 3).await;
    let incoming = |boot, is_open| (1, boot, LinkDirection::Incoming, is_open);
    assert_eq!(*two.heard.notices.lock(), [incoming(10, true), incoming(10, false), incoming(11, true)]);
}

#[tokio::test(start_paused = true)]
async fn a_sender_of_messages_waits_for_a_node_that_does_not_read() {
    let net: Arc<TestNet> = Arc::default();
    let (one, two) = (node(&net, 1), node(&net, 2));
    connected(&one, 2).await;
    net.set_cut([Way { from: 1, to: 2 }]);
    let sending = async {
        for _ in 0..100 {
            one.peers.send(2, 0, vec![7; 50_000].into()).await?;
        }
        Ok::<(), SendError>(())
    };
    assert!(tokio::time::timeout(Duration::from_secs(2), sending).await.is_err(), "5 MB do not fit into 256 KiB");
    assert!(two.heard.messages.lock().is_empty());
    // A peer that reads nothing for long loses its connection, and the room is given back.
    tokio::time::sleep(Duration::from_secs(60)).await;
    net.set_cut([]);
    let sent = || one.peers.send(2, 0, vec![8; 50_000].into());
    let again = async {
        while sent().await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await
        }
    };
    tokio::time::timeout(PATIENCE, again).await.unwrap();
    until("it arrives", || two.heard.messages.lock().iter().any(|message| message.2[0] == 8)).await;
}

#[tokio::test(start_paused = true)]
async fn of_two_connections_of_one_node_the_newer_counts() {
    let net = Arc::default();
    let (one, two) = (node(&net, 1), node(&net, 2));
    connected(&two, 1).await;
    let mut second = raw(&two).await;
    handshake::dialled(&mut second, &peers_options(2, 20), Lane::Messages, 1).await.unwrap();
    until("the first is closed", || one.heard.notices.lock().len() >= 3).await;
    // The node whose connection was replaced dials again, and replaces the second one.
    until_closed(&mut second).await;
    until("a connection", || one.heard.notices.lock().len() >= 5).await;
    let opened: Vec<bool> = one.heard.notices.lock().iter().map(|notice| notice.3).collect();
    assert_eq!(opened[..5], [true, false, true, false, true], "never two at a time");
    // A process that was replaced by a later one does not come back without a new handshake: all its connections end.
    let mut older = raw(&two).await;
    handshake::dialled(&mut older, &peers_options(2, 19), Lane::Append, 1).await.unwrap();
    until("the others are closed", || one.heard.notices.lock().iter().filter(|notice| !notice.3).count() >= 3).await;
}

#[tokio::test]
async fn links_run_over_tcp_and_a_refused_connection_is_told_from_a_silent_one() {
    let start = async |id| {
        let wires = TcpWires::listen("127.0.0.1:0").await.unwrap();
        let address = wires.local_address().unwrap().to_string();
        (serving(peers_options(id, id), Arc::new(wires), false), address)
    };
    let (one, _) = start(1).await;
    let (two, address) = start(2).await;
    link_until_one_ends(one, two, &address).await;
}

/// Has node 1 and node 2, which is at `address`, exchange messages and requests, and checks that the end of node 2 is noticed.
pub(super) async fn link_until_one_ends(one: LinkEnd, two: LinkEnd, address: &str) {
    let (LinkEnd { peers: one, heard }, LinkEnd { peers: two, heard: heard_by_two }) = (one, two);
    one.introduce(2, address);
    until("a connection", || one.is_connected(2)).await;
    until("a connection for messages", || !heard.notices.lock().is_empty()).await;
    for at in 0..100u8 {
        one.send(2, 3, vec![at; 20_000].into()).await.unwrap();
    }
    until("all arrive", || heard_by_two.messages.lock().len() == 100).await;
    let mut answer = one.call(2, Lane::Control, 9, 1, vec![Bytes::from(vec![1; 700_000])]).await.unwrap();
    assert_eq!(tokio::time::timeout(PATIENCE, answer.get()).await.unwrap().unwrap().body, vec![1; 700_000]);
    two.stop().await;
    drop(two); // closes the listener
    until("it is gone", || one.is_gone(2)).await;
    one.stop().await;
}

/// Answers each question with itself, after `pause`.
struct Repeats {
    pause: Duration,
}

impl PeerQuestions for Repeats {
    fn answer(&self, from: u64, question: Bytes) -> BoxFuture<'static, Bytes> {
        let pause = self.pause;
        Box::pin(async move {
            tokio::time::sleep(pause).await;
            [&from.to_le_bytes(), &question[..]].concat().into()
        })
    }
}

async fn ask(node: &LinkNode, address: &str) -> Result<PeerAnswer, AskError> {
    node.peers.ask(address, Bytes::from_static(b"who?"), Duration::from_secs(2)).await
}

fn failed(answer: Result<PeerAnswer, AskError>) -> String {
    match answer {
        Err(AskError::Failed { reason, .. }) => reason,
        other => panic!("{other:?} is no failure"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_address_alone_is_known_answers_a_question_and_tells_its_identity() {
    let net = Arc::default();
    let (one, two) = (node(&net, 1), node(&net, 2));
    connected(&one, 2).await;
    let noticed = one.heard.notices.lock().len() + two.heard.notices.lock().len();
    failed(ask(&one, "2").await); // nobody answers yet
    two.peers.answer_with(Arc::new(Repeats { pause: Duration::ZERO }));
    let body = [&1u64.to_le_bytes()[..], b"who?"].concat().into();
    assert_eq!(ask(&one, "2").await, Ok(PeerAnswer { node: 2, body }));
    assert_eq!(one.heard.notices.lock().len() + two.heard.notices.lock().len(), noticed, "the links are left alone");
    assert!(one.peers.is_connected(2));
    assert_eq!(ask(&one, "1").await, Err(AskError::Own("1".to_owned())));
    two.peers.answer_with(Arc::new(Repeats { pause: Duration::from_secs(10) }));
    assert_eq!(failed(ask(&one, "2").await), "no answer in time");
    failed(ask(&one, "3").await);
    let long = one.peers.ask("2", vec![0; 100_000].into(), Duration::from_secs(2)).await;
    assert!(failed(long).contains("too long"));
}

#[tokio::test(start_paused = true)]
async fn strangers_and_copies_of_a_node_get_no_answer() {
    let net = Arc::default();
    let one = node(&net, 1);
    one.peers.answer_with(Arc::new(Repeats { pause: Duration::ZERO }));
    let base = peers_options(2, 20);
    let foreign = node_with(&net, PeersOptions { cluster: 6, ..base.clone() }, false);
    assert!(failed(ask(&foreign, "1").await).contains("another cluster"));
    net.leave(2);
    let stranger = node_with(&net, PeersOptions { secret: Bytes::from_static(b"guessed"), ..base }, false);
    assert!(failed(ask(&stranger, "1").await).contains("secret"));
    let (heard, wires) = (Arc::new(Applied::default()), net.join(9));
    let copy = Peers::start(peers_options(1, 99), wires, heard);
    let asked = copy.ask("1", Bytes::new(), Duration::from_secs(2)).await;
    assert!(failed(asked).contains("copied"));
}

//! Unusual, numerous or faulty clients, byte by byte over real sockets.
use leveret_amqp091::codec::frame;
use leveret_node::{Broker, Caller, Limits, Options, StorageOptions};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

struct Served {
    broker: Broker,
    at: SocketAddr,
    stop: CancellationToken,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.cancel();
        self.broker.stop();
    }
}

async fn serve_with(limits: Limits) -> Served {
    let (broker, stop) = (Broker::start(Options { limits, ..Options::default() }), CancellationToken::new());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(leveret_amqp091::serve(listener, broker.clone(), stop.clone()));
    Served { broker, at, stop }
}

async fn serve() -> Served {
    serve_with(Limits::default()).await
}

struct Client {
    socket: TcpStream,
    received: Vec<u8>,
}

/// A frame that arrived: kind, channel, payload.
type Received = (u8, u16, Vec<u8>);

impl Client {
    /// Returns a client that has sent its protocol header and received `connection.start`.
    async fn begin(served: &Served) -> Self {
        let mut client = Self { socket: TcpStream::connect(served.at).await.unwrap(), received: Vec::new() };
        client.send(b"AMQP\0\0\x09\x01").await;
        client.expect((10, 10)).await;
        client
    }

    /// Returns a client that has opened its connection with this `channel_max`.
    async fn open(served: &Served, channel_max: u16) -> Self {
        let mut client = Self::begin(served).await;
        client.method(0, (10, 11), &start_ok("PLAIN", b"\0guest\0guest")).await;
        client.expect((10, 30)).await;
        client.method(0, (10, 31), &[&channel_max.to_be_bytes()[..], &[0, 2, 0, 0, 0, 0]].concat()).await;
        client.method(0, (10, 40), b"\x01/\0\0").await;
        client.expect((10, 41)).await;
        client
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).await.unwrap();
    }

    async fn method(&mut self, channel: u16, (class, id): (u16, u16), arguments: &[u8]) {
        let payload = [&class.to_be_bytes()[..], &id.to_be_bytes(), arguments].concat();
        self.send(&framed(1, channel, &payload)).await;
    }

    /// Returns the next frame, or `None` at the end.
    async fn next(&mut self) -> Option<Received> {
        let read = async {
            loop {
                if let Some(frame) = frame::parse(&self.received, 0).unwrap() {
                    let got = (self.received[0], frame.channel, frame.payload.to_vec());
                    let used = frame.len;
                    self.received.drain(..used);
                    return Some(got);
                }
                if self.socket.read_buf(&mut self.received).await.unwrap_or(0) == 0 {
                    return None;
                }
            }
        };
        timeout(PATIENCE, read).await.expect("an answer or the end")
    }

    /// Returns the arguments of the next frame, which has to be this method.
    async fn expect(&mut self, (class, id): (u16, u16)) -> Vec<u8> {
        let (kind, _, payload) = self.next().await.unwrap_or_else(|| panic!("the end instead of {class}.{id}"));
        let ids = [&class.to_be_bytes()[..], &id.to_be_bytes()].concat();
        assert_eq!((kind, &payload[..4]), (1, &ids[..]), "{}", payload.escape_ascii());
        payload[4..].to_vec()
    }

    /// Returns code, text and cause of the `connection.close` or `channel.close` that comes next.
    async fn closed(&mut self, ids: (u16, u16)) -> (u16, String, (u16, u16)) {
        let arguments = self.expect(ids).await;
        let text = arguments[3..3 + usize::from(arguments[2])].to_vec();
        let cause = &arguments[3 + text.len()..];
        let number = |at: &[u8]| u16::from_be_bytes([at[0], at[1]]);
        (number(&arguments), String::from_utf8(text).unwrap(), (number(cause), number(&cause[2..])))
    }

    async fn open_channel(&mut self, channel: u16) {
        self.method(channel, (20, 10), &[0]).await;
        self.expect((20, 11)).await;
    }
}

fn framed(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&[kind][..], &channel.to_be_bytes(), &length, payload, &[frame::END]].concat()
}

/// Returns `connection.start-ok` of a client that can be told of a wrong login.
fn start_ok(mechanism: &str, response: &[u8]) -> Vec<u8> {
    let capability = b"\x1cauthentication_failure_closet\x01";
    let entry = [&b"\x0ccapabilitiesF"[..], &(capability.len() as u32).to_be_bytes(), capability].concat();
    plain_start_ok(&entry, mechanism, response)
}

fn plain_start_ok(properties: &[u8], mechanism: &str, response: &[u8]) -> Vec<u8> {
    let length = |bytes: &[u8]| (bytes.len() as u32).to_be_bytes();
    let mechanism = [&[mechanism.len() as u8], mechanism.as_bytes()].concat();
    [&length(properties)[..], properties, &mechanism, &length(response), response, b"\x05en_US"].concat()
}

const HEARTBEAT: [u8; 8] = [8, 0, 0, 0, 0, 0, 0, frame::END];
const PATIENCE: Duration = Duration::from_secs(30);
/// The interval at which conditions are checked.
const POLL: Duration = Duration::from_millis(10);

#[tokio::test]
async fn only_few_heartbeats_are_accepted_before_the_login() {
    let served = serve().await;
    let mut patient = Client::begin(&served).await;
    patient.send(&HEARTBEAT.repeat(8)).await;
    patient.method(0, (10, 11), &start_ok("PLAIN", b"\0guest\0guest")).await;
    patient.expect((10, 30)).await;
    let mut flood = Client::begin(&served).await;
    flood.send(&HEARTBEAT.repeat(9)).await;
    assert_eq!(flood.closed((10, 50)).await.0, 505);
}

#[tokio::test]
async fn frames_before_the_login_are_methods_on_channel_0() {
    let served = serve().await;
    for (bytes, code) in [
        (framed(3, 0, b"body"), 505),
        (framed(1, 1, b"\0\x14\0\x0a\0"), 505),
        (framed(8, 1, b""), 505),
        (framed(1, 0, b"\0\x0a\0\x28\x01/\0\0"), 503),
        (b"\x01\0\0\0\x01\0\0".to_vec(), 501),
    ] {
        let mut client = Client::begin(&served).await;
        client.send(&bytes).await;
        assert_eq!(client.closed((10, 50)).await.0, code, "{}", bytes.escape_ascii());
    }
}

#[tokio::test]
async fn amqplain_is_offered_and_accepted() {
    let served = serve().await;
    let mut client = Client { socket: TcpStream::connect(served.at).await.unwrap(), received: Vec::new() };
    client.send(b"AMQP\0\0\x09\x01").await;
    let start = client.expect((10, 10)).await;
    assert!(start.ends_with(b"\0\0\0\x0ePLAIN AMQPLAIN\0\0\0\x05en_US"), "{}", start.escape_ascii());
    let response = b"\x05LOGINS\0\0\0\x05guest\x08PASSWORDS\0\0\0\x05guest";
    client.method(0, (10, 11), &start_ok("AMQPLAIN", response)).await;
    client.expect((10, 30)).await;
    client.method(0, (10, 31), b"\x07\xff\0\x02\0\0\0\0").await;
    client.method(0, (10, 40), b"\x01/\0\0").await;
    client.expect((10, 41)).await;
    assert_eq!(served.broker.connections()[0].client.mechanism, "AMQPLAIN");
}

#[tokio::test]
async fn malformed_logins_are_dropped_and_wrong_ones_answered_if_the_client_understands() {
    let served = serve().await;
    for (mechanism, response) in [("SCRAM\r\nforged", &b"x"[..]), ("PLAIN", b"guest"), ("AMQPLAIN", b"\0guest\0guest")]
    {
        let mut client = Client::begin(&served).await;
        client.method(0, (10, 11), &start_ok(mechanism, response)).await;
        assert_eq!(client.next().await, None, "{mechanism}");
    }
    let (mut told, mut silent) = (Client::begin(&served).await, Client::begin(&served).await);
    let response = b"\0gu\xe9st\0wrong";
    told.method(0, (10, 11), &start_ok("PLAIN", response)).await;
    silent.method(0, (10, 11), &plain_start_ok(b"", "PLAIN", response)).await;
    let (code, text, cause) = told.closed((10, 50)).await;
    assert_eq!((code, cause), (403, (10, 11)));
    assert_eq!(
        text,
        "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. For details see the broker logfile."
    );
    assert_eq!(silent.next().await, None);
}

#[tokio::test]
async fn a_client_beyond_the_limit_is_told_and_its_place_becomes_free() {
    let served = serve_with(Limits { connections_max: 1, ..Limits::default() }).await;
    let first = Client::open(&served, 2047).await;
    let mut second = Client::begin(&served).await;
    second.method(0, (10, 11), &start_ok("PLAIN", b"\0guest\0guest")).await;
    second.expect((10, 30)).await;
    second.method(0, (10, 31), b"\x07\xff\0\x02\0\0\0\0").await;
    second.method(0, (10, 40), b"\x01/\0\0").await;
    let (code, text, _) = second.closed((10, 50)).await;
    assert_eq!(code, 530);
    assert_eq!(text, "NOT_ALLOWED - connection refused: node connection limit (1) is reached");
    drop((first, second));
    until(|| served.broker.places_taken() == (0, 0)).await;
    Client::open(&served, 2047).await;
}

#[tokio::test]
async fn silent_clients_have_places_of_their_own() {
    let served = serve_with(Limits { half_open_connections_max: 3, ..Limits::default() }).await;
    let open = Client::open(&served, 2047).await;
    let mut silent = Vec::new();
    for _ in 0..3 {
        silent.push(TcpStream::connect(served.at).await.unwrap());
    }
    until(|| served.broker.places_taken() == (1, 3)).await;
    // If too many connect at once, the newcomer is closed. Later the oldest gives way.
    let came_in = async {
        loop {
            let mut newcomer = Client { socket: TcpStream::connect(served.at).await.unwrap(), received: Vec::new() };
            let _ = newcomer.socket.write_all(b"AMQP\0\0\x09\x01").await;
            if newcomer.next().await.is_some() {
                return newcomer;
            }
            tokio::time::sleep(POLL).await;
        }
    };
    let newcomer = timeout(PATIENCE, came_in).await.expect("a client comes in beside silent ones");
    let mut end = [0; 1];
    assert_eq!(timeout(PATIENCE, silent[0].read(&mut end)).await.unwrap().unwrap_or(0), 0, "the oldest is closed");
    assert_eq!(served.broker.places_taken(), (1, 3));
    drop((open, silent, newcomer));
    until(|| served.broker.places_taken() == (0, 0)).await;
}

async fn until(mut holds: impl FnMut() -> bool) {
    let holds = async {
        while !holds() {
            tokio::time::sleep(POLL).await;
        }
    };
    timeout(PATIENCE, holds).await.expect("it comes true");
}

#[tokio::test]
async fn channel_max_bounds_the_count_of_channels_and_not_their_numbers() {
    let served = serve().await;
    let mut client = Client::open(&served, 2).await;
    client.open_channel(65_535).await;
    client.open_channel(7).await;
    client.method(7, (20, 40), b"\0\xc8\0\0\0\0\0").await;
    client.expect((20, 41)).await;
    client.open_channel(9000).await;
    client.method(8, (20, 10), &[0]).await;
    let (code, text, _) = client.closed((10, 50)).await;
    assert_eq!(code, 530);
    assert_eq!(text, "NOT_ALLOWED - number of channels opened (2) has reached the negotiated channel_max (2)");
}

#[tokio::test]
async fn a_channel_that_waits_to_be_closed_counts() {
    let served = serve().await;
    let mut client = Client::open(&served, 1).await;
    client.open_channel(1).await;
    client.method(1, (60, 80), &[0, 0, 0, 0, 0, 0, 0, 9, 0]).await;
    client.closed((20, 40)).await;
    client.method(1, (20, 41), &[]).await;
    client.open_channel(1).await;
    client.method(1, (60, 80), &[0, 0, 0, 0, 0, 0, 0, 9, 0]).await;
    client.closed((20, 40)).await;
    client.method(2, (20, 10), &[0]).await;
    assert_eq!(client.closed((10, 50)).await.0, 530);
}

#[tokio::test]
async fn content_on_channel_0_is_an_unexpected_frame() {
    let served = serve().await;
    for kind in [2, 3] {
        let mut client = Client::open(&served, 1).await;
        client.send(&framed(kind, 0, &[0; 20])).await;
        let (code, text, _) = client.closed((10, 50)).await;
        assert_eq!(code, 505);
        assert_eq!(text, "UNEXPECTED_FRAME - expected a method on channel 0, got a frame with content");
    }
}

#[tokio::test]
async fn consumers_of_a_connection_have_a_bound() {
    let served = serve().await;
    let mut client = Client::open(&served, 2047).await;
    client.open_channel(1).await;
    client.open_channel(2).await;
    client.method(1, (50, 10), b"\0\0\x01q\0\0\0\0\0").await;
    client.expect((50, 11)).await;
    let (most, mut consumes) = (16_384, Vec::new());
    for at in 0..most {
        // No tag, no-ack, no-wait: the method is not answered.
        consumes.extend(framed(1, 1 + at % 2, b"\0\x3c\0\x14\0\0\x01q\0\x0a\0\0\0\0"));
    }
    client.send(&consumes).await;
    client.method(2, (60, 20), b"\0\0\x01q\0\x0a\0\0\0\0").await;
    let (code, text, cause) = client.closed((10, 50)).await;
    assert_eq!((code, cause), (530, (60, 20)));
    assert_eq!(text, format!("NOT_ALLOWED - reached maximum ({most}) of consumers per connection"));
}

#[tokio::test]
async fn an_unknown_delivery_tag_names_the_method_that_caused_it() {
    let served = serve().await;
    let mut client = Client::open(&served, 2047).await;
    for (id, multiple) in [(80, 0), (80, 1), (90, 0), (120, 0), (120, 1)] {
        client.open_channel(1).await;
        client.method(1, (60, id), &[0, 0, 0, 0, 0, 0, 0, 9, multiple]).await;
        let (code, text, cause) = client.closed((20, 40)).await;
        assert_eq!((code, &*text, cause), (406, "PRECONDITION_FAILED - unknown delivery tag 9", (60, id)));
        client.method(1, (20, 41), &[]).await;
    }
}

#[tokio::test]
async fn the_memory_for_client_properties_is_bounded() {
    let served = serve().await;
    let mut client = Client::begin(&served).await;
    // An array of seven thousand empty values takes one byte per value on the wire.
    let array = [&b"\x04manyA"[..], &7000u32.to_be_bytes(), &[b'V'; 7000]].concat();
    let properties = [&b"\x07productS\0\0\0\x04mine"[..], &array, b"\x08platformS\0\0\0\x01x"].concat();
    client.method(0, (10, 11), &plain_start_ok(&properties, "PLAIN", b"\0guest\0guest")).await;
    client.expect((10, 30)).await;
    client.method(0, (10, 31), b"\x07\xff\0\x02\0\0\0\0").await;
    client.method(0, (10, 40), b"\x01/\0\0").await;
    client.expect((10, 41)).await;
    let kept = &served.broker.connections()[0].client.properties;
    assert!(kept.memory_bytes() <= 16 << 10, "{} bytes", kept.memory_bytes());
    assert!(kept.get("product").is_some() && kept.get("platform").is_some() && kept.get("many").is_none());
}

/// The frame that a client gets when its last frame ends the connection: `connection.close` on channel 0.
const END: (u16, (u16, u16)) = (0, (10, 50));

/// Returns the bytes of one method frame.
fn method(channel: u16, (class, id): (u16, u16), arguments: &[u8]) -> Vec<u8> {
    framed(1, channel, &[&class.to_be_bytes()[..], &id.to_be_bytes(), arguments].concat())
}

#[tokio::test]
async fn a_wrong_acknowledgement_keeps_no_other_frame_from_being_handled() {
    let served = serve().await;
    let ack = |channel, tag| method(channel, (60, 80), &[0, 0, 0, 0, 0, 0, 0, tag, 0]);
    let close = b"\0\0\0\0\0\0\0";
    for (next, answers) in [
        (method(2, (50, 10), b"\0\0\x01q\0\0\0\0\0"), &[(2, (50, 11)), END][..]),
        (method(2, (60, 90), &[0, 0, 0, 0, 0, 0, 0, 8, 0, 0]), &[(2, (20, 40)), END]),
        (method(2, (60, 40), b"\0\0\x04none\x01q\0"), &[(2, (20, 40)), END]),
        (method(1, (60, 40), b"\0\0\x04none\x01q\0"), &[END]),
        (ack(2, 8), &[(2, (20, 40)), END]),
        (method(1, (20, 40), close), &[(1, (20, 41)), END]),
        (method(0, (10, 50), close), &[(0, (10, 51))]),
        (framed(3, 0, b"no method"), &[END]),
    ] {
        let mut client = Client::open(&served, 2047).await;
        client.open_channel(1).await;
        client.open_channel(2).await;
        client.send(&[ack(1, 9), next.clone(), method(0, (10, 1), &[])].concat()).await;
        for (channel, (class, id)) in [&[(1, (20, 40))], answers].concat() {
            let (_, answered, payload) = client.next().await.expect("an answer");
            let ids = [&class.to_be_bytes()[..], &id.to_be_bytes()].concat();
            assert_eq!(
                (answered, &payload[..4]),
                (channel, &ids[..]),
                "{}: {}",
                next.escape_ascii(),
                payload.escape_ascii()
            );
        }
    }
}

#[tokio::test]
async fn an_access_request_is_answered_with_a_ticket() {
    let served = serve().await;
    let mut client = Client::open(&served, 2047).await;
    client.open_channel(1).await;
    client.method(1, (30, 10), b"\x05/data\x1f").await;
    assert_eq!(client.expect((30, 11)).await, [0, 1]);
}

#[tokio::test]
async fn heartbeats_belong_to_channel_0_and_frames_may_be_eight_bytes_too_long() {
    let served = serve().await;
    let mut client = Client::open(&served, 2047).await;
    client.open_channel(1).await;
    client.method(1, (50, 10), b"\0\0\x01q\0\0\0\0\0").await;
    client.expect((50, 11)).await;
    let body = vec![7; 131_072];
    client.method(1, (60, 40), b"\0\0\0\x01q\0").await;
    client.send(&framed(2, 1, &[&[0, 60, 0, 0][..], &(body.len() as u64).to_be_bytes(), &[0, 0]].concat())).await;
    client.send(&framed(3, 1, &body)).await;
    client.method(1, (60, 70), b"\0\0\x01q\x01").await;
    client.expect((60, 71)).await;
    client.send(&framed(8, 1, b"")).await;
    while let Some((kind, _, payload)) = client.next().await {
        if kind == 1 {
            assert_eq!(payload[..6], [0, 10, 0, 50, 1, 249], "{}", payload.escape_ascii());
            return;
        }
    }
    panic!("no word of what was wrong");
}

#[tokio::test]
async fn properties_that_are_not_utf8_are_delivered_unchanged() {
    let served = serve().await;
    let mut client = Client::open(&served, 2047).await;
    client.open_channel(1).await;
    client.method(1, (50, 10), b"\0\0\x01q\0\0\0\0\0").await;
    client.expect((50, 11)).await;
    // headers, correlation-id and message-id; the second message also has `BCC` between two other headers
    let headers = |entries: &[u8]| [&(entries.len() as u32).to_be_bytes()[..], entries].concat();
    let (latin1, blind, rest) =
        (&b"\x05Gr\xf6\xdfeS\0\0\0\x01\xff"[..], &b"\x03BCCA\0\0\0\x06S\0\0\0\x01q"[..], b"\x01\x80t\x01");
    let properties = |headers: Vec<u8>| [&[0x24, 0x80][..], &headers, b"\x04\xff\xfe\0\x01", b"\x02\xe9\xe8"].concat();
    let sent = [
        (properties(headers(latin1)), properties(headers(latin1))),
        (properties(headers(&[latin1, blind, rest].concat())), properties(headers(&[latin1, rest].concat()))),
    ];
    for (sent, expected) in sent {
        client.method(1, (60, 40), b"\0\0\0\x01q\0").await;
        client.send(&framed(2, 1, &[&[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..], &sent].concat())).await;
        client.method(1, (60, 70), b"\0\0\x01q\x01").await;
        client.expect((60, 71)).await;
        let (_, _, payload) = client.next().await.unwrap();
        assert_eq!(payload[12..], expected, "{}", payload.escape_ascii());
    }
}

#[tokio::test]
async fn the_end_of_a_connection_is_noticed_during_long_work() {
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("a-lot-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let served = serve().await;
    let storage = StorageOptions { segment_bytes: 32 << 20, ..StorageOptions::in_folder(&folder) };
    served.broker.open_storage(storage).await.unwrap();
    let busy = async |burst: u16| {
        let mut client = Client::open(&served, 2047).await;
        client.open_channel(1).await;
        // Each declaration waits for the disk.
        let name = |number| format!("\0\0\x08{burst:02}-{number:05}\x02\0\0\0\0");
        let declares = (0..2000).flat_map(|number| method(1, (50, 10), name(number).as_bytes()));
        client.send(&declares.collect::<Vec<_>>()).await;
        client.expect((50, 11)).await;
        client
    };
    // The first read of the broker contains more than a thousand declarations.
    let was_all_done =
        |burst: u16| served.broker.find_queue(&Caller::system(), "/", &format!("{burst:02}-01000")).is_ok();
    let is_closed = async |mut client: Client| {
        while client.next().await.unwrap().2[..6] != [0, 10, 0, 50, 1, 64] {}
    };

    let client = busy(0).await;
    let connection = served.broker.connections().remove(0);
    served.broker.close_connection(&Caller::system(), &connection, "enough");
    is_closed(client).await;
    assert!(!was_all_done(0), "before the connection was closed");

    let client = busy(1).await;
    client.socket.set_zero_linger().unwrap();
    drop(client);
    while !served.broker.connections().is_empty() {
        tokio::time::sleep(POLL).await;
    }
    assert!(!was_all_done(1), "for a client that had gone");

    let client = busy(2).await;
    served.stop.cancel();
    is_closed(client).await;
    assert!(!was_all_done(2), "before the broker stopped");
    served.broker.close_storage().await;
    std::fs::remove_dir_all(&folder).unwrap();
}

/// A broker that panics where a channel is closed because of a queue named `panic`, as if it had a defect there.
struct Faulty;

impl tracing::Subscriber for Faulty {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        event.record(&mut |_: &tracing::field::Field, value: &dyn std::fmt::Debug| {
            assert!(!format!("{value:?}").contains("no queue 'panic'"), "a fault");
        });
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

#[tokio::test]
async fn a_client_that_closes_at_the_same_time_as_the_broker_is_answered() {
    let served = serve().await;
    let mut client = Client::open(&served, 2047).await;
    let close = framed(1, 0, b"\0\x0a\0\x32\0\xc8\0\0\0\0\0");
    client.send(&[framed(1, 7, b"\0\x3c\0\x28\0\0\0\0\0"), close].concat()).await;
    assert_eq!(client.closed((10, 50)).await.0, 504);
    client.expect((10, 51)).await;
}

#[tokio::test]
async fn a_client_that_never_reads_its_answers_is_sent_away() {
    let served = serve().await;
    let mut client = Client::begin(&served).await;
    client.method(0, (10, 11), &start_ok("PLAIN", b"\0guest\0guest")).await;
    client.expect((10, 30)).await;
    client.method(0, (10, 31), &[7, 255, 0, 2, 0, 0, 0, 1]).await;
    client.method(0, (10, 40), b"\x01/\0\0").await;
    client.expect((10, 41)).await;
    client.open_channel(1).await;
    let declare = framed(1, 1, b"\0\x32\0\x0a\0\0\x01q\0\0\0\0\0").repeat(10_000);
    let floods = async { while client.socket.write_all(&declare).await.is_ok() {} };
    timeout(PATIENCE, floods).await.expect("its connection ends");
}

#[tokio::test]
async fn a_panic_at_a_frame_ends_its_connection_with_541_and_frees_what_it_held() {
    let _faulty = tracing::subscriber::set_default(Faulty);
    let served = serve().await;
    let (mut client, mut other) = (Client::open(&served, 2047).await, Client::open(&served, 2047).await);
    client.open_channel(1).await;
    other.open_channel(1).await;
    client.method(1, (50, 10), b"\0\0\x04held\x04\0\0\0\0").await;
    client.expect((50, 11)).await;
    client.method(1, (50, 10), b"\0\0\x05panic\x01\0\0\0\0").await;
    let (code, text, _) = client.closed((10, 50)).await;
    assert_eq!((code, &text[..17]), (541, "INTERNAL_ERROR - "), "{text}");
    assert!(served.broker.find_queue(&Caller::system(), "/", "held").is_err(), "its exclusive queue is gone");
    other.method(1, (50, 10), b"\0\0\x04held\0\0\0\0\0").await;
    other.expect((50, 11)).await;
}

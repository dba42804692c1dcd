//! Declarations, bindings and deletions as a client sees them on the wire, with frames written and read by hand.
use leveret_model::table::{FieldTable, FieldValue};
use leveret_model::wire::table;
use leveret_node::{Broker, Options};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};

/// A client with one channel, and the broker that it is connected to.
struct Client {
    socket: TcpStream,
    _stop: DropGuard,
}

type Ids = (u16, u16);

const DELIVERY: Ids = (60, 60);
const CHANNEL_CLOSE: Ids = (20, 40);

fn short(text: &[u8]) -> Vec<u8> {
    [&[text.len() as u8][..], text].concat()
}

fn long(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes()[..], bytes].concat()
}

fn encoded(arguments: &[(&str, FieldValue)]) -> Vec<u8> {
    let mut out = Vec::new();
    table::encode(&mut out, &arguments.iter().cloned().collect());
    out
}

impl Client {
    async fn connect() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        tokio::spawn(leveret_amqp091::serve(listener, Broker::start(Options::default()), stop.clone()));
        let mut client = Self { socket: TcpStream::connect(address).await.unwrap(), _stop: stop.drop_guard() };
        client.socket.write_all(b"AMQP\0\0\x09\x01").await.unwrap();
        assert_eq!(client.next().await.0, (10, 10));
        let capabilities = FieldTable::from_iter([("consumer_cancel_notify", FieldValue::Boolean(true))]);
        let properties = encoded(&[("capabilities", FieldValue::Table(capabilities))]);
        let start_ok = [properties, short(b"PLAIN"), long(b"\0guest\0guest"), short(b"en_US")].concat();
        client.send_on(0, (10, 11), &start_ok).await;
        assert_eq!(client.next().await.0, (10, 30));
        client.send_on(0, (10, 31), &[0, 10, 0, 2, 0, 0, 0, 0]).await;
        client.send_on(0, (10, 40), &[short(b"/"), vec![0, 0]].concat()).await;
        assert_eq!(client.next().await.0, (10, 41));
        client.open_channel().await;
        client
    }

    async fn open_channel(&mut self) {
        assert_eq!(self.call((20, 10), &[0]).await.0, (20, 11));
    }

    async fn frame(&mut self, kind: u8, channel: u16, payload: &[u8]) {
        let head = [&[kind][..], &channel.to_be_bytes(), &(payload.len() as u32).to_be_bytes()].concat();
        self.socket.write_all(&[&head, payload, &[0xce]].concat()).await.unwrap();
    }

    async fn send_on(&mut self, channel: u16, (class, method): Ids, arguments: &[u8]) {
        let payload = [&class.to_be_bytes()[..], &method.to_be_bytes(), arguments].concat();
        self.frame(1, channel, &payload).await;
    }

    /// Returns the next method and its arguments.
    async fn next(&mut self) -> (Ids, Vec<u8>) {
        loop {
            let mut head = [0; 7];
            let read = tokio::time::timeout(Duration::from_secs(30), self.socket.read_exact(&mut head));
            read.await.expect("the broker answers in time").unwrap();
            let mut payload = vec![0; u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize + 1];
            self.socket.read_exact(&mut payload).await.unwrap();
            if head[0] == 1 {
                payload.pop();
                let ids = [u16::from_be_bytes([payload[0], payload[1]]), u16::from_be_bytes([payload[2], payload[3]])];
                return (ids.into(), payload.split_off(4));
            }
        }
    }

    async fn call(&mut self, ids: Ids, arguments: &[u8]) -> (Ids, Vec<u8>) {
        self.send_on(1, ids, arguments).await;
        self.next().await
    }

    async fn declare_queue(&mut self, name: &[u8], arguments: &[(&str, FieldValue)]) -> (Ids, Vec<u8>) {
        let durable = 2;
        self.call((50, 10), &[vec![0, 0], short(name), vec![durable], encoded(arguments)].concat()).await
    }

    async fn declare_exchange(&mut self, name: &[u8], kind: &[u8]) {
        let arguments = [vec![0, 0], short(name), short(kind), vec![0], encoded(&[])].concat();
        assert_eq!(self.call((40, 10), &arguments).await.0, (40, 11));
    }

    async fn bind(&mut self, queue: &[u8], exchange: &[u8], key: &[u8]) {
        let arguments = [vec![0, 0], short(queue), short(exchange), short(key), vec![0], encoded(&[])].concat();
        assert_eq!(self.call((50, 20), &arguments).await.0, (50, 21));
    }

    async fn consume(&mut self, queue: &[u8], arguments: &[(&str, FieldValue)]) {
        let no_ack = 2;
        let arguments = [vec![0, 0], short(queue), short(b"tag"), vec![no_ack], encoded(arguments)].concat();
        assert_eq!(self.call((60, 20), &arguments).await.0, (60, 21));
    }

    /// Publishes an empty message with these headers.
    async fn publish(&mut self, exchange: &[u8], key: &[u8], headers: &[(&str, FieldValue)]) {
        self.send_on(1, (60, 40), &[vec![0, 0], short(exchange), short(key), vec![0]].concat()).await;
        let has_headers = 1u16 << 13;
        let content = [&60u16.to_be_bytes()[..], &[0; 2], &[0; 8], &has_headers.to_be_bytes(), &encoded(headers)];
        self.frame(2, 1, &content.concat()).await;
    }

    /// Returns the text with which the channel is closed, and opens the channel again.
    async fn refusal(&mut self, (ids, arguments): (Ids, Vec<u8>)) -> (u16, String) {
        assert_eq!(ids, CHANNEL_CLOSE);
        let text = String::from_utf8(arguments[3..3 + usize::from(arguments[2])].to_vec()).unwrap();
        self.send_on(1, (20, 41), &[]).await;
        self.open_channel().await;
        (u16::from_be_bytes([arguments[0], arguments[1]]), text)
    }
}

fn keys(keys: &[&str]) -> FieldValue {
    FieldValue::Array(keys.iter().map(|key| FieldValue::from(*key)).collect())
}

#[tokio::test]
async fn the_answer_to_a_deletion_comes_before_the_consumers_cancellation() {
    let mut client = Client::connect().await;
    client.declare_queue(b"q", &[]).await;
    client.consume(b"q", &[]).await;
    let (answer, _) = client.call((50, 40), &[vec![0, 0], short(b"q"), vec![0]].concat()).await;
    assert_eq!(answer, (50, 41));
    let (cancelled, tag) = client.next().await;
    assert_eq!((cancelled, &tag[..4]), ((60, 30), &short(b"tag")[..]));
    // The consumer tag is free again.
    client.declare_queue(b"q", &[]).await;
    client.consume(b"q", &[("x-cancel-on-ha-failover", FieldValue::Boolean(true))]).await;
}

#[tokio::test]
async fn names_are_declared_without_line_breaks() {
    let mut client = Client::connect().await;
    let (answer, arguments) = client.declare_queue(b"a\r\nb\n", &[]).await;
    assert_eq!((answer, &arguments[..3]), ((50, 11), &short(b"ab")[..]));
    // An empty queue name stands for the queue declared last.
    client.declare_exchange(b"e\n", b"fanout").await;
    client.bind(b"", b"e\r", b"").await;
    client.consume(b"ab", &[]).await;
    client.publish(b"e", b"", &[]).await;
    assert_eq!(client.next().await.0, DELIVERY);
    let (_, arguments) = client.declare_queue(b"\n", &[]).await;
    assert_eq!(&arguments[1..9], b"amq.gen-");
}

#[tokio::test]
async fn refusals_have_the_words_of_rabbitmq() {
    let mut client = Client::connect().await;
    for (name, kind, expected) in [
        (&b""[..], "quorum", "PRECONDITION_FAILED - Cannot declare a server-named queue for type rabbit_quorum_queue"),
        (
            b"q",
            "foo",
            "PRECONDITION_FAILED - invalid arg 'x-queue-type' for queue 'q' in vhost '/': \"unsupported queue type 'foo'\"",
        ),
    ] {
        let refused = client.declare_queue(name, &[("x-queue-type", kind.into())]).await;
        assert_eq!(client.refusal(refused).await, (406, expected.to_owned()));
    }
    let idle = [("x-queue-mode", "lazy".into()), ("x-ha-policy", "all".into())];
    assert_eq!(client.declare_queue(b"q", &idle).await.0, (50, 11));
}

#[tokio::test]
async fn cc_and_bcc_are_routed_at_every_exchange() {
    let mut client = Client::connect().await;
    client.declare_exchange(b"d", b"direct").await;
    client.declare_exchange(b"t", b"topic").await;
    client.declare_queue(b"q", &[]).await;
    let bound = [vec![0, 0], short(b"t"), short(b"d"), short(b"k1"), vec![0], encoded(&[])].concat();
    assert_eq!(client.call((40, 30), &bound).await.0, (40, 31));
    client.bind(b"q", b"t", b"k2").await;
    client.consume(b"q", &[]).await;
    client.publish(b"d", b"", &[("CC", keys(&["k1"])), ("BCC", keys(&["k2"]))]).await;
    let (ids, arguments) = client.next().await;
    let names = [short(b"d"), short(b"")].concat();
    assert_eq!((ids, arguments.ends_with(&names)), (DELIVERY, true));
    for (headers, expected) in [
        (("CC", keys(&[&".".repeat(120_000)])), "header 'CC' names a key of 120000 bytes"),
        (("BCC", keys(&["k"; 1_025])), "1025 keys, more than 1024"),
    ] {
        client.publish(b"d", b"k1", &[headers]).await;
        let refused = client.next().await;
        let (code, text) = client.refusal(refused).await;
        assert!(code == 406 && text.contains(expected), "{code} {text}");
    }
}

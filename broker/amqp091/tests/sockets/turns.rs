//! The order in which consumers are served under a limit of the whole channel, as a client sees it over a real socket.
use leveret_node::{Broker, Options};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// A broker that serves until it is dropped.
struct Served {
    address: SocketAddr,
    broker: Broker,
    stop: CancellationToken,
    _runtime: tokio::runtime::Runtime,
}

impl Served {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (broker, stop) = (runtime.block_on(async { Broker::start(Options::default()) }), CancellationToken::new());
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(leveret_amqp091::serve(listener, broker.clone(), stop.clone()));
        Self { address, broker, stop, _runtime: runtime }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.cancel();
        self.broker.stop();
    }
}

/// A client that writes frames by hand.
struct Client {
    socket: TcpStream,
    /// Frames that are sent together.
    out: Vec<u8>,
}

/// A method that the server sent: class and method, arguments.
type Sent = ((u16, u16), Vec<u8>);

impl Client {
    fn connect(served: &Served) -> Self {
        let socket = TcpStream::connect(served.address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut client = Self { socket, out: b"AMQP\0\0\x09\x01".to_vec() };
        client.method(0, (10, 11), &[b"\0\0\0\0\x05PLAIN\0\0\0\x0c\0guest\0guest\x05en_US"]);
        client.method(0, (10, 31), &[&2047u16.to_be_bytes(), &131_072u32.to_be_bytes(), &0u16.to_be_bytes()]);
        client.method(0, (10, 40), &[&short("/"), b"\0\0"]);
        client.method(1, (20, 10), &[b"\0"]);
        client.until((20, 11));
        client
    }

    fn frame(&mut self, kind: u8, channel: u16, payload: &[u8]) {
        self.out.push(kind);
        self.out.extend(channel.to_be_bytes());
        self.out.extend((payload.len() as u32).to_be_bytes());
        self.out.extend_from_slice(payload);
        self.out.push(0xce);
    }

    fn method(&mut self, channel: u16, ids: (u16, u16), arguments: &[&[u8]]) {
        let payload = [&ids.0.to_be_bytes()[..], &ids.1.to_be_bytes(), &arguments.concat()].concat();
        self.frame(1, channel, &payload);
    }

    fn flush(&mut self) {
        self.socket.write_all(&self.out).unwrap();
        self.out.clear();
    }

    /// Returns the next method that the server sends; contents are skipped.
    fn next(&mut self) -> Sent {
        self.flush();
        loop {
            let mut head = [0; 7];
            self.socket.read_exact(&mut head).unwrap();
            let mut payload = vec![0; u32::from_be_bytes(head[3..].try_into().unwrap()) as usize + 1];
            self.socket.read_exact(&mut payload).unwrap();
            if head[0] == 1 {
                let id = |at: usize| u16::from_be_bytes([payload[at], payload[at + 1]]);
                return ((id(0), id(2)), payload[4..].to_vec());
            }
        }
    }

    /// Reads up to this method. Deliveries before it are skipped.
    fn until(&mut self, ids: (u16, u16)) {
        while self.next().0 != ids {}
    }

    /// Returns the consumer tag and the delivery tag of the next delivery.
    fn delivery(&mut self) -> (String, u64) {
        loop {
            if let ((60, 60), arguments) = self.next() {
                let end = 1 + usize::from(arguments[0]);
                let tag = u64::from_be_bytes(arguments[end..end + 8].try_into().unwrap());
                return (String::from_utf8(arguments[1..end].to_vec()).unwrap(), tag);
            }
        }
    }

    fn limit(&mut self, limit: u16) {
        self.set_limit(limit);
        self.until((60, 11));
    }

    fn set_limit(&mut self, limit: u16) {
        self.method(1, (60, 10), &[&[0; 4], &limit.to_be_bytes(), &[1]]);
    }

    /// Declares a queue and publishes messages to it.
    fn queue(&mut self, name: &str, messages: usize) {
        self.method(1, (50, 10), &[&[0; 2], &short(name), &[0], &[0; 4]]);
        self.until((50, 11));
        for _ in 0..messages {
            self.method(1, (60, 40), &[&[0; 2], &short(""), &short(name), &[0]]);
            self.frame(2, 1, &[&60u16.to_be_bytes()[..], &[0; 2], &0u64.to_be_bytes(), &[0; 2]].concat());
        }
    }

    fn consume(&mut self, queue: &str, tag: &str) {
        self.method(1, (60, 20), &[&[0; 2], &short(queue), &short(tag), &[0], &[0; 4]]);
    }

    fn acknowledge(&mut self, tag: u64, multiple: bool) {
        self.method(1, (60, 80), &[&tag.to_be_bytes(), &[u8::from(multiple)]]);
    }

    /// Returns the number of deliveries of each consumer; every `each` of them are acknowledged together.
    fn deliveries(&mut self, count: usize, each: usize) -> BTreeMap<String, usize> {
        let mut by_consumer = BTreeMap::new();
        for at in 1..=count {
            let (consumer, tag) = self.delivery();
            *by_consumer.entry(consumer).or_default() += 1;
            if at % each == 0 {
                self.acknowledge(tag, each > 1);
            }
        }
        by_consumer
    }
}

fn short(text: &str) -> Vec<u8> {
    [&[text.len() as u8], text.as_bytes()].concat()
}

#[test]
fn queues_take_turns_under_a_limit_of_the_channel() {
    let served = Served::start();
    for (limit, each) in [(1, 1), (10, 1), (10, 10), (7, 3)] {
        let mut client = Client::connect(&served);
        client.limit(limit);
        for queue in ["q1", "q2", "q3"] {
            client.method(1, (50, 40), &[&[0; 2], &short(queue), &[0]]);
            client.queue(queue, 100);
        }
        ["q1", "q2", "q3"].iter().for_each(|queue| client.consume(queue, queue));
        // The first consumer has the channel to itself until the others subscribe.
        let seen = client.deliveries(99, each);
        assert!(
            seen.len() == 3 && seen.values().all(|&count| count >= 25),
            "limit {limit}, {each} at a time: {seen:?}"
        );
    }
}

#[test]
fn consumers_of_a_queue_take_turns_under_a_limit_of_the_channel() {
    let served = Served::start();
    let mut client = Client::connect(&served);
    client.limit(1);
    client.queue("fq", 10);
    ["c1", "c2"].iter().for_each(|tag| client.consume("fq", tag));
    let seen = client.deliveries(10, 1);
    assert_eq!(seen, BTreeMap::from([("c1".to_owned(), 5), ("c2".to_owned(), 5)]));
}

#[test]
fn messages_from_get_do_not_count_against_the_channel_limit() {
    let served = Served::start();
    let mut client = Client::connect(&served);
    client.limit(1);
    client.queue("g", 3);
    client.method(1, (60, 70), &[&[0; 2], &short("g"), &[0]]);
    client.until((60, 71));
    client.consume("g", "c");
    assert_eq!(client.delivery(), ("c".to_owned(), 2));
    client.acknowledge(2, false);
    assert_eq!(client.delivery(), ("c".to_owned(), 3));
}

#[test]
fn consumers_that_leave_while_they_wait_hold_up_no_others() {
    let served = Served::start();
    let mut client = Client::connect(&served);
    client.limit(1);
    ["l1", "l2", "l3"].iter().for_each(|queue| client.queue(queue, 20));
    ["l1", "l2", "l3"].iter().for_each(|queue| client.consume(queue, queue));
    let (first, tag) = client.delivery();
    assert_eq!(first, "l1");
    for gone in ["l1", "l2"] {
        client.method(1, (60, 30), &[&short(gone), &[0]]);
        client.until((60, 31));
    }
    // The tag of a consumer that left belongs to a consumer of another queue now.
    client.consume("l3", "l2");
    client.acknowledge(tag, false);
    let seen = client.deliveries(20, 1);
    assert_eq!(seen, BTreeMap::from([("l2".to_owned(), 10), ("l3".to_owned(), 10)]));
    // Without the limit no consumer waits.
    client.consume("l1", "l1");
    client.consume("l2", "again");
    client.set_limit(0);
    let rest = client.deliveries(39, 100);
    assert_eq!(rest, BTreeMap::from([("l1".to_owned(), 19), ("again".to_owned(), 20)]));
}

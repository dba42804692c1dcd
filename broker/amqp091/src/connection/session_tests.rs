//! The work that frames count as: a connection that causes much work lets others go first in time.
use super::*;
use crate::channel::routes::Routes;
use crate::codec::frame::END;
use leveret_model::table::{FieldTable, FieldValue};
use leveret_node::catalog::{BindingDeclare, Destination, QueueDeclare};
use leveret_node::{Caller, Hello, Identity, Options, Tuned};

fn session(broker: &Broker) -> Session {
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], 5672));
    let connection = broker.connected(Hello {
        peer: address,
        local: address,
        identity: Identity { user: "guest".into() },
        mechanism: "PLAIN",
        vhost: "/".into(),
        protocol: "AMQP 0-9-1",
        client_properties: FieldTable::default(),
        tuned: Tuned { frame_max: 131_072, channel_max: 2047, heartbeat: 0 },
    });
    Session::new(broker.clone(), connection, Arc::new(Output::new()), Capabilities::default())
}

fn framed(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&[kind][..], &channel.to_be_bytes(), &length, payload, &[END]].concat()
}

fn method(channel: u16, (class, id): (u16, u16), arguments: &[u8]) -> Vec<u8> {
    framed(1, channel, &[&class.to_be_bytes()[..], &id.to_be_bytes(), arguments].concat())
}

/// Handles frames without looking at the clock. Returns whether their work was enough for a look.
async fn is_worth_a_look(session: &mut Session, frames: &[u8]) -> bool {
    session.turn = Turn::new(session.context.broker.clock());
    let mut at = 0;
    while let Some(frame) = frame::parse(&frames[at..], session.context.frame_max).unwrap() {
        let next = at + frame.len;
        at = match session.publish_frame(frames, next, &frame) {
            Some(published) => published.unwrap(),
            None => session.other_frame(frames, next, &frame).await.unwrap(),
        };
    }
    session.flush(frames).await.unwrap();
    assert_eq!(at, frames.len());
    session.turn.is_worth_a_look()
}

/// Returns a session with channel 1 and the queue `q`.
async fn with_queue(broker: &Broker) -> Session {
    let mut session = session(broker);
    let declare = method(1, (50, 10), b"\0\0\x01q\0\0\0\0\0");
    is_worth_a_look(&mut session, &[method(1, (20, 10), &[0]), declare].concat()).await;
    session
}

#[tokio::test]
async fn comparing_a_message_with_many_bindings_is_much_work() {
    let broker = Broker::start(Options::default());
    let mut session = with_queue(&broker).await;
    for number in 0..500 {
        let arguments = FieldTable::from_iter([("number", FieldValue::Int32(number))]);
        let to = Destination::Queue("q".into());
        broker.bind(&Caller::system(), "/", BindingDeclare::new("amq.headers", &to, b"", &arguments)).await.unwrap();
    }
    // With an empty table of headers, and without one.
    for properties in [&[0x20, 0, 0, 0, 0, 0][..], &[0, 0]] {
        let header = framed(2, 1, &[&[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], properties].concat());
        for (publish, is_much) in [
            (&b"\0\0\x0bamq.headers\x01k\0"[..], true),
            (b"\0\0\0\x01q\0", false),
            (b"\0\0\x09amq.topic\x01k\0", false),
        ] {
            let publish = [method(1, (60, 40), publish), header.clone()].concat();
            assert_eq!(is_worth_a_look(&mut session, &publish).await, is_much, "{}", publish.escape_ascii());
            session.publishing.routes = Routes::default();
        }
    }
    broker.stop();
}

#[tokio::test]
async fn acknowledgements_out_of_order_are_more_work_than_those_in_order() {
    let broker = Broker::start(Options::default());
    let mut session = with_queue(&broker).await;
    let message = [method(1, (60, 40), b"\0\0\0\x01q\0"), framed(2, 1, &[&[0, 60][..], &[0; 12]].concat())].concat();
    let get = method(1, (60, 70), b"\0\0\x01q\0");
    is_worth_a_look(&mut session, &[message.repeat(80), get.repeat(80)].concat()).await;
    let ack = |tag: u64| method(1, (60, 80), &[&tag.to_be_bytes()[..], &[0]].concat());
    let in_a_row: Vec<u8> = (1..=50).flat_map(ack).collect();
    assert!(!is_worth_a_look(&mut session, &in_a_row).await);
    let backwards: Vec<u8> = (51..=80).rev().flat_map(ack).collect();
    assert!(is_worth_a_look(&mut session, &backwards).await);
    broker.stop();
}

/// Returns how often other tasks have their turn while `work` is done.
async fn turns_of_others(work: impl Future<Output = ()>) -> usize {
    let (mut work, mut turns) = (std::pin::pin!(work), 0);
    std::future::poll_fn(|context| {
        let done = work.as_mut().poll(context);
        turns += usize::from(done.is_pending());
        done
    })
    .await;
    turns
}

/// Handles all frames.
async fn handle(session: &mut Session, frames: &[u8]) {
    let used = session.handle(frames, &Turns::default(), || None).await;
    assert!(used.is_ok_and(|used| used == frames.len()));
}

/// Returns the frames of a message without properties and body.
fn publish(channel: u16, to: &[u8]) -> Vec<u8> {
    [method(channel, (60, 40), to), framed(2, channel, &[&[0, 60][..], &[0; 12]].concat())].concat()
}

#[tokio::test]
async fn settling_very_many_deliveries_lets_others_have_their_turns() {
    let broker = Broker::start(Options::default());
    let mut session = with_queue(&broker).await;
    let (messages, gets) = (publish(1, b"\0\0\0\x01q\0"), method(1, (60, 70), b"\0\0\x01q\0"));
    for (class_and_id, arguments) in
        [((60, 120), &[0, 0, 0, 0, 0, 0, 0, 0, 3][..]), ((60, 110), &[1]), ((60, 80), &[0, 0, 0, 0, 0, 0, 0, 0, 1])]
    {
        handle(&mut session, &messages.repeat(30_000)).await;
        for _ in 0..30 {
            handle(&mut session, &gets.repeat(1000)).await;
            session.context.output.swap(&mut Vec::new(), &mut crate::connection::output::Between::default());
        }
        let frames = method(1, class_and_id, arguments);
        let turns = turns_of_others(async {
            is_worth_a_look(&mut session, &frames).await;
        });
        assert!(turns.await >= 3, "{class_and_id:?}");
        is_worth_a_look(&mut session, &method(1, (50, 30), b"\0\0\x01q\0")).await;
    }
    broker.stop();
}

#[tokio::test]
async fn a_message_to_very_many_queues_lets_others_have_their_turns_and_keeps_its_order() {
    let broker = Broker::start(Options::default());
    let mut session = with_queue(&broker).await;
    for number in 0..20_000 {
        let declare = QueueDeclare::default();
        let name = format!("m{number:05}");
        broker.declare_queue(&Caller::system(), "/", &name, declare).await.unwrap();
        broker
            .bind(
                &Caller::system(),
                "/",
                BindingDeclare::new("amq.fanout", &Destination::Queue(name), b"", &FieldTable::default()),
            )
            .await
            .unwrap();
    }
    handle(&mut session, &method(1, (85, 10), &[0])).await;
    let frames = publish(1, b"\0\0\x0aamq.fanout\0\0").repeat(2);
    let turns = turns_of_others(handle(&mut session, &frames)).await;
    assert!(turns >= 8, "{turns}");
    let queue = broker.find_queue(&Caller::system(), "/", "m19999").unwrap();
    assert_eq!(queue.look(|queue| queue.depth().ready), 2);
    let bytes = queue.look(|queue| queue.memory_bytes());
    assert!(bytes < 2048, "{bytes} for each queue");
    let mut out = Vec::new();
    session.context.output.swap(&mut out, &mut crate::connection::output::Between::default());
    let confirmed = method(1, (60, 80), &[0, 0, 0, 0, 0, 0, 0, 2, 1]);
    assert!(out.ends_with(&confirmed), "{}", out.escape_ascii());
    broker.stop();
}

#[tokio::test]
async fn large_header_tables_are_much_work_and_hold_the_client_back() {
    let broker = Broker::start(Options::default());
    let mut session = with_queue(&broker).await;
    let entries = b"\x01hV".repeat(3_000);
    let table = [&(entries.len() as u32).to_be_bytes()[..], &entries].concat();
    let header = framed(2, 1, &[&[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0x20, 0], &table[..]].concat());
    let publish = method(1, (60, 40), b"\0\0\0\x01q\0");
    session.publishing.throttle = Throttle::default();
    assert!(is_worth_a_look(&mut session, &[publish, header].concat()).await);
    assert!(
        session.publishing.throttle.has_published(),
        "a publisher of which only headers have come is held back as well"
    );
    broker.stop();
}

/// Returns the frames of a message of one byte. `bits`: 1 for a mandatory publish.
fn publish_byte(channel: u16, exchange: &str, key: &str, bits: u8, body: u8) -> Vec<u8> {
    let mut arguments = vec![0, 0];
    for name in [exchange, key] {
        arguments.push(name.len() as u8);
        arguments.extend_from_slice(name.as_bytes());
    }
    arguments.push(bits);
    let header = framed(2, channel, &[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0]);
    [method(channel, (60, 40), &arguments), header, framed(3, channel, &[body])].concat()
}

/// Returns channel, class and method of each frame that is to be written.
fn answers(session: &Session) -> Vec<(u16, u16, u16)> {
    let (mut buffer, mut between) = (Vec::new(), Default::default());
    session.context.output.swap(&mut buffer, &mut between);
    let (mut found, mut at) = (Vec::new(), 0);
    while let Some(frame) = frame::parse(&buffer[at..], session.context.frame_max).unwrap() {
        at += frame.len;
        if let (FrameKind::Method, [a, b, c, d, ..]) = (frame.kind, frame.payload) {
            found.push((frame.channel, u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d])));
        }
    }
    found
}

#[tokio::test]
async fn publishes_with_many_keys_are_handed_over_before_any_other_method() {
    let broker = Broker::start(Options::default());
    let mut session = with_queue(&broker).await;
    let others = [method(1, (85, 10), &[0]), method(2, (20, 10), &[0]), method(2, (50, 10), b"\0\0\x01r\0\0\0\0\0")];
    is_worth_a_look(&mut session, &others.concat()).await;
    answers(&session);
    let count = |name: &str| broker.find_queue(&Caller::system(), "/", name).unwrap().look(|queue| queue.depth().ready);
    // Three routes and two channels in turn; a different key each time; to no queue, both mandatory and not.
    let mut frames = Vec::new();
    for number in 0..300u16 {
        frames.extend(publish_byte(1 + number % 2, "", ["q", "r", "no"][usize::from(number) % 3], 1, number as u8));
        frames.extend(publish_byte(1, "amq.topic", &format!("key.{number}"), 0, 0));
    }
    assert!(is_worth_a_look(&mut session, &frames).await);
    assert_eq!((count("q"), count("r")), (100, 100));
    let told = answers(&session);
    let returned = told.iter().filter(|(_, class, id)| (*class, *id) == (60, 50)).count();
    assert_eq!(returned, 100);
    assert_eq!(told.last(), Some(&(1, 60, 80)), "all are confirmed at the end, after what was returned");
    // The queue is purged in the middle: earlier messages are in it by then.
    let purge = method(1, (50, 30), b"\0\0\x01q\0");
    let frames =
        [publish_byte(1, "", "q", 0, 1), publish_byte(1, "", "r", 0, 2), purge, publish_byte(1, "", "q", 0, 3)]
            .concat();
    is_worth_a_look(&mut session, &frames).await;
    assert_eq!((count("q"), count("r")), (1, 101));
    // A publish to a missing exchange closes its channel; earlier publishes are kept.
    let frames =
        [publish_byte(2, "", "q", 0, 1), publish_byte(1, "", "r", 0, 2), publish_byte(1, "missing", "k", 0, 3)]
            .concat();
    let turns = Turns::default();
    session.handle(&frames, &turns, || None).await.map_err(|_| "the connection ended").unwrap();
    assert_eq!((count("q"), count("r")), (2, 102));
    assert_eq!(answers(&session).last(), Some(&(1, 20, 40)));
    broker.stop();
}

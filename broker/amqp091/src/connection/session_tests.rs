//! What frames count as work: whoever makes the broker work steps back for others in time.
use super::*;
use crate::codec::frame::END;
use leveret_model::table::{FieldTable, FieldValue};
use leveret_node::catalog::Destination;
use leveret_node::{Hello, Options};

fn session(broker: &Broker) -> Session {
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], 5672));
    let connection = broker.connected(Hello {
        peer: address,
        local: address,
        user: "guest".into(),
        mechanism: "PLAIN",
        vhost: "/".into(),
        protocol: "AMQP 0-9-1",
        client_properties: FieldTable::default(),
        tuned: (131_072, 2047, 0),
    });
    Session::new(broker.clone(), connection, Arc::new(Output::new()), Client::default())
}

fn framed(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&[kind][..], &channel.to_be_bytes(), &length, payload, &[END]].concat()
}

fn method(channel: u16, (class, id): (u16, u16), arguments: &[u8]) -> Vec<u8> {
    framed(1, channel, &[&class.to_be_bytes()[..], &id.to_be_bytes(), arguments].concat())
}

/// Handles frames without a look meanwhile. Whether they were work enough for one.
async fn is_worth_a_look(session: &mut Session, frames: &[u8]) -> bool {
    session.turn = Turn::new(session.broker.clock());
    let mut at = 0;
    while let Some(frame) = frame::parse(&frames[at..], session.frame_max).unwrap() {
        at = session.frame(frames, at + frame.len, &frame).await.unwrap();
    }
    session.flush(frames).unwrap();
    assert_eq!(at, frames.len());
    session.turn.is_worth_a_look()
}

/// A session with channel 1 and the queue `q`.
async fn with_queue(broker: &Broker) -> Session {
    let mut session = session(broker);
    let declare = method(1, (50, 10), b"\0\0\x01q\0\0\0\0\0");
    is_worth_a_look(&mut session, &[method(1, (20, 10), &[0]), declare].concat()).await;
    session
}

#[tokio::test]
async fn a_message_that_is_compared_with_many_bindings_is_much_work() {
    let broker = Broker::start(Options::default());
    let mut session = with_queue(&broker).await;
    for number in 0..500 {
        let arguments = FieldTable::from_iter([("number", FieldValue::Int32(number))]);
        let to = Destination::Queue("q".into());
        broker.bind("/", "amq.headers", to, (b"", &arguments), None).await.unwrap();
    }
    // With an empty table of headers, and without.
    for properties in [&[0x20, 0, 0, 0, 0, 0][..], &[0, 0]] {
        let header = framed(2, 1, &[&[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], properties].concat());
        for (publish, is_much) in [
            (&b"\0\0\x0bamq.headers\x01k\0"[..], true),
            (b"\0\0\0\x01q\0", false),
            (b"\0\0\x09amq.topic\x01k\0", false),
        ] {
            let publish = [method(1, (60, 40), publish), header.clone()].concat();
            assert_eq!(is_worth_a_look(&mut session, &publish).await, is_much, "{}", publish.escape_ascii());
            session.routes = Routes::default();
        }
    }
    broker.stop();
}

#[tokio::test]
async fn acknowledgements_out_of_order_are_much_work_and_those_in_a_row_are_little() {
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

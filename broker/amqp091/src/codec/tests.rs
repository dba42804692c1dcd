//! The codec compared with the bytes of the specification, with itself, and with random bytes.
use super::content::ContentHeader;
use super::encode;
use super::encode::Framing;
use super::frame::{self, FrameError, FrameKind};
use super::ids::MethodId;
use super::method::{self, Ack, CloseMethod, Method, PublishMethod};
use super::reply::ReplyCode;
use leveret_model::properties::{self, Properties};
use leveret_model::table::{FieldTable, FieldValue};
use leveret_model::wire::table;
use proptest::prelude::*;

proptest! {
    #[test]
    fn content_fits_the_receivers_frames(body in prop::collection::vec(any::<u8>(), 0..5000), frame_max in 64u32..2000) {
        let mut bytes = Vec::new();
        encode::content(&mut bytes, Framing { channel: 7, frame_max }, &[0, 0], &body);
        let header = frame::parse(&bytes, 0).unwrap().unwrap();
        prop_assert_eq!((header.kind, header.channel), (FrameKind::Header, 7));
        let parsed = ContentHeader::parse(header.payload).unwrap();
        prop_assert_eq!((parsed.class, parsed.body_size, parsed.properties_raw), (60, body.len() as u64, &[0u8, 0][..]));
        let (mut at, mut together) = (header.len, Vec::new());
        while at < bytes.len() {
            let part = frame::parse(&bytes[at..], frame_max).unwrap().unwrap();
            prop_assert!(part.kind == FrameKind::Body && !part.payload.is_empty());
            together.extend_from_slice(part.payload);
            at += part.len;
        }
        prop_assert_eq!(together, body);
    }

    #[test]
    fn parsing_random_bytes_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        swallow(&bytes);
    }
}

/// Gives the same bytes to every parser.
fn swallow(bytes: &[u8]) {
    let _ = frame::parse(bytes, 131_072);
    let _ = frame::protocol(bytes);
    let _ = method::parse(bytes);
    let _ = method::fast_publish(bytes);
    let _ = method::fast_ack(bytes);
    let _ = ContentHeader::parse(bytes);
    assert_eq!(Properties::parse(bytes).is_ok(), properties::check(bytes).is_ok());
    let _ = properties::without_header(bytes, b"BCC");
    let _ = table::parse(bytes);
    // The same table as the headers of a message: checking it has to be as strict as building it.
    let headers = [&[0x20, 0], bytes].concat();
    assert_eq!(properties::check(&headers).err().map(|_| ()), table::parse(bytes).err().map(|_| ()));
    let _ = table::parse_entries(bytes);
}

/// Payloads of methods as the specification defines them, and the methods that they stand for.
#[expect(clippy::too_many_lines, reason = "a table")]
fn golden() -> Vec<(Vec<u8>, Method<'static>)> {
    let none = FieldTable::default;
    vec![
        (
            b"\0\x0a\0\x0b\0\0\0\0\x05PLAIN\0\0\0\x04\0a\0b\x05en_US".to_vec(),
            Method::ConnectionStartOk {
                client_properties: none(),
                mechanism: "PLAIN",
                response: b"\0a\0b",
                locale: "en_US",
            },
        ),
        (
            b"\0\x0a\0\x1f\x07\xff\0\x02\0\0\0\x3c".to_vec(),
            Method::ConnectionTuneOk { channel_max: 2047, frame_max: 131_072, heartbeat: 60 },
        ),
        (b"\0\x0a\0\x28\x01/\0\0".to_vec(), Method::ConnectionOpen { vhost: "/" }),
        (b"\0\x0a\0\x32\0\xc8\x02OK\0\0\0\0".to_vec(), Method::ConnectionClose(CloseMethod { code: 200, text: "OK" })),
        (b"\0\x14\0\x0a\0".to_vec(), Method::ChannelOpen),
        (b"\0\x1e\0\x0a\x05/data\x1f".to_vec(), Method::AccessRequest),
        (
            b"\0\x28\0\x0a\0\0\x01e\x05topic\x02\0\0\0\0".to_vec(),
            Method::ExchangeDeclare(method::ExchangeDeclareMethod {
                exchange: "e",
                kind: "topic",
                passive: false,
                durable: true,
                auto_delete: false,
                internal: false,
                no_wait: false,
                arguments: none(),
            }),
        ),
        (
            b"\0\x32\0\x0a\0\0\x01q\x0a\0\0\0\x04\x01xt\x01".to_vec(),
            Method::QueueDeclare(method::QueueDeclareMethod {
                queue: "q",
                passive: false,
                durable: true,
                exclusive: false,
                auto_delete: true,
                no_wait: false,
                arguments: FieldTable(Vec::new()),
            }),
        ),
        (
            b"\0\x32\0\x14\0\0\x01q\x01e\x01k\0\0\0\0\0".to_vec(),
            Method::QueueBind(method::QueueBinding {
                queue: "q",
                exchange: "e",
                routing_key: b"k",
                no_wait: false,
                arguments: none(),
            }),
        ),
        (
            b"\0\x32\0\x32\0\0\x01q\x01e\x01k\0\0\0\0".to_vec(),
            Method::QueueUnbind(method::QueueBinding {
                queue: "q",
                exchange: "e",
                routing_key: b"k",
                no_wait: false,
                arguments: none(),
            }),
        ),
        (
            b"\0\x3c\0\x0a\0\0\0\0\0\x0a\x01".to_vec(),
            Method::BasicQos { prefetch_size: 0, prefetch_count: 10, global: true },
        ),
        (
            b"\0\x3c\0\x28\0\0\x01e\x01k\x03".to_vec(),
            Method::BasicPublish(PublishMethod { exchange: "e", routing_key: b"k", mandatory: true, immediate: true }),
        ),
        (b"\0\x3c\0\x50\0\0\0\0\0\0\0\x07\x01".to_vec(), Method::BasicAck(Ack { delivery_tag: 7, multiple: true })),
        (
            b"\0\x3c\0\x78\0\0\0\0\0\0\0\x07\x02".to_vec(),
            Method::BasicNack { delivery_tag: 7, multiple: false, requeue: true },
        ),
        (b"\0\x55\0\x0a\x01".to_vec(), Method::ConfirmSelect { no_wait: true }),
    ]
}

#[test]
fn methods_are_parsed_as_the_specification_defines_them() {
    for (payload, expected) in golden() {
        let mut parsed = method::parse(&payload).unwrap();
        if let Method::QueueDeclare(declare) = &mut parsed
            && !declare.arguments.is_empty()
        {
            assert_eq!(declare.arguments.get("x"), Some(&FieldValue::Boolean(true)));
            declare.arguments = FieldTable::default();
        }
        assert_eq!(parsed, expected);
        // Flags end most methods, and the bytes that follow them are reserved: a payload that is cut off earlier is an
        // error.
        for end in 4..payload.len().saturating_sub(2) {
            if let Err(error) = method::parse(&payload[..end]) {
                assert_eq!(code(error), 502);
            }
        }
    }
    let unknown = method::parse(b"\0\x3c\0\xff").unwrap_err();
    assert_eq!((code(unknown), unknown.id()), (540, MethodId { class: 60, method: 255 }));
    assert_eq!(code(method::parse(b"\0").unwrap_err()), 502);
    let latin1 = method::parse(b"\0\x32\0\x1e\0\0\x01\xe9\0").unwrap_err();
    assert_eq!((code(latin1), latin1.id()), (501, MethodId::QUEUE_PURGE));
}

fn code(error: impl Into<ReplyCode>) -> u16 {
    error.into().number()
}

#[test]
fn fast_and_general_parsing_agree() {
    for (payload, expected) in golden() {
        match expected {
            Method::BasicPublish(publish) => assert_eq!(method::fast_publish(&payload), Some(publish)),
            Method::BasicAck(ack) => assert_eq!(method::fast_ack(&payload), Some(ack)),
            _ => assert!(method::fast_publish(&payload).is_none() && method::fast_ack(&payload).is_none()),
        }
    }
}

#[test]
fn answers_have_the_specifications_bytes() {
    let mut out = Vec::new();
    encode::basic_ack(&mut out, 1, 258, true);
    assert_eq!(out, b"\x01\0\x01\0\0\0\x0d\0\x3c\0\x50\0\0\0\0\0\0\x01\x02\x01\xce");
    out.clear();
    let names =
        encode::Deliver { consumer_tag: b"t", delivery_tag: 3, redelivered: true, exchange: b"e", routing_key: b"k" };
    encode::basic_deliver(&mut out, 2, &names);
    assert_eq!(out, b"\x01\0\x02\0\0\0\x13\0\x3c\0\x3c\x01t\0\0\0\0\0\0\0\x03\x01\x01e\x01k\xce");
    out.clear();
    let text = "x".repeat(300);
    let cause = MethodId::QUEUE_DECLARE;
    encode::channel_close(&mut out, 1, &encode::Close { code: ReplyCode::NotFound, text: &text, cause });
    let frame = frame::parse(&out, 0).unwrap().unwrap();
    assert_eq!((frame.payload.len(), frame.payload[6]), (4 + 2 + 256 + 4, 255));
    out.clear();
    encode::basic_cancel_ok(&mut out, 1, "\u{10ffe9}");
    assert_eq!(out[11..], *b"\x04\xf4\x8f\xbf\xa9\xce", "a name is not taken for bytes");
    out.clear();
    encode::content(&mut out, Framing { channel: 1, frame_max: 0 }, &[0x10, 0, 2], b"hi");
    assert_eq!(out, b"\x02\0\x01\0\0\0\x0f\0\x3c\0\0\0\0\0\0\0\0\0\x02\x10\0\x02\xce\x03\0\x01\0\0\0\x02hi\xce");
}

#[test]
fn frames_are_refused_before_they_have_arrived_in_full() {
    assert_eq!(code(frame::parse(b"\x01\0\x01\xff\xff\xff\xff", 8192).unwrap_err()), 501);
    assert!(matches!(frame::parse(b"\x01\0\x01\0\0\x20\x01", 8192), Err(FrameError::TooLarge { size: 8201, .. })));
    assert_eq!(frame::parse(b"\x01\0\x01\0\0\x20\0", 8192), Ok(None));
    assert_eq!(frame::parse(b"\x05", 8192), Err(FrameError::UnknownKind(5)));
    assert_eq!(frame::parse(b"\x08\0\x01\0\0\0\0\xce", 8192), Err(FrameError::HeartbeatOnChannel(1)));
    assert_eq!(code(FrameError::HeartbeatOnChannel(1)), 505);
    assert_eq!(frame::parse(b"\x08\0\0\0\0\0\x01x\xce", 8192), Err(FrameError::BadHeartbeat));
    assert_eq!(frame::parse(b"\x01\0\0\0\0\0\x01a\xcf", 8192), Err(FrameError::BadEnd(0xcf)));
    for kind in [1, 2, 3, 8] {
        for size in 0..=11u8 {
            let mut bytes = vec![kind, 0, 0, 0, 0, 0, size];
            bytes.extend(vec![0; usize::from(size)]);
            for end in 0..bytes.len() {
                assert_eq!(frame::parse(&bytes[..end], 8192), Ok(None), "kind {kind}, size {size}, {end} bytes");
            }
            bytes.push(frame::END);
            if let Ok(Some(frame)) = frame::parse(&bytes, 8192) {
                swallow(frame.payload);
            }
        }
    }
}

/// Valid payloads with bytes changed, cut and doubled at random: 200,000 of them, the same at every run.
#[test]
fn damaged_payloads_never_panic() {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % below.max(1) as u64) as usize
    };
    let mut corpus: Vec<Vec<u8>> = golden().into_iter().map(|(payload, _)| payload).collect();
    let mut framed = Vec::new();
    encode::content(
        &mut framed,
        Framing { channel: 1, frame_max: 0 },
        &[0xff, 0xfc, 1, b'a', 1, b'b', 0, 0, 0, 0],
        b"body",
    );
    corpus.push(framed);
    for _ in 0..200_000 {
        let mut bytes = corpus[random(corpus.len())].clone();
        for _ in 0..=random(4) {
            let at = random(bytes.len());
            match random(4) {
                0 => bytes.truncate(at),
                1 => bytes.extend_from_within(at..),
                _ if bytes.is_empty() => {}
                2 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random(5)],
                _ => bytes[at] = random(256) as u8,
            }
        }
        swallow(&bytes);
    }
}

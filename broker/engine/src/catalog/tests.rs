//! Declarations and their refusals; then random declarations and bindings against a plain list.
use super::*;
use leveret_model::exchange::ExchangeType;
use leveret_model::table::{FieldTable, FieldValue};
use proptest::prelude::*;
use smallvec::SmallVec;
use std::collections::BTreeSet;

fn exchange(kind: ExchangeType) -> ExchangeDeclare {
    let arguments = FieldTable::default();
    ExchangeDeclare { kind, durable: true, auto_delete: false, internal: false, arguments }
}

fn queue(connection: u64, exclusive: bool) -> QueueDeclare {
    let connection = Some(ConnectionId(connection));
    let (arguments, exclusive) = (FieldTable::default(), connection.filter(|_| exclusive));
    QueueDeclare { durable: true, exclusive, auto_delete: false, arguments, server_named: false, connection }
}

fn bind(catalog: &mut Catalog, source: &str, destination: Destination, key: &str) -> Result<bool, Refusal> {
    catalog.bind("/", source, destination, (key.as_bytes(), &FieldTable::default()), None)
}

fn to_queue(name: &str) -> Destination {
    Destination::Queue(name.to_owned())
}

fn to_exchange(name: &str) -> Destination {
    Destination::Exchange(name.to_owned())
}

fn routed(catalog: &Catalog, exchange: &str, key: &str, headers: Option<&FieldTable>) -> BTreeSet<QueueId> {
    let mut queues = SmallVec::new();
    catalog.route("/", exchange, key.as_bytes(), headers, &mut queues).unwrap();
    let found: BTreeSet<_> = queues.iter().copied().collect();
    assert_eq!(found.len(), queues.len(), "a queue was found twice");
    found
}

fn code<T>(result: Result<T, Refusal>) -> u16 {
    result.err().map_or(200, |refusal| refusal.kind.reply_code())
}

#[test]
fn declarations_and_their_refusals() {
    let mut catalog = Catalog::default();
    assert_eq!(catalog.declare_exchange("/", "e", exchange(ExchangeType::Topic)), Ok(true));
    assert_eq!(catalog.declare_exchange("/", "e", exchange(ExchangeType::Topic)), Ok(false));
    let refusal = catalog.declare_exchange("/", "e", exchange(ExchangeType::Direct)).unwrap_err();
    let text = "inequivalent arg 'type' for exchange 'e' in vhost '/': received 'direct' but current is 'topic'";
    assert_eq!((refusal.kind.reply_code(), &*refusal.text), (406, text));
    assert_eq!(catalog.declare_exchange("/", "amq.direct", exchange(ExchangeType::Direct)), Ok(false));
    assert_eq!(code(catalog.declare_exchange("/", "amq.mine", exchange(ExchangeType::Direct))), 403);
    assert_eq!(code(catalog.declare_exchange("/", "", exchange(ExchangeType::Direct))), 403);
    assert_eq!(code(catalog.declare_exchange("other", "e", exchange(ExchangeType::Direct))), 404);
    assert_eq!(code(catalog.delete_exchange("/", "amq.topic", false)), 403);
    assert_eq!(catalog.delete_exchange("/", "missing", false), Ok(false));

    let first = catalog.declare_queue("/", "q", queue(1, true)).unwrap();
    assert!(first.created);
    assert!(!catalog.declare_queue("/", "q", queue(1, true)).unwrap().created);
    assert_eq!(code(catalog.declare_queue("/", "q", queue(2, true))), 405);
    assert_eq!(code(catalog.declare_queue("/", "q", queue(1, false))), 405);
    assert_eq!(code(catalog.queue("/", "q", None)), 405);
    assert_eq!(code(catalog.declare_queue("/", "amq.q", queue(1, false))), 403);
    assert_eq!(catalog.exclusive_queues(ConnectionId(1)), [("/".into(), "q".into())]);
    assert_eq!(catalog.delete_queue("/", "q", Some(ConnectionId(1))), Ok(first.id));
    assert_ne!(catalog.declare_queue("/", "q", queue(1, true)).unwrap().id, first.id);
}

#[test]
fn arguments_that_are_not_honoured_are_refused_by_name() {
    let mut catalog = Catalog::default();
    for (name, value, expected) in [
        ("x-queue-type", "classic".into(), 200),
        ("x-queue-type", "quorum".into(), 406),
        ("x-message-ttl", FieldValue::Int32(1), 406),
        ("note", "kept".into(), 200),
    ] {
        let arguments = FieldTable::from_iter([(name, value)]);
        let result = catalog.declare_queue("/", "q", QueueDeclare { arguments, ..queue(1, false) });
        if expected == 406 {
            assert!(result.as_ref().unwrap_err().text.contains(name), "{result:?}");
        }
        assert_eq!(code(result), expected, "{name}");
    }
}

#[test]
fn deleting_takes_bindings_and_unbound_exchanges_along() {
    let mut catalog = Catalog::default();
    let declared = ExchangeDeclare { auto_delete: true, ..exchange(ExchangeType::Fanout) };
    catalog.declare_exchange("/", "first", declared.clone()).unwrap();
    catalog.declare_exchange("/", "second", declared).unwrap();
    catalog.declare_queue("/", "q", queue(1, false)).unwrap();
    assert_eq!(bind(&mut catalog, "first", to_exchange("second"), ""), Ok(true));
    assert_eq!(bind(&mut catalog, "first", to_exchange("second"), ""), Ok(false));
    assert_eq!(bind(&mut catalog, "second", to_queue("q"), ""), Ok(true));
    assert_eq!(routed(&catalog, "first", "", None).len(), 1);
    assert_eq!(code(catalog.delete_exchange("/", "first", true)), 406);
    catalog.delete_queue("/", "q", None).unwrap();
    assert_eq!(code(catalog.exchange("/", "second")), 404);
    assert_eq!(code(catalog.exchange("/", "first")), 404);
    assert_eq!(catalog.bindings("/").unwrap().count(), 0);
}

#[test]
fn alternates_recipients_and_internal_exchanges() {
    let mut catalog = Catalog::default();
    let arguments = FieldTable::from_iter([("alternate-exchange", FieldValue::from("amq.fanout"))]);
    let declared = ExchangeDeclare { arguments, ..exchange(ExchangeType::Direct) };
    catalog.declare_exchange("/", "e", declared).unwrap();
    assert_eq!(code(catalog.declare_exchange("/", "e", exchange(ExchangeType::Direct))), 406);
    let [a, b, c] = ["a", "b", "c"].map(|name| catalog.declare_queue("/", name, queue(1, false)).unwrap().id);
    bind(&mut catalog, "e", to_queue("a"), "a").unwrap();
    bind(&mut catalog, "amq.fanout", to_queue("b"), "").unwrap();
    assert_eq!(routed(&catalog, "e", "a", None), [a].into());
    assert_eq!(routed(&catalog, "e", "other", None), [b].into());
    let list = FieldValue::Array(vec!["a".into(), "c".into()]);
    let headers = FieldTable::from_iter([("CC", list)]);
    assert_eq!(routed(&catalog, "", "b", Some(&headers)), [a, b, c].into());
    let headers = FieldTable::from_iter([("BCC", FieldValue::from("a"))]);
    let mut queues = SmallVec::new();
    assert_eq!(code(catalog.route("/", "", b"b", Some(&headers), &mut queues)), 406);
    assert_eq!(code(catalog.route("/", "amq.rabbitmq.trace", b"", None, &mut queues)), 403);
    assert_eq!(code(catalog.route("/", "missing", b"", None, &mut queues)), 404);
    assert_eq!(code(bind(&mut catalog, "", to_queue("a"), "a")), 403);
    assert_eq!(code(bind(&mut catalog, "e", to_queue("missing"), "a")), 404);
}

#[derive(Clone, Debug)]
enum Step {
    Bind(u8, u8, u8),
    Unbind(u8, u8, u8),
    DeleteQueue(u8),
    Declare(u8),
}

proptest! {
    #[test]
    fn routing_follows_the_bindings_that_there_are(steps in prop::collection::vec(prop_oneof![
        4 => (0..3u8, 0..4u8, 0..3u8).prop_map(|(e, q, k)| Step::Bind(e, q, k)),
        2 => (0..3u8, 0..4u8, 0..3u8).prop_map(|(e, q, k)| Step::Unbind(e, q, k)),
        1 => (0..4u8).prop_map(Step::DeleteQueue),
        2 => (0..4u8).prop_map(Step::Declare),
    ], 1..60)) {
        const EXCHANGES: [&str; 3] = ["amq.direct", "amq.topic", "amq.fanout"];
        let mut catalog = Catalog::default();
        let mut queues: BTreeMap<u8, QueueId> = BTreeMap::new();
        let mut bound: BTreeSet<(u8, u8, u8)> = BTreeSet::new();
        let none = FieldTable::default();
        for step in steps {
            match step {
                Step::Bind(e, q, k) => {
                    let made = bind(&mut catalog, EXCHANGES[usize::from(e)], to_queue(&q.to_string()), &k.to_string());
                    if queues.contains_key(&q) { prop_assert_eq!(made, Ok(bound.insert((e, q, k)))); } else { prop_assert_eq!(code(made), 404); }
                }
                Step::Unbind(e, q, k) => {
                    let key = k.to_string();
                    let gone = catalog.unbind("/", EXCHANGES[usize::from(e)], &to_queue(&q.to_string()), (key.as_bytes(), &none), None);
                    if queues.contains_key(&q) { prop_assert_eq!(gone, Ok(bound.remove(&(e, q, k)))); } else { prop_assert_eq!(gone, Ok(false)); }
                }
                Step::DeleteQueue(q) => {
                    let deleted = catalog.delete_queue("/", &q.to_string(), None);
                    prop_assert_eq!(deleted.ok(), queues.remove(&q));
                    bound.retain(|(_, queue, _)| *queue != q);
                }
                Step::Declare(q) => {
                    let declared = catalog.declare_queue("/", &q.to_string(), queue(1, false)).unwrap();
                    prop_assert_eq!(declared.created, queues.insert(q, declared.id).is_none());
                }
            }
            prop_assert_eq!(catalog.bindings("/").unwrap().count(), bound.len());
        }
        for (e, name) in EXCHANGES.iter().enumerate() {
            for k in 0..3 {
                let expected: BTreeSet<_> = bound.iter()
                    .filter(|(exchange, _, key)| usize::from(*exchange) == e && (e == 2 || *key == k))
                    .map(|(_, q, _)| queues[q]).collect();
                prop_assert_eq!(routed(&catalog, name, &k.to_string(), None), expected);
            }
        }
    }
}

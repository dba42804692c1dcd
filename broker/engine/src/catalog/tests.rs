//! Declarations and their refusals; then random declarations and bindings, compared with a plain list.
#![allow(unused_must_use)] // these tests ignore most effects of the catalog's mutations
use super::*;
use leveret_model::exchange::ExchangeType;
use leveret_model::refusal::RefusalKind;
use leveret_model::table::{FieldTable, FieldValue};
use proptest::prelude::*;
use smallvec::SmallVec;
use std::collections::BTreeSet;

fn exchange(kind: ExchangeType) -> ExchangeDeclare {
    let arguments = FieldTable::default();
    ExchangeDeclare { kind, durable: true, auto_delete: false, internal: false, arguments }
}

fn queue(exclusive: bool) -> QueueDeclare {
    QueueDeclare { durable: true, exclusive, ..QueueDeclare::default() }
}

const HERE: NodeRun = NodeRun { node: 1, incarnation: 7 };

fn connection(number: u64) -> ConnectionId {
    ConnectionId { run: HERE, number }
}

fn from(number: u64) -> Origin {
    Origin::Connection(connection(number))
}

fn bind(catalog: &mut Catalog, source: &str, destination: Destination, key: &str) -> Result<bool, Refusal> {
    answer(catalog.bind(
        "/",
        BindingDeclare::new(source, &destination, key.as_bytes(), &FieldTable::default()),
        Origin::System,
    ))
}

/// Returns the answer of a mutation, without its effects.
fn answer<T>(change: Result<Change<T>, Refusal>) -> Result<T, Refusal> {
    change.map(|change| change.answer)
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

/// Names the kinds of refusal by the codes that AMQP has for them.
trait ReplyCode {
    fn reply_code(self) -> u16;
}

impl ReplyCode for RefusalKind {
    fn reply_code(self) -> u16 {
        match self {
            Self::AccessRefused => 403,
            Self::NotFound => 404,
            Self::ResourceLocked => 405,
            Self::PreconditionFailed => 406,
            Self::CommandInvalid => 503,
            Self::NotAllowed => 530,
            Self::Stopping => 320,
        }
    }
}

#[test]
fn declarations_and_their_refusals() {
    let mut catalog = Catalog::default();
    assert_eq!(answer(catalog.declare_exchange(HERE, "/", "e", exchange(ExchangeType::Topic))), Ok(true));
    assert_eq!(answer(catalog.declare_exchange(HERE, "/", "e", exchange(ExchangeType::Topic))), Ok(false));
    let refusal = catalog.declare_exchange(HERE, "/", "e", exchange(ExchangeType::Direct)).unwrap_err();
    let text = "inequivalent arg 'type' for exchange 'e' in vhost '/': received 'direct' but current is 'topic'";
    assert_eq!((refusal.kind.reply_code(), &*refusal.text), (406, text));
    assert_eq!(answer(catalog.declare_exchange(HERE, "/", "amq.direct", exchange(ExchangeType::Direct))), Ok(false));
    assert_eq!(code(catalog.declare_exchange(HERE, "/", "amq.mine", exchange(ExchangeType::Direct))), 403);
    assert_eq!(code(catalog.declare_exchange(HERE, "/", "", exchange(ExchangeType::Direct))), 403);
    assert_eq!(code(catalog.declare_exchange(HERE, "other", "e", exchange(ExchangeType::Direct))), 404);
    assert_eq!(code(catalog.delete_exchange("/", "amq.topic", false)), 403);
    assert_eq!(answer(catalog.delete_exchange("/", "missing", false)), Ok(false));

    let first = catalog.declare_queue(HERE, "/", "q", queue(true), from(1)).unwrap().answer;
    assert!(first.created);
    assert!(!catalog.declare_queue(HERE, "/", "q", queue(true), from(1)).unwrap().answer.created);
    assert_eq!(code(catalog.declare_queue(HERE, "/", "q", queue(true), from(2))), 405);
    assert_eq!(code(catalog.declare_queue(HERE, "/", "q", queue(false), from(1))), 405);
    assert_eq!(code(catalog.queue("/", "q", Origin::System, Purpose::Use)), 405);
    assert_eq!(code(catalog.declare_queue(HERE, "/", "amq.q", queue(false), from(1))), 403);
    assert_eq!(catalog.exclusive_queues(connection(1)).collect::<Vec<_>>(), [(&"/".into(), &"q".into())]);
    assert_eq!(answer(catalog.delete_queue("/", "q", first.id)), Ok(()));
    assert_eq!(catalog.exclusive_queues(connection(1)).count(), 0);
    let second = catalog.declare_queue(HERE, "/", "q", queue(true), from(1)).unwrap().answer.id;
    assert_ne!(second, first.id);
    // The name belongs to another queue now.
    assert_eq!(code(catalog.delete_queue("/", "q", first.id)), 404);
    assert_eq!(catalog.queue_id("/", "q"), Some(second));
}

#[test]
fn only_mutations_that_change_something_have_effects() {
    let mut catalog = Catalog::default();
    fn effects<T>(change: Result<Change<T>, Refusal>) -> (usize, bool) {
        let effects = change.unwrap().effects;
        (effects.len(), effects.iter().any(Effect::changes_bindings))
    }
    assert_eq!(effects(catalog.declare_queue(HERE, "/", "q", queue(false), from(1))), (1, false));
    assert_eq!(effects(catalog.declare_queue(HERE, "/", "q", queue(false), from(1))), (0, false));
    let none = FieldTable::default();
    let (mine, shared) = (to_queue("mine"), to_queue("q"));
    let key = |destination| BindingDeclare::new("amq.topic", destination, b"a", &none);
    assert_eq!(effects(catalog.unbind("/", key(&shared), Origin::System)), (0, false));
    assert_eq!(effects(catalog.declare_queue(HERE, "/", "mine", queue(true), from(1))), (1, false));
    assert_eq!(effects(catalog.bind("/", key(&mine), from(1))), (1, true));
    assert_eq!(effects(catalog.bind("/", key(&shared), Origin::System)), (1, true));
    assert_eq!(effects(catalog.bind("/", key(&shared), Origin::System)), (0, false));
}

#[test]
fn queues_of_a_deleted_virtual_host_are_effects() {
    let mut catalog = Catalog::default();
    assert!(catalog.create_vhost("v").answer);
    let shared = catalog.declare_queue(HERE, "v", "shared", queue(false), from(1)).unwrap().answer.id;
    let mine = catalog.declare_queue(HERE, "v", "mine", queue(true), from(1)).unwrap().answer.id;
    catalog
        .bind("v", BindingDeclare::new("amq.topic", &to_queue("shared"), b"", &FieldTable::default()), Origin::System)
        .unwrap();
    let effects = catalog.delete_vhost("v").effects;
    let vhost: Arc<str> = "v".into();
    let gone = |name: &str, id, is_logged, had_bindings| {
        let (vhost, name) = (vhost.clone(), name.into());
        Effect::QueueDeleted { vhost, name, id, is_logged, had_bindings }
    };
    let host = Effect::VhostDeleted { vhost: vhost.clone() };
    assert_eq!(effects, [gone("mine", mine, false, false), gone("shared", shared, true, true), host]);
    assert_eq!(catalog.exclusive_queues(connection(1)).count(), 0);
    assert_eq!(catalog.delete_vhost("v"), Change { answer: false, effects: Vec::new() });
}

#[test]
fn bindings_differ_by_key_bytes_and_by_arguments_in_any_order() {
    let mut catalog = Catalog::default();
    let id = catalog.declare_queue(HERE, "/", "q", queue(false), from(1)).unwrap().answer.id;
    let none = FieldTable::default();
    let table = |entries: &[(&str, FieldValue)]| entries.iter().cloned().collect::<FieldTable>();
    let (one, turned) = (
        table(&[("x-match", "all".into()), ("a", 1.into()), ("b", "2".into())]),
        table(&[("b", "2".into()), ("x-match", "all".into()), ("a", 1.into())]),
    );
    let other = table(&[("x-match", "all".into()), ("a", FieldValue::Int64(1)), ("b", "2".into())]);
    let routes: [(&[u8], &FieldTable, &str); 11] = [
        (b"", &none, "~"),
        (b"~", &none, "%7E"),
        (b"%7E", &none, "%257E"),
        (b"\xff", &none, "%FF"),
        (b"\xfe", &none, "%FE"),
        ("\u{fffd}".as_bytes(), &none, "%EF%BF%BD"),
        (b"a b", &none, "a+b"),
        (b"a+b", &none, "a%2Bb"),
        (b"x.#", &none, "x.%23"),
        (b"", &one, "~"),
        (b"", &other, "~"),
    ];
    let mut keys = BTreeSet::new();
    for (key, arguments, expected) in routes {
        assert_eq!(
            answer(catalog.bind(
                "/",
                BindingDeclare::new("amq.headers", &to_queue("q"), key, arguments),
                Origin::System
            )),
            Ok(true),
            "{expected}"
        );
        let made = properties_key(key, arguments);
        assert!(if arguments.is_empty() { made == expected } else { made.starts_with(expected) }, "{made}");
        let found = catalog.binding_named("/", "amq.headers", &to_queue("q"), &made).unwrap().unwrap();
        assert_eq!((&*found.routing_key, &found.arguments, &found.properties_key), (key, arguments, &made));
        assert!(keys.insert(made));
    }
    assert_eq!(catalog.bindings("/").unwrap().count(), routes.len());
    // The routing key itself is understood in place of the properties key, too.
    let raw = catalog.binding_named("/", "amq.headers", &to_queue("q"), "x.#").unwrap().unwrap();
    assert_eq!(&*raw.routing_key, b"x.#");
    assert_eq!(catalog.binding_named("/", "amq.headers", &to_queue("q"), "nothing").unwrap(), None);
    // The same arguments in another order are the same binding.
    assert_eq!(
        answer(catalog.bind("/", BindingDeclare::new("amq.headers", &to_queue("q"), b"", &turned), Origin::System)),
        Ok(false)
    );
    let message = table(&[("a", 1.into()), ("b", "2".into())]);
    assert_eq!(routed(&catalog, "amq.headers", "", Some(&message)), [id].into());
    for (key, arguments, _) in routes {
        let arguments = if arguments == &one { &turned } else { arguments };
        assert_eq!(
            answer(catalog.unbind(
                "/",
                BindingDeclare::new("amq.headers", &to_queue("q"), key, arguments),
                Origin::System
            )),
            Ok(true)
        );
    }
    assert!(routed(&catalog, "amq.headers", "", Some(&message)).is_empty());
    let vhost = catalog.vhost("/").unwrap();
    assert_eq!((vhost.usage.bindings, vhost.queues["q"].sources.len()), (0, 0));
}

#[test]
fn deleting_definitions_frees_the_memory_counted_for_them() {
    let mut catalog = Catalog::default();
    let before = catalog.vhost("/").unwrap().usage;
    let arguments = FieldTable::from_iter([("note", FieldValue::from("kept"))]);
    catalog.declare_exchange(HERE, "/", "e", ExchangeDeclare { arguments, ..exchange(ExchangeType::Topic) }).unwrap();
    let id = catalog.declare_queue(HERE, "/", "q", queue(false), from(1)).unwrap().answer.id;
    for (source, destination, key) in
        [("e", to_queue("q"), "a.#"), ("e", to_exchange("e"), "b.*"), ("amq.topic", to_exchange("e"), "#")]
    {
        bind(&mut catalog, source, destination, key).unwrap();
    }
    assert_eq!(catalog.vhost("/").unwrap().usage.bindings, 3);
    catalog.delete_queue("/", "q", id).unwrap();
    catalog.delete_exchange("/", "e", false).unwrap();
    assert_eq!(catalog.vhost("/").unwrap().usage, before);
}

#[test]
fn declarations_beyond_the_limits_are_refused() {
    let mut catalog = Catalog::default();
    let long = FieldTable::from_iter([("note", FieldValue::LongString(vec![b'a'; 100_000]))]);
    let declare = QueueDeclare { arguments: long.clone(), ..queue(false) };
    let refusal = catalog.declare_queue(HERE, "/", "q", declare, from(1)).unwrap_err();
    assert_eq!(refusal.kind.reply_code(), 406);
    assert!(refusal.text.contains("more than 65536"), "{refusal}");
    let declare = ExchangeDeclare { arguments: long.clone(), ..exchange(ExchangeType::Topic) };
    assert_eq!(code(catalog.declare_exchange(HERE, "/", "e", declare)), 406);
    catalog.declare_queue(HERE, "/", "q", queue(false), from(1)).unwrap();
    assert_eq!(
        code(catalog.bind("/", BindingDeclare::new("amq.topic", &to_queue("q"), b"", &long), Origin::System)),
        406
    );
    assert_eq!(code(bind(&mut catalog, "amq.topic", to_queue("q"), &"a".repeat(256))), 406);
    assert_eq!(code(bind(&mut catalog, "amq.topic", to_queue("q"), &"a".repeat(255))), 200);
    let vhost = catalog.vhosts.get_mut("/").unwrap();
    vhost.usage.bindings = limits::BINDINGS_MAX;
    let refusal = bind(&mut catalog, "amq.topic", to_queue("q"), "b").unwrap_err();
    assert_eq!(refusal.text, "vhost '/' has the 1000000 bindings that it may have");
    catalog.vhosts.get_mut("/").unwrap().usage.bytes = usize::MAX / 2;
    assert_eq!(code(catalog.declare_queue(HERE, "/", "r", queue(false), from(1))), 406);
    assert_eq!(code(catalog.declare_exchange(HERE, "/", "e", exchange(ExchangeType::Topic))), 406);
    let mut small = Catalog::new(100_000);
    let declare = |at: usize| {
        let (vhost, name) = ("/".to_owned(), format!("q{at}"));
        CatalogCommand::DeclareQueue { vhost, name, declare: queue(false), origin: from(1) }
    };
    let mut refused =
        (0..1000).filter_map(|at| small.admit(&declare(at)).and_then(|()| small.execute(HERE, &declare(at))).err());
    let refusal = refused.next().unwrap();
    assert_eq!(refusal.text, "vhost '/' has the 100000 bytes of definitions that it may have");
}

#[test]
fn unsupported_arguments_are_refused_by_name() {
    let mut catalog = Catalog::default();
    for (name, value, expected) in [
        ("x-queue-type", "classic".into(), 200),
        ("x-queue-type", "quorum".into(), 406),
        ("x-message-ttl", FieldValue::Int32(1), 406),
        ("x-queue-mode", "lazy".into(), 200),
        ("x-queue-version", 2.into(), 200),
        ("x-ha-policy", "all".into(), 200),
        ("note", "kept".into(), 200),
    ] {
        let arguments = FieldTable::from_iter([(name, value)]);
        let result = catalog.declare_queue(HERE, "/", "q", QueueDeclare { arguments, ..queue(false) }, from(1));
        if expected == 406 {
            assert!(result.as_ref().unwrap_err().text.contains(name), "{result:?}");
        }
        assert_eq!(code(result), expected, "{name}");
    }
    let arguments = [("x-queue-mode", "lazy".into()), ("note", "kept".into()), ("x-ha-policy", "all".into())];
    let arguments = FieldTable::from_iter(arguments);
    assert_eq!(idle_arguments(&arguments).collect::<Vec<_>>(), ["x-queue-mode", "x-ha-policy"]);
    for (kind, server_named, text) in [
        ("foo", false, "invalid arg 'x-queue-type' for queue 'r' in vhost '/': \"unsupported queue type 'foo'\""),
        ("quorum", true, "Cannot declare a server-named queue for type rabbit_quorum_queue"),
    ] {
        let arguments = FieldTable::from_iter([("x-queue-type", FieldValue::from(kind))]);
        let refused =
            catalog.declare_queue(HERE, "/", "r", QueueDeclare { arguments, server_named, ..queue(false) }, from(1));
        assert_eq!(refused.unwrap_err().text, text);
    }
}

#[test]
fn a_declaration_with_other_arguments_is_refused_naming_the_difference() {
    let mut catalog = Catalog::default();
    let mut declare = |name: &str, arguments: &[(&str, FieldValue)]| {
        let arguments = arguments.iter().cloned().collect();
        let declare = QueueDeclare { arguments, ..queue(false) };
        catalog.declare_queue(HERE, "/", name, declare, from(1)).err().map(|refusal| refusal.text)
    };
    let (quorum, limit) = (("x-queue-type", "quorum".into()), |limit: i32| ("x-delivery-limit", limit.into()));
    assert_eq!(declare("q", &[limit(3), quorum.clone()]), None);
    assert_eq!(declare("q", &[quorum.clone(), ("x-delivery-limit", FieldValue::Int64(3)), limit(4)]), None);
    assert_eq!(declare("classic", &[]), None);
    for (name, arguments, text) in [
        (
            "q",
            vec![],
            "inequivalent arg 'x-queue-type' for queue 'q' in vhost '/': received 'classic' but current is 'quorum'",
        ),
        (
            "q",
            vec![quorum.clone()],
            "inequivalent arg 'x-delivery-limit' for queue 'q' in vhost '/': received 'none' but current is '3'",
        ),
        (
            "q",
            vec![quorum.clone(), limit(-1)],
            "inequivalent arg 'x-delivery-limit' for queue 'q' in vhost '/': received '-1' but current is '3'",
        ),
        (
            "q",
            vec![quorum.clone(), limit(-2)],
            "invalid arg 'x-delivery-limit' for queue 'q' in vhost '/': -2 is not a number from -1 on",
        ),
        ("classic", vec![limit(3)], "invalid arg 'x-delivery-limit' for queue 'classic' in vhost '/': not supported"),
    ] {
        assert_eq!(declare(name, &arguments).as_deref(), Some(text));
    }
    let settings = |name: &str| &catalog.queue("/", name, Origin::System, Purpose::Use).unwrap().settings;
    assert_eq!((settings("q").returns_max(), settings("classic").returns_max()), (Some(3), None));
}

#[test]
fn unsupported_arguments_are_refused_for_existing_exchanges_too() {
    let mut catalog = Catalog::default();
    let with = |name: &str, value| {
        let arguments = FieldTable::from_iter([(name, value)]);
        ExchangeDeclare { arguments, ..exchange(ExchangeType::Direct) }
    };
    catalog.declare_exchange(HERE, "/", "e", exchange(ExchangeType::Direct)).unwrap();
    for (declare, text) in [
        (with("x-unknown", 1.into()), "invalid arg 'x-unknown' for exchange 'e' in vhost '/': not supported"),
        (
            with("alternate-exchange", 1.into()),
            "invalid arg 'alternate-exchange' for exchange 'e' in vhost '/': 1 is no string",
        ),
        (
            with("alternate-exchange", "a".into()),
            "inequivalent arg 'alternate-exchange' for exchange 'e' in vhost '/': received 'a' but current is 'none'",
        ),
    ] {
        assert_eq!(catalog.declare_exchange(HERE, "/", "e", declare).unwrap_err().text, text);
    }
}

#[test]
fn deletions_remove_bindings_and_unbound_auto_delete_exchanges() {
    let mut catalog = Catalog::default();
    let declared = ExchangeDeclare { auto_delete: true, ..exchange(ExchangeType::Fanout) };
    catalog.declare_exchange(HERE, "/", "first", declared.clone()).unwrap();
    catalog.declare_exchange(HERE, "/", "second", declared).unwrap();
    let id = catalog.declare_queue(HERE, "/", "q", queue(false), from(1)).unwrap().answer.id;
    assert_eq!(bind(&mut catalog, "first", to_exchange("second"), ""), Ok(true));
    assert_eq!(bind(&mut catalog, "first", to_exchange("second"), ""), Ok(false));
    assert_eq!(bind(&mut catalog, "second", to_queue("q"), ""), Ok(true));
    assert_eq!(routed(&catalog, "first", "", None).len(), 1);
    assert_eq!(code(catalog.delete_exchange("/", "first", true)), 406);
    let effects = catalog.delete_queue("/", "q", id).unwrap().effects;
    assert_eq!(code(catalog.exchange("/", "second")), 404);
    assert_eq!(code(catalog.exchange("/", "first")), 404);
    assert_eq!(catalog.bindings("/").unwrap().count(), 0);
    let vhost: Arc<str> = "/".into();
    let gone = |name: &str| {
        let (vhost, name) = (vhost.clone(), name.into());
        Effect::ExchangeDeleted { vhost, name }
    };
    let (is_logged, had_bindings) = (true, true);
    let queue_gone = Effect::QueueDeleted { vhost: vhost.clone(), name: "q".into(), id, is_logged, had_bindings };
    assert_eq!(effects, [queue_gone, gone("second"), gone("first")]);
}

#[test]
fn a_long_chain_of_exchanges_is_deleted_without_recursion() {
    const LENGTH: usize = 50_000;
    let mut catalog = Catalog::default();
    let alternate = |at: usize| [("alternate-exchange", FieldValue::from(&*format!("alternate {at}")))];
    let declared = ExchangeDeclare { auto_delete: true, ..exchange(ExchangeType::Fanout) };
    for at in 0..LENGTH {
        catalog.declare_exchange(HERE, "/", &at.to_string(), declared.clone()).unwrap();
        if at > 0 {
            bind(&mut catalog, &(at - 1).to_string(), to_exchange(&at.to_string()), "").unwrap();
        }
    }
    for at in 0..LENGTH - 10 {
        let arguments = alternate(at + 1).into_iter().collect();
        let declare = ExchangeDeclare { arguments, ..exchange(ExchangeType::Direct) };
        catalog.declare_exchange(HERE, "/", &format!("alternate {at}"), declare).unwrap();
    }
    let id = catalog.declare_queue(HERE, "/", "q", queue(false), from(1)).unwrap().answer.id;
    bind(&mut catalog, &(LENGTH - 1).to_string(), to_queue("q"), "").unwrap();
    assert_eq!(routed(&catalog, "0", "", None), [id].into());
    assert!(routed(&catalog, "alternate 0", "", None).is_empty());
    let none = FieldTable::default();
    let unbound = catalog
        .unbind("/", BindingDeclare::new(&(LENGTH - 1).to_string(), &to_queue("q"), b"", &none), Origin::System)
        .unwrap();
    assert_eq!((unbound.answer, unbound.effects.len()), (true, LENGTH + 1));
    assert_eq!(code(catalog.exchange("/", "0")), 404);
}

#[test]
fn all_keys_of_a_message_are_routed_together() {
    let mut catalog = Catalog::default();
    let arguments = FieldTable::from_iter([("alternate-exchange", FieldValue::from("amq.fanout"))]);
    catalog.declare_exchange(HERE, "/", "d", ExchangeDeclare { arguments, ..exchange(ExchangeType::Direct) }).unwrap();
    catalog.declare_exchange(HERE, "/", "t", exchange(ExchangeType::Topic)).unwrap();
    let [q, other] =
        ["q", "other"].map(|name| catalog.declare_queue(HERE, "/", name, queue(false), from(1)).unwrap().answer.id);
    bind(&mut catalog, "d", to_exchange("t"), "k1").unwrap();
    bind(&mut catalog, "t", to_queue("q"), "k2").unwrap();
    bind(&mut catalog, "amq.fanout", to_queue("other"), "").unwrap();
    let list = |keys: &[&str]| FieldValue::Array(keys.iter().map(|key| FieldValue::from(*key)).collect());
    let headers = FieldTable::from_iter([("CC", list(&["k1"])), ("BCC", list(&["k2"]))]);
    assert_eq!(routed(&catalog, "d", "", Some(&headers)), [q].into());
    let headers = FieldTable::from_iter([("CC", list(&["k2"]))]);
    assert_eq!(routed(&catalog, "d", "k1", Some(&headers)), [q].into());
    // The alternate exchange gets only messages for which none of the keys has a binding.
    assert_eq!(routed(&catalog, "d", "k3", Some(&headers)), [other].into());
    let refused = |name: &str, value: FieldValue| {
        let headers = FieldTable::from_iter([(name, value)]);
        let refusal = catalog.route("/", "d", b"", Some(&headers), &mut SmallVec::new()).unwrap_err();
        assert_eq!(refusal.kind.reply_code(), 406);
        refusal.text
    };
    assert!(refused("BCC", list(&[&".".repeat(256)])).contains("header 'BCC' names a key of 256 bytes"));
    assert!(refused("CC", list(&["k"; 1025])).contains("1025 keys, more than 1024"));
    assert!(refused("CC", FieldValue::Array(vec![FieldValue::Void])).contains("header 'CC'"));
}

#[test]
fn a_message_with_too_many_routing_steps_is_refused() {
    let mut catalog = Catalog::default();
    let none = FieldTable::default();
    for at in 0..1_000 {
        let name = at.to_string();
        catalog.declare_queue(HERE, "/", &name, queue(false), from(1)).unwrap();
        catalog.bind("/", BindingDeclare::new("amq.topic", &to_queue(&name), b"#", &none), Origin::System).unwrap();
    }
    let keys = (0..1_024).map(|at| FieldValue::from(&*at.to_string())).collect();
    let headers = FieldTable::from_iter([("CC", FieldValue::Array(keys))]);
    let refusal = catalog.route("/", "amq.topic", b"", Some(&headers), &mut SmallVec::new()).unwrap_err();
    let text = "routing a message of exchange 'amq.topic' in vhost '/' takes more than 1000000 steps: it is compared with \
                too many bindings";
    assert_eq!((refusal.kind.reply_code(), &*refusal.text), (406, text));
}

#[test]
fn alternates_recipients_and_internal_exchanges() {
    let mut catalog = Catalog::default();
    let arguments = FieldTable::from_iter([("alternate-exchange", FieldValue::from("amq.fanout"))]);
    let declared = ExchangeDeclare { arguments, ..exchange(ExchangeType::Direct) };
    catalog.declare_exchange(HERE, "/", "e", declared).unwrap();
    assert_eq!(code(catalog.declare_exchange(HERE, "/", "e", exchange(ExchangeType::Direct))), 406);
    let [a, b, c] =
        ["a", "b", "c"].map(|name| catalog.declare_queue(HERE, "/", name, queue(false), from(1)).unwrap().answer.id);
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
    fn routing_follows_the_existing_bindings(steps in prop::collection::vec(prop_oneof![
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
                    let gone = answer(catalog.unbind("/", BindingDeclare::new(EXCHANGES[usize::from(e)], &to_queue(&q.to_string()), key.as_bytes(), &none), Origin::System));
                    if queues.contains_key(&q) { prop_assert_eq!(gone, Ok(bound.remove(&(e, q, k)))); } else { prop_assert_eq!(gone, Ok(false)); }
                }
                Step::DeleteQueue(q) => {
                    let id = queues.remove(&q);
                    let deleted = catalog.delete_queue("/", &q.to_string(), id.unwrap_or(QueueId(0)));
                    prop_assert_eq!(deleted.is_ok(), id.is_some());
                    bound.retain(|(_, queue, _)| *queue != q);
                }
                Step::Declare(q) => {
                    let declared = catalog.declare_queue(HERE, "/", &q.to_string(), queue(false), from(1)).unwrap().answer;
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

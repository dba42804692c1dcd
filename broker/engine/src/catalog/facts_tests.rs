//! After any steps, the facts of a catalog make an equal one, at every point: also one that comes to the same decisions.
use super::*;
use leveret_model::exchange::ExchangeType;
use leveret_model::table::{FieldTable, FieldValue};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Exchange { name: u8, durable: bool, auto_delete: bool },
    DeleteExchange { name: u8, if_unused: bool },
    Queue { name: u8, durable: bool, exclusive: Option<u64> },
    DeleteQueue(u8),
    Bind { source: u8, to: To, key: u8, arguments: u8 },
    Unbind { source: u8, to: To, key: u8, arguments: u8 },
    Disconnect(u64),
    Start(NodeRun),
    Gone(NodeRun),
}

#[derive(Clone, Copy, Debug)]
enum To {
    Queue(u8),
    Exchange(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let to = || prop_oneof![2 => (0..4u8).prop_map(To::Queue), 1 => (0..5u8).prop_map(To::Exchange)];
    let step = prop_oneof![
        4 => (0..5u8, any::<bool>(), any::<bool>())
            .prop_map(|(name, durable, auto_delete)| Step::Exchange { name, durable, auto_delete }),
        1 => (0..5u8, any::<bool>()).prop_map(|(name, if_unused)| Step::DeleteExchange { name, if_unused }),
        4 => (0..4u8, any::<bool>(), prop::option::of(1..3u64))
            .prop_map(|(name, durable, exclusive)| Step::Queue { name, durable, exclusive }),
        1 => (0..4u8).prop_map(Step::DeleteQueue),
        8 => (0..5u8, to(), 0..3u8, 0..3u8)
            .prop_map(|(source, to, key, arguments)| Step::Bind { source, to, key, arguments }),
        4 => (0..5u8, to(), 0..3u8, 0..3u8)
            .prop_map(|(source, to, key, arguments)| Step::Unbind { source, to, key, arguments }),
        1 => (1..3u64).prop_map(Step::Disconnect),
        1 => (1..3u64, 1..3u64).prop_map(|(node, incarnation)| Step::Start(NodeRun { node, incarnation })),
        1 => (1..3u64, 1..3u64).prop_map(|(node, incarnation)| Step::Gone(NodeRun { node, incarnation })),
    ];
    prop::collection::vec(step, 1..80)
}

/// Connections belong to nodes 1 and 2, in this start of them.
const HERE: NodeRun = NodeRun { node: 1, incarnation: 1 };

fn connection(number: u64) -> ConnectionId {
    ConnectionId { run: NodeRun { node: number, incarnation: 1 }, number }
}

fn exchange(name: u8) -> String {
    // Two of these exchanges exist from the start and are never deleted.
    ["amq.topic", "amq.headers", "e2", "e3", "e4"][usize::from(name)].to_owned()
}

fn destination(to: To) -> Destination {
    match to {
        To::Queue(name) => Destination::Queue(format!("q{name}")),
        To::Exchange(name) => Destination::Exchange(exchange(name)),
    }
}

fn route(key: u8, arguments: u8, turned: bool) -> (&'static [u8], FieldTable) {
    let mut entries = vec![("x-match".to_owned(), FieldValue::from("any")), ("a".to_owned(), 1.into())];
    entries.truncate(usize::from(arguments));
    if turned {
        entries.reverse();
    }
    ([&b""[..], b"~", b"\xff"][usize::from(key)], FieldTable(entries))
}

/// Returns the command for a step, and the node that gives it.
fn command(catalog: &Catalog, step: &Step) -> (NodeRun, CatalogCommand) {
    let vhost = "/".to_owned();
    let bond = |source, to, key, arguments, turned| {
        let ((key, arguments), source) = (route(key, arguments, turned), exchange(source).into());
        Bond { vhost: "/".into(), source, destination: destination(to), routing_key: key.to_vec(), arguments }
    };
    let origin = Origin::Connection(connection(1));
    let command = match *step {
        Step::Exchange { name, durable, auto_delete } => {
            let kind = if name == 1 { ExchangeType::Headers } else { ExchangeType::Topic };
            let arguments = FieldTable::default();
            let declare = ExchangeDeclare { kind, durable, auto_delete, internal: false, arguments };
            CatalogCommand::DeclareExchange { vhost, name: exchange(name), declare }
        }
        Step::DeleteExchange { name, if_unused } => {
            CatalogCommand::DeleteExchange { vhost, name: exchange(name), if_unused }
        }
        Step::Queue { name, durable, exclusive } => {
            let declare = QueueDeclare { durable, exclusive: exclusive.is_some(), ..QueueDeclare::default() };
            let origin = exclusive.map_or(Origin::System, |owner| Origin::Connection(connection(owner)));
            let by = exclusive.map_or(HERE, |owner| connection(owner).run);
            return (by, CatalogCommand::DeclareQueue { vhost, name: format!("q{name}"), declare, origin });
        }
        Step::DeleteQueue(name) => {
            let name = format!("q{name}");
            let id = catalog.queue_id("/", &name).unwrap_or(QueueId(0));
            CatalogCommand::DeleteQueue { vhost, name, id }
        }
        Step::Bind { source, to, key, arguments } => {
            CatalogCommand::Bind { bond: bond(source, to, key, arguments, false), origin }
        }
        Step::Unbind { source, to, key, arguments } => {
            CatalogCommand::Unbind { bond: bond(source, to, key, arguments, true), origin }
        }
        Step::Disconnect(owner) => CatalogCommand::DeleteExclusive { owner: connection(owner), most: u32::MAX },
        Step::Start(run) => return (run, CatalogCommand::NodeStarted),
        Step::Gone(run) => CatalogCommand::NodeGone(run),
    };
    (HERE, command)
}

/// Does a step and returns its effects. A step may be refused; it has no effects then.
fn act(catalog: &mut Catalog, step: &Step) -> Vec<Effect> {
    let (by, command) = command(catalog, step);
    let expected = catalog.preview(&command);
    let changed = catalog.execute(by, &command);
    match (expected, &changed) {
        (Err(expected), Err(refusal)) => assert_eq!(expected, *refusal),
        (Ok(Some(answer)), Ok(change)) => assert_eq!((answer, 0), (change.answer, change.effects.len())),
        (Ok(None), Ok(change)) => assert!(change.answer.changed),
        (expected, _) => panic!("{command:?} was to be {expected:?} and is {changed:?}"),
    }
    if let Step::Disconnect(owner) = *step {
        assert_eq!(catalog.exclusive_queues(connection(owner)).count(), 0);
    }
    changed.map_or(Vec::new(), |change| change.effects)
}

fn made_of(facts: impl IntoIterator<Item = Fact>) -> Catalog {
    let mut catalog = Catalog::default();
    facts.into_iter().for_each(|fact| catalog.replay(fact));
    catalog
}

proptest! {
    #[test]
    fn a_snapshot_at_any_point_restores_the_catalog(before in steps(), after in steps()) {
        let mut catalog = Catalog::default();
        before.iter().for_each(|step| drop(act(&mut catalog, step)));
        let mut again = made_of(catalog.facts());
        prop_assert_eq!(seen(&again), seen(&catalog));
        for step in &after {
            prop_assert_eq!(act(&mut again, step), act(&mut catalog, step), "effects of {:?}", step);
            prop_assert_eq!(again.vhost("/").unwrap().usage, catalog.vhost("/").unwrap().usage);
        }
        prop_assert_eq!(seen(&again), seen(&catalog));
        prop_assert_eq!(catalog.bindings("/").unwrap().count(), catalog.vhost("/").unwrap().usage.bindings);
    }
}

/// Returns everything that is visible of a catalog: its facts, its bindings, and the routes of messages.
fn seen(catalog: &Catalog) -> (Vec<Fact>, Vec<String>) {
    let bindings = catalog.bindings("/").unwrap().map(|(source, binding)| format!("{source} {binding:?}"));
    let mut seen: Vec<String> = bindings.collect();
    for name in 0..5 {
        for (key, arguments) in (0..3).flat_map(|key| (0..3).map(move |arguments| (key, arguments))) {
            let ((key, headers), mut queues) = (route(key, arguments, false), Default::default());
            let routed = catalog.route("/", &exchange(name), key, Some(&headers), &mut queues);
            // A route may still name queues that were deleted.
            queues.retain(|id| catalog.queues("/").unwrap().any(|(_, queue)| queue.id == *id));
            seen.push(format!("{:?} {queues:?}", routed.map(|routed| routed.by_headers)));
        }
    }
    (catalog.facts(), seen)
}

proptest! {
    #[test]
    fn bindings_that_are_unlinked_later_are_invisible(steps in steps(), pauses in prop::collection::vec(0..4usize, 80)) {
        let (mut now, mut later) = (Catalog::default(), Catalog::default());
        (now.unlinked_at_once, later.unlinked_at_once) = (usize::MAX, 0);
        for (step, most) in steps.iter().zip(&pauses) {
            prop_assert_eq!(act(&mut now, step), act(&mut later, step), "effects of {:?}", step);
            let _ = later.unlink(*most);
            prop_assert_eq!(seen(&now), seen(&later), "after {:?}", step);
        }
        while later.unlink(1).more {}
        let (now, later) = (now.vhost("/").unwrap(), later.vhost("/").unwrap());
        prop_assert_eq!(now.usage, later.usage);
        for (name, queue) in &now.queues {
            prop_assert_eq!(&queue.sources, &later.queues[name].sources);
        }
        for (name, exchange) in &now.exchanges {
            prop_assert_eq!(&exchange.sources, &later.exchanges[name].sources);
        }
    }
}

#[test]
fn what_lives_on_a_node_ends_with_it_and_transient_exchanges_end_with_the_last_node() {
    let mut catalog = Catalog::default();
    let other = NodeRun { node: 2, incarnation: 1 };
    for run in [HERE, other] {
        let _ = catalog.node_started(run);
    }
    act(&mut catalog, &Step::Exchange { name: 2, durable: false, auto_delete: false });
    for (name, durable, exclusive) in [(0, true, None), (1, false, None), (2, true, Some(1)), (3, false, Some(2))] {
        act(&mut catalog, &Step::Queue { name, durable, exclusive });
        act(&mut catalog, &Step::Bind { source: 2, to: To::Queue(name), key: 1, arguments: 0 });
    }
    let left = |catalog: &Catalog| {
        let names: Vec<_> = catalog.queues("/").unwrap().map(|(name, _)| name.to_string()).collect();
        (names.join(" "), catalog.exchange("/", "e2").is_ok(), catalog.bindings("/").unwrap().count())
    };
    let mut again = made_of(catalog.facts());
    for catalog in [&mut catalog, &mut again] {
        let _ = catalog.node_gone(NodeRun { incarnation: 9, ..HERE });
        assert_eq!(left(catalog), ("q0 q1 q2 q3".to_owned(), true, 3), "it has not run for long");
        let restarted = NodeRun { incarnation: 2, ..HERE };
        let _ = catalog.node_started(restarted);
        assert_eq!(left(catalog), ("q0 q3".to_owned(), true, 1));
        assert!(catalog.may_run(restarted) && !catalog.may_run(HERE));
        let _ = catalog.node_gone(restarted);
        assert_eq!(left(catalog), ("q0 q3".to_owned(), true, 1));
        let _ = catalog.node_gone(other);
        assert_eq!(left(catalog), ("q0".to_owned(), false, 0));
    }
}

//! After any steps, the facts of the log restore the durable part of the catalog, at every point; so does a snapshot
//! together with the facts logged since any moment before it.
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
    Snapshot,
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
        1 => Just(Step::Snapshot),
    ];
    prop::collection::vec(step, 1..80)
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

/// Does a step and returns its effects. A step may be refused; it has no effects then.
fn act(catalog: &mut Catalog, step: &Step) -> Vec<Effect> {
    fn effects<T>(change: Result<Change<T>, Refusal>) -> Vec<Effect> {
        change.map_or(Vec::new(), |change| change.effects)
    }
    match *step {
        Step::Exchange { name, durable, auto_delete } => {
            let kind = if name == 1 { ExchangeType::Headers } else { ExchangeType::Topic };
            let arguments = FieldTable::default();
            let declare = ExchangeDeclare { kind, durable, auto_delete, internal: false, arguments };
            effects(catalog.declare_exchange("/", &exchange(name), declare))
        }
        Step::DeleteExchange { name, if_unused } => effects(catalog.delete_exchange("/", &exchange(name), if_unused)),
        Step::Queue { name, durable, exclusive } => {
            let declare = QueueDeclare { durable, exclusive: exclusive.is_some(), ..QueueDeclare::default() };
            let origin = exclusive.map_or(Origin::System, |owner| Origin::Connection(ConnectionId(owner)));
            effects(catalog.declare_queue("/", &format!("q{name}"), declare, origin))
        }
        Step::DeleteQueue(name) => {
            let name = format!("q{name}");
            let id = catalog.queue_id("/", &name);
            id.map_or(Vec::new(), |id| catalog.delete_queue("/", &name, id).unwrap().effects)
        }
        Step::Bind { source, to, key, arguments } => {
            let (key, arguments) = route(key, arguments, false);
            effects(catalog.bind(
                "/",
                BindingDeclare::new(&exchange(source), &destination(to), key, &arguments),
                Origin::Connection(ConnectionId(1)),
            ))
        }
        Step::Unbind { source, to, key, arguments } => {
            let (key, arguments) = route(key, arguments, true);
            let ends = (exchange(source), destination(to));
            effects(catalog.unbind(
                "/",
                BindingDeclare::new(&ends.0, &ends.1, key, &arguments),
                Origin::Connection(ConnectionId(1)),
            ))
        }
        Step::Disconnect(connection) => {
            let deleted = catalog.delete_exclusive_queues(ConnectionId(connection), usize::MAX);
            assert_eq!(catalog.exclusive_queues(ConnectionId(connection)).count(), 0);
            deleted.effects
        }
        Step::Snapshot => Vec::new(),
    }
}

fn made_of(facts: impl IntoIterator<Item = Fact>) -> Catalog {
    let mut catalog = Catalog::default();
    facts.into_iter().for_each(|fact| catalog.replay(fact));
    catalog
}

/// Returns the durable part of the catalog, without the next identity: restored exchanges get new identities.
fn durable(catalog: &Catalog) -> Vec<Fact> {
    catalog.durable_facts().split_off(1)
}

proptest! {
    #[test]
    fn a_restart_at_any_point_restores_the_durable_catalog(steps in steps()) {
        let mut catalog = Catalog::default();
        let mut log: Vec<Fact> = Vec::new();
        // The facts of each snapshot, with the length of the log when the snapshot was begun: the snapshot may contain
        // later facts.
        let mut snapshots: Vec<(usize, Vec<Fact>)> = vec![(0, Vec::new())];
        let mut begun = 0;
        for step in &steps {
            log.extend(act(&mut catalog, step).into_iter().filter_map(Effect::into_fact));
            if let Step::Snapshot = step {
                snapshots.push((begun, catalog.durable_facts()));
                begun = log.len();
            }
            let now = durable(&catalog);
            prop_assert_eq!(&durable(&made_of(log.iter().cloned())), &now, "after {:?}", step);
            for (from, snapshot) in &snapshots {
                let again = made_of(snapshot.iter().chain(&log[*from..]).cloned());
                prop_assert_eq!(&durable(&again), &now, "from a snapshot at fact {}, after {:?}", from, step);
            }
        }
        let again = made_of(log);
        prop_assert_eq!(again.bindings("/").unwrap().count(), again.vhost("/").unwrap().usage.bindings);
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
    (catalog.durable_facts(), seen)
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
fn auto_delete_exchanges_are_restored_without_their_transient_bindings() {
    let mut catalog = Catalog::default();
    let bind = |source, to| Step::Bind { source, to, key: 1, arguments: 0 };
    let unbind = |source, to| Step::Unbind { source, to, key: 1, arguments: 0 };
    let exchange = |name| Step::Exchange { name, durable: true, auto_delete: true };
    let queue = |name, durable| Step::Queue { name, durable, exclusive: None };
    let mut log: Vec<Fact> = Vec::new();
    let mut play = |steps: &[Step]| {
        for step in steps {
            log.extend(act(&mut catalog, step).into_iter().filter_map(Effect::into_fact));
        }
        let again = made_of(log.iter().cloned());
        assert_eq!(durable(&again), durable(&catalog));
        again
    };
    // The exchange lost its durable binding while a transient one kept it, and has another durable binding now.
    let again = play(&[
        exchange(2),
        queue(0, true),
        queue(1, false),
        queue(2, true),
        bind(2, To::Queue(0)),
        bind(2, To::Queue(1)),
        unbind(2, To::Queue(0)),
        bind(2, To::Queue(2)),
    ]);
    assert_eq!(again.bindings("/").unwrap().count(), 1);
    // The exchange was deleted together with a transient queue.
    let again = play(&[exchange(3), bind(3, To::Queue(1)), Step::DeleteQueue(1)]);
    assert!(again.exchange("/", "e3").is_err() && again.exchange("/", "e2").is_ok());
}

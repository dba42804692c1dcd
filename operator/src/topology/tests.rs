//! Ownership, differences, and the exact requests that a broker gets because of them, without Kubernetes.
use super::drift::Step;
use super::kinds::{BrokerObject, Inventory, Numbers};
use super::outcome::{Effect, Outcome, ReadyCondition};
use super::resource::{Age, ResourceKey, TopologyResource};
use super::{conflict, deletion, drift, reconcile};
use leveret_api::DeletionPolicy::{self, Delete, DeleteIfEmpty, Retain};
use leveret_client::fake::Fake;
use leveret_client::{BindingInfo, Client, Error, ExchangeInfo, QueueInfo};
use serde_json::json;
use std::sync::Arc;

pub(super) fn resource(name: &str, queue: &str, age: i64, deleting: bool) -> TopologyResource {
    TopologyResource {
        key: ResourceKey { kind: "Queue".into(), namespace: "n".to_owned(), name: name.to_owned() },
        wanted: wanted_queue(queue),
        deletion_policy: DeleteIfEmpty,
        deleting,
        age: Age { created: age, uid: name.to_owned() },
        generation: 1,
        was_declared: false,
        refused_change: None,
        recent_refusal: None,
    }
}

fn owners_of(objects: &[TopologyResource]) -> Vec<Option<ResourceKey>> {
    conflict::owners(&objects.iter().cloned().map(Arc::new).collect::<Vec<_>>())
}

async fn pass(client: &Client, objects: Vec<TopologyResource>) -> Result<Vec<Outcome>, Error> {
    reconcile::pass(client, objects.into_iter().map(Arc::new).collect(), false).await
}

fn wanted_queue(name: &str) -> BrokerObject {
    BrokerObject::Queue(QueueInfo { durable: true, ..queue(name) })
}

fn exclusive() -> BrokerObject {
    BrokerObject::Queue(QueueInfo { durable: true, exclusive: true, ..queue("q") })
}

fn queue(name: &str) -> QueueInfo {
    QueueInfo { name: name.to_owned(), vhost: "/".to_owned(), ..QueueInfo::default() }
}

fn exchange(name: &str, kind: &str) -> ExchangeInfo {
    ExchangeInfo {
        name: name.to_owned(),
        vhost: "/".to_owned(),
        kind: kind.to_owned(),
        durable: true,
        ..ExchangeInfo::default()
    }
}

fn binding(source: &str, destination: &str) -> BindingInfo {
    BindingInfo {
        source: source.to_owned(),
        vhost: "/".to_owned(),
        destination: destination.to_owned(),
        destination_type: "queue".to_owned(),
        routing_key: "k".to_owned(),
        ..BindingInfo::default()
    }
}

fn of(wanted: BrokerObject) -> TopologyResource {
    TopologyResource { wanted, ..resource("o", "q", 1, false) }
}

fn going(wanted: BrokerObject, deletion_policy: DeletionPolicy) -> TopologyResource {
    TopologyResource { deleting: true, deletion_policy, ..of(wanted) }
}

fn inventory(things: &[BrokerObject]) -> Inventory {
    let mut inventory = Inventory::default();
    things.iter().for_each(|thing| inventory.insert(thing));
    inventory
}

fn ready(effect: Effect, numbers: Option<Numbers>) -> Outcome {
    Outcome::Ready { effect, numbers }
}

fn said(outcome: &Outcome) -> String {
    let ReadyCondition { status, reason, message } = outcome.condition();
    format!("{status} {reason}: {message}")
}

fn reported(step: Step) -> String {
    match step {
        Step::Report(outcome) => said(&outcome),
        step => format!("{step:?}"),
    }
}

#[test]
fn the_older_claim_wins_unless_it_is_on_its_way_out() {
    let name = |owner: &Option<ResourceKey>| owner.as_ref().map(|key| key.name.clone());
    let owners =
        owners_of(&[resource("new", "q", 2, false), resource("old", "q", 1, false), resource("x", "p", 3, false)]);
    assert_eq!(owners.iter().map(name).collect::<Vec<_>>(), [Some("old".to_owned()), None, None]);
    let owners = owners_of(&[resource("new", "q", 2, false), resource("old", "q", 1, true)]);
    assert_eq!(owners.iter().map(name).collect::<Vec<_>>(), [None, Some("new".to_owned())]);
}

#[test]
fn resources_that_stay_are_compared_with_the_broker() {
    let with = |name: &str, value: i64| {
        let arguments = json!({name: value}).as_object().unwrap().clone();
        BrokerObject::Queue(QueueInfo { durable: true, arguments, ..queue("q") })
    };
    let of_type = |type_: &str| {
        let arguments = json!({"x-queue-type": type_}).as_object().unwrap().clone();
        BrokerObject::Queue(QueueInfo { durable: true, arguments, ..queue("q") })
    };
    let transient = BrokerObject::Queue(queue("q"));
    let busy = BrokerObject::Queue(QueueInfo { messages_ready: 3, consumers: 1, ..queue("q") });
    let lost = TopologyResource { was_declared: true, ..of(wanted_queue("q")) };
    let advice = "Delete it there, or delete this resource and create it as it is there";
    let table = [
        (of(wanted_queue("q")), vec![], "Declare".to_owned()),
        (of(wanted_queue("q")), vec![wanted_queue("q")], "True Declared: on the broker as specified".to_owned()),
        (
            of(wanted_queue("q")),
            vec![transient.clone()],
            format!("False Different: queue 'q' in vhost '/' differs on the broker: durable is false there, not true. {advice}"),
        ),
        // The object was declared by this resource: it is put back, but not at the price of messages.
        (lost.clone(), vec![transient], r#"Replace("durable is false there, not true")"#.to_owned()),
        (
            lost.clone(),
            vec![busy],
            "False Changed: queue 'q' in vhost '/' was changed on the broker: durable is false there, not true. It stays \
             so while it has 3 messages ready, 0 unacknowledged and 1 consumers"
                .to_owned(),
        ),
        (lost, vec![with("x-max-length", 5)], r#"Replace("argument x-max-length is 5 there, not unset")"#.to_owned()),
        (of(with("x-max-length", 5)), vec![with("x-max-length", 5)], "True Declared: on the broker as specified".to_owned()),
        (
            of(with("x-max-length", 5)),
            vec![with("x-max-length", 6)],
            format!("False Different: queue 'q' in vhost '/' differs on the broker: argument x-max-length is 6 there, not 5. {advice}"),
        ),
        // A RabbitMQ lists the type of every queue.
        (of(wanted_queue("q")), vec![of_type("classic")], "True Declared: on the broker as specified".to_owned()),
        (
            of(wanted_queue("q")),
            vec![of_type("quorum")],
            format!("False Different: queue 'q' in vhost '/' differs on the broker: argument x-queue-type is \"quorum\" there, not \"classic\". {advice}"),
        ),
        (
            TopologyResource { was_declared: true, ..of(BrokerObject::Exchange(exchange("x", "topic"))) },
            vec![BrokerObject::Exchange(exchange("x", "direct")), BrokerObject::Binding(BindingInfo { destination_type: "exchange".to_owned(), ..binding("from", "x") })],
            "False Changed: exchange 'x' in vhost '/' was changed on the broker: type is direct there, not topic. It stays \
             so while it is bound to exchange 'from'"
                .to_owned(),
        ),
        (
            TopologyResource { was_declared: true, ..of(BrokerObject::Exchange(exchange("x", "topic"))) },
            vec![BrokerObject::Exchange(exchange("x", "direct")), BrokerObject::Binding(binding("x", "q"))],
            "False Changed: exchange 'x' in vhost '/' was changed on the broker: type is direct there, not topic. It stays \
             so while queue 'q' is bound to it"
                .to_owned(),
        ),
    ];
    for (object, things, expected) in table {
        assert_eq!(reported(drift::decide(&object, None, &inventory(&things))), expected);
    }
    let owner = resource("other", "q", 0, false).key;
    assert_eq!(
        reported(drift::decide(&of(wanted_queue("q")), Some(&owner), &inventory(&[]))),
        "False Conflict: queue 'q' in vhost '/' belongs to Queue n/other, which was there first"
    );
}

#[test]
fn an_exclusive_queue_of_a_client_is_neither_changed_nor_taken_for_the_wanted_one() {
    let table = [
        (
            of(wanted_queue("q")),
            "False Different: queue 'q' in vhost '/' differs on the broker: exclusive is true there, not false. Delete it \
             there, or delete this resource and create it as it is there",
        ),
        (
            TopologyResource { was_declared: true, ..of(wanted_queue("q")) },
            "False Changed: queue 'q' in vhost '/' was changed on the broker: exclusive is true there, not false. It stays \
             so while a client's connection has it for itself",
        ),
    ];
    for (object, expected) in table {
        assert_eq!(reported(drift::decide(&object, None, &inventory(&[exclusive()]))), expected);
    }
}

#[test]
fn a_deletion_loses_no_message_by_accident() {
    let holding = |messages_ready, messages_unacknowledged| {
        BrokerObject::Queue(QueueInfo { durable: true, messages_ready, messages_unacknowledged, ..queue("q") })
    };
    let consumed = BrokerObject::Queue(QueueInfo { durable: true, consumers: 1, ..queue("q") });
    let held = "Consume or purge them, or set deletionPolicy to Delete or Retain";
    let what = "queue 'q' in vhost '/'";
    let table = [
        (DeleteIfEmpty, vec![holding(0, 0)], "Delete(DeleteOnly { if_empty: true, if_unused: true })".to_owned()),
        // A queue with consumers is deleted when it is empty; a message under way keeps it.
        (DeleteIfEmpty, vec![consumed], "Delete(DeleteOnly { if_empty: true, if_unused: false })".to_owned()),
        (
            DeleteIfEmpty,
            vec![holding(2, 1)],
            format!("False NotEmpty: 2 messages ready and 1 unacknowledged hold {what}. {held}"),
        ),
        // A message that was delivered to a consumer may be requeued.
        (
            DeleteIfEmpty,
            vec![holding(0, 1)],
            format!("False NotEmpty: 0 messages ready and 1 unacknowledged hold {what}. {held}"),
        ),
        (Delete, vec![holding(2, 1)], "Delete(DeleteOnly { if_empty: false, if_unused: false })".to_owned()),
        (Retain, vec![holding(2, 1)], format!("False Deleted: {what} stays on the broker, as deletionPolicy says")),
        (DeleteIfEmpty, vec![], format!("False Deleted: {what} was not on the broker")),
        (
            Delete,
            vec![exclusive()],
            format!("False Deleted: {what} stays on the broker, it is another: exclusive is true there, not false"),
        ),
        // The queue is somebody else's and stays, even with the policy Delete.
        (
            Delete,
            vec![BrokerObject::Queue(queue("q"))],
            format!("False Deleted: {what} stays on the broker, it is another: durable is false there, not true"),
        ),
    ];
    for (policy, things, expected) in table {
        assert_eq!(reported(deletion::decide(&going(wanted_queue("q"), policy), None, &inventory(&things))), expected);
    }
    let own = BrokerObject::Exchange(exchange("amq.topic", "topic"));
    let step = deletion::decide(&going(own.clone(), Delete), None, &inventory(&[own]));
    assert_eq!(reported(step), "False Deleted: exchange 'amq.topic' in vhost '/' stays: it is the broker's own");
}

#[test]
fn a_resource_can_be_deleted_without_its_broker() {
    let let_go = |object: &TopologyResource, gone| deletion::without_broker(object, gone).map(|outcome| said(&outcome));
    let gone = Some("False Deleted: its Broker is gone".to_owned());
    let stays = Some("False Deleted: queue 'q' in vhost '/' stays on the broker, as deletionPolicy says".to_owned());
    let table = [
        (going(wanted_queue("q"), DeleteIfEmpty), true, gone),
        (going(wanted_queue("q"), DeleteIfEmpty), false, None),
        (going(wanted_queue("q"), Retain), false, stays),
        (of(wanted_queue("q")), true, None),
    ];
    for (object, is_gone, expected) in table {
        assert_eq!(let_go(&object, is_gone), expected);
    }
}

#[test]
fn a_refused_deletion_waits_with_the_brokers_words() {
    let refused = || Err(Error::Refused { status: 400, reason: "queue 'q' not empty".to_owned() });
    assert_eq!(
        said(&deletion::outcome(&going(wanted_queue("q"), DeleteIfEmpty), true, refused())),
        "False NotEmpty: queue 'q' in vhost '/' holds messages or is in use. Consume or purge them, or set \
         deletionPolicy to Delete or Retain. The broker says: queue 'q' not empty"
    );
    let error = Err(Error::Unauthorized { user: "ann".to_owned(), reason: "Access refused.".to_owned() });
    let outcome = deletion::outcome(&going(BrokerObject::Exchange(exchange("x", "topic")), Delete), false, error);
    assert_eq!(
        said(&outcome),
        "False DeletionRefused: exchange 'x' in vhost '/' cannot be deleted. Set deletionPolicy to Retain to let the \
         resource go without it. The broker says: the broker refuses user 'ann': Access refused."
    );
    let object = going(wanted_queue("q"), Delete);
    let gone = deletion::outcome(&object, false, Err(Error::NotFound("no queue".to_owned())));
    assert_eq!(said(&gone), "False Deleted: queue 'q' in vhost '/' was deleted from the broker");
}

#[tokio::test]
async fn order_never_matters_and_nothing_is_written_twice() {
    let fake = Fake::start().await.unwrap();
    let client = Client::from_url(&fake.url).unwrap();
    let all = || {
        vec![
            of(BrokerObject::Binding(binding("x", "q"))),
            of(wanted_queue("q")),
            of(BrokerObject::Binding(binding("x", "later"))),
            of(BrokerObject::Exchange(exchange("x", "topic"))),
        ]
    };
    let outcomes = pass(&client, all()).await.unwrap();
    assert_eq!(
        fake.writes(),
        [
            r#"POST /api/bindings/%2F/e/x/q/q {"routing_key":"k","arguments":{}}"#,
            r#"PUT /api/exchanges/%2F/x {"type":"topic","durable":true,"auto_delete":false,"internal":false,"arguments":{}}"#,
            r#"PUT /api/queues/%2F/q {"durable":true,"auto_delete":false,"arguments":{}}"#,
        ]
    );
    let waiting = Outcome::waiting("Missing", "waits for queue 'later' in vhost '/': not on the broker yet");
    let created = |numbers| ready(Effect::Created, numbers);
    assert_eq!(outcomes, [created(None), created(Some(Numbers::default())), waiting.clone(), created(None)]);
    let outcomes = pass(&client, all()).await.unwrap();
    assert_eq!(fake.writes(), [""; 0]);
    let unchanged = |numbers| ready(Effect::Unchanged, numbers);
    assert_eq!(outcomes, [unchanged(None), unchanged(Some(Numbers::default())), waiting, unchanged(None)]);
}

#[tokio::test]
async fn lost_and_changed_objects_are_put_back() {
    let fake = Fake::start().await.unwrap();
    let client = Client::from_url(&fake.url).unwrap();
    let ours = |wanted| TopologyResource { was_declared: true, ..of(wanted) };
    fake.put("/queues/%2F/changed", json!({"durable": false}));
    let outcomes = pass(&client, vec![ours(wanted_queue("lost")), ours(wanted_queue("changed"))]).await.unwrap();
    let named = "durable is false there, not true".to_owned();
    let empty = Some(Numbers::default());
    assert_eq!(outcomes, [ready(Effect::Restored, empty), ready(Effect::Replaced(named.clone()), empty)]);
    assert_eq!(
        fake.writes(),
        [
            "DELETE /api/queues/%2F/changed?if-empty=true&if-unused=true",
            r#"PUT /api/queues/%2F/changed {"durable":true,"auto_delete":false,"arguments":{}}"#,
            r#"PUT /api/queues/%2F/lost {"durable":true,"auto_delete":false,"arguments":{}}"#,
        ]
    );
    // A message arrives at this moment.
    fake.put("/queues/%2F/changed", json!({"durable": false}));
    fake.refuse("DELETE /api/queues/%2F/changed?if-empty=true&if-unused=true", 400, "queue 'changed' not empty");
    let outcomes = pass(&client, vec![ours(wanted_queue("changed"))]).await.unwrap();
    let message = format!(
        "queue 'changed' in vhost '/' was changed on the broker: {named}. It cannot be put back: queue 'changed' not empty"
    );
    assert_eq!(outcomes, [Outcome::waiting("Changed", message)]);
    assert_eq!(fake.writes(), ["DELETE /api/queues/%2F/changed?if-empty=true&if-unused=true"]);
}

#[tokio::test]
async fn nothing_is_changed_on_a_broker_that_is_paused() {
    let fake = Fake::start().await.unwrap();
    let client = Client::from_url(&fake.url).unwrap();
    fake.put("/queues/%2F/there", json!({"durable": true}));
    fake.put("/queues/%2F/going", json!({"durable": true}));
    fake.put("/queues/%2F/changed", json!({"durable": false}));
    let ours = |wanted| Arc::new(TopologyResource { was_declared: true, ..of(wanted) });
    let going = Arc::new(TopologyResource { was_declared: true, ..going(wanted_queue("going"), Delete) });
    let names = ["there", "lost", "changed"].map(|name| ours(wanted_queue(name)));
    let outcomes = reconcile::pass(&client, names.into_iter().chain([going]).collect(), true).await.unwrap();
    assert!(matches!(outcomes[0], Outcome::Ready { .. }), "{outcomes:?}");
    let waits = |name: &str, what: &str| {
        let message = format!("queue '{name}' in vhost '/' is not {what}: spec.paused of the Broker is set");
        Outcome::waiting("Paused", message)
    };
    assert_eq!(outcomes[1..], [waits("lost", "declared"), waits("changed", "declared"), waits("going", "deleted")]);
    assert_eq!(fake.writes(), [""; 0]);
}

#[tokio::test]
async fn a_refusal_keeps_the_brokers_words_and_is_not_tried_again_at_once() {
    let fake = Fake::start().await.unwrap();
    let client = Client::from_url(&fake.url).unwrap();
    fake.refuse("PUT /api/queues/%2F/q", 400, "invalid arg 'x-foo' for queue 'q' in vhost '/': not supported");
    let outcomes = pass(&client, vec![of(wanted_queue("q"))]).await.unwrap();
    let message = "invalid arg 'x-foo' for queue 'q' in vhost '/': not supported".to_owned();
    assert_eq!(outcomes, [Outcome::Refused { reason: "Refused", message }]);
    assert_eq!(fake.writes().len(), 1);
    let rests = TopologyResource { recent_refusal: Some(outcomes[0].clone()), ..of(wanted_queue("q")) };
    assert_eq!(pass(&client, vec![rests]).await.unwrap(), outcomes);
    assert_eq!(fake.writes(), [""; 0]);
    let elsewhere = of(BrokerObject::Queue(QueueInfo { vhost: "v".to_owned(), ..queue("q") }));
    let outcomes = pass(&client, vec![elsewhere]).await.unwrap();
    assert_eq!(outcomes, [Outcome::waiting("Missing", "waits for vhost 'v': not on the broker yet")]);
    assert_eq!(fake.writes(), [""; 0]);
}

#[tokio::test]
async fn bindings_are_deleted_before_their_exchanges_and_queues() {
    let fake = Fake::start().await.unwrap();
    let client = Client::from_url(&fake.url).unwrap();
    fake.put("/queues/%2F/q", json!({"durable": true}));
    fake.put("/queues/%2F/full", json!({"durable": true, "messages_ready": 2}));
    fake.put("/exchanges/%2F/x", json!({"type": "topic", "durable": true}));
    fake.put("/bindings/%2F/e/x/q/q/k", json!({"routing_key": "k"}));
    let all = vec![
        going(wanted_queue("q"), DeleteIfEmpty),
        going(BrokerObject::Exchange(exchange("x", "topic")), DeleteIfEmpty),
        going(wanted_queue("full"), DeleteIfEmpty),
        going(BrokerObject::Binding(binding("x", "q")), DeleteIfEmpty),
    ];
    let outcomes = pass(&client, all).await.unwrap();
    assert_eq!(
        fake.writes(),
        [
            "DELETE /api/bindings/%2F/e/x/q/q/k",
            "DELETE /api/exchanges/%2F/x",
            "DELETE /api/queues/%2F/q?if-empty=true&if-unused=true"
        ]
    );
    let kinds: Vec<_> = outcomes.iter().map(|outcome| outcome.condition().reason).collect();
    assert_eq!(kinds, ["Deleted", "Deleted", "NotEmpty", "Deleted"]);
}

#[tokio::test]
async fn a_broker_that_does_not_answer_is_an_error_of_the_pass() {
    let fake = Fake::start().await.unwrap();
    let client = Client::from_url(&fake.url).unwrap();
    fake.refuse("GET /api/vhosts?columns=name,default_queue_type", 401, "Login failed");
    let error = pass(&client, vec![of(wanted_queue("q"))]).await.unwrap_err();
    assert_eq!(error.to_string(), "the broker refuses user 'guest': Login failed");
    assert_eq!(fake.writes(), [""; 0]);
}

#[tokio::test]
async fn an_object_that_the_broker_accepts_and_does_not_have_is_not_ready() {
    let fake = Fake::start().await.unwrap();
    let client = Client::from_url(&fake.url).unwrap();
    fake.haunt("/queues/%2F/ghost");
    fake.haunt("/exchanges/%2F/ghost");
    let restored = |wanted| TopologyResource { was_declared: true, ..of(wanted) };
    let all = vec![
        of(wanted_queue("ghost")),
        of(BrokerObject::Exchange(exchange("ghost", "topic"))),
        restored(wanted_queue("lost")),
    ];
    let outcomes = pass(&client, all).await.unwrap();
    let message = |what: &str| format!("the broker accepts the declaration of {what}, and does not have it");
    assert_eq!(
        outcomes,
        [
            Outcome::waiting("NotOnBroker", message("queue 'ghost' in vhost '/'")),
            Outcome::waiting("NotOnBroker", message("exchange 'ghost' in vhost '/'")),
            ready(Effect::Restored, Some(Numbers::default())),
        ]
    );
    // The queue was lost and only seems to come back: the broker also answers without a body.
    fake.remove("/queues/%2F/lost");
    fake.haunt("/queues/%2F/lost");
    let outcomes = pass(&client, vec![restored(wanted_queue("lost"))]).await.unwrap();
    assert_eq!(outcomes[0].condition().reason, "NotOnBroker");
}

#[test]
fn a_queue_without_a_type_is_of_the_type_of_its_vhost() {
    let mut inventory = inventory(&[]);
    inventory.vhosts.insert("/".to_owned(), Some("quorum".to_owned()));
    let arguments = json!({"x-queue-type": "quorum"}).as_object().unwrap().clone();
    inventory.insert(&BrokerObject::Queue(QueueInfo { durable: true, arguments, ..queue("q") }));
    let step = drift::decide(&of(wanted_queue("q")), None, &inventory);
    assert_eq!(reported(step), "True Declared: on the broker as specified");
}

#[tokio::test]
async fn only_the_lists_that_are_needed_are_asked_for() {
    let fake = Fake::start().await.unwrap();
    let client = Client::from_url(&fake.url).unwrap();
    for (wanted, expected) in [
        (wanted_queue("q"), vec!["queues", "vhosts"]),
        (BrokerObject::Exchange(exchange("x", "topic")), vec!["bindings", "exchanges", "vhosts"]),
        (BrokerObject::Binding(binding("x", "q")), vec!["bindings", "exchanges", "queues", "vhosts"]),
    ] {
        pass(&client, vec![of(wanted)]).await.unwrap();
        assert_eq!(fake.lists(), expected);
    }
}

#[tokio::test]
async fn a_broker_that_stops_answering_is_not_asked_for_all_the_rest() {
    let fake = Fake::start().await.unwrap();
    let client = Client::from_url(&fake.url).unwrap();
    fake.cut("PUT /api/queues/");
    let all = (0..200).map(|number| of(wanted_queue(&format!("q{number}")))).collect();
    let outcomes = pass(&client, all).await.unwrap();
    assert_eq!(outcomes.len(), 200);
    assert!(outcomes.iter().all(|outcome| outcome.condition().reason == "BrokerUnavailable"), "{outcomes:?}");
    let asked = fake.writes().len();
    assert!(asked <= 32, "{asked} requests");
}

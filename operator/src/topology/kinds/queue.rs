//! Queues.
use super::{Difference, Found, Identity, Numbers, arguments_differ, differences, found};
use leveret_client::{Arguments, Queue};

pub(super) fn identity(queue: &Queue) -> Identity {
    Identity(vec!["queue".to_owned(), queue.vhost.clone(), queue.name.clone()])
}

/// Compares a queue with what is there, in a vhost whose queues are of `default_type` unless they say another.
pub(super) fn compare(wanted: &Queue, is: Option<&Queue>, default_type: Option<&str>) -> Found {
    let Some(is) = is else { return Found::Missing };
    let arguments = arguments_differ(&typed(wanted, default_type), &typed(is, None));
    let fields = differences(&[
        ("durable", wanted.durable.to_string(), is.durable.to_string()),
        ("autoDelete", wanted.auto_delete.to_string(), is.auto_delete.to_string()),
        // No resource is that of a connection.
        ("exclusive", false.to_string(), is.exclusive.to_string()),
    ]);
    let numbers = Numbers { ready: is.messages_ready, unacked: is.messages_unacknowledged, consumers: is.consumers };
    let in_use =
        if is.exclusive { Some("a client's connection has it for itself".to_owned()) } else { in_use(numbers) };
    found([fields, arguments], Some(numbers), in_use)
}

/// The arguments with the type in them: a RabbitMQ says the type of every queue, asked for or not.
fn typed(queue: &Queue, default_type: Option<&str>) -> Arguments {
    let mut arguments = queue.arguments.clone();
    let default_type = default_type.filter(|type_| *type_ != "undefined").unwrap_or(CLASSIC);
    arguments.entry(TYPE).or_insert_with(|| default_type.into());
    arguments
}

const TYPE: &str = "x-queue-type";
/// What a queue is that says nothing else.
const CLASSIC: &str = "classic";

fn in_use(Numbers { ready, unacked, consumers }: Numbers) -> Option<Difference> {
    (ready + unacked + consumers > 0)
        .then(|| format!("it has {ready} messages ready, {unacked} unacknowledged and {consumers} consumers"))
}

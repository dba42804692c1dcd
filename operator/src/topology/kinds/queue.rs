//! Queues.
use super::{Difference, Found, Identity, Numbers, arguments_differ, differences, found};
use leveret_client::Queue;

pub(super) fn identity(queue: &Queue) -> Identity {
    Identity(vec!["queue".to_owned(), queue.vhost.clone(), queue.name.clone()])
}

pub(super) fn compare(wanted: &Queue, is: Option<&Queue>) -> Found {
    let Some(is) = is else { return Found::Missing };
    let fields = differences(&[
        ("durable", wanted.durable.to_string(), is.durable.to_string()),
        ("autoDelete", wanted.auto_delete.to_string(), is.auto_delete.to_string()),
    ]);
    let numbers = Numbers { ready: is.messages_ready, unacked: is.messages_unacknowledged, consumers: is.consumers };
    let in_use = in_use(numbers);
    found([fields, arguments_differ(&wanted.arguments, &is.arguments)], Some(numbers), in_use)
}

fn in_use(Numbers { ready, unacked, consumers }: Numbers) -> Option<Difference> {
    (ready + unacked + consumers > 0)
        .then(|| format!("it has {ready} messages ready, {unacked} unacknowledged and {consumers} consumers"))
}

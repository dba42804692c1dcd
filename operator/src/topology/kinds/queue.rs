//! Queues.
use super::{Found, Identity, arguments_differ, differences, found};
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
    let numbers = (is.messages_ready, is.messages_unacknowledged, is.consumers);
    found([fields, arguments_differ(&wanted.arguments, &is.arguments)], Some(numbers))
}

//! Who has what, and what is different: without a broker.
use super::conflict;
use super::kinds::Wanted;
use super::object::{Key, Object};
use leveret_api::DeletionPolicy;
use leveret_client::Queue;

fn object(name: &str, queue: &str, age: i64, deleting: bool) -> Object {
    Object {
        key: Key { kind: "Queue", namespace: "n".to_owned(), name: name.to_owned() },
        wanted: Wanted::Queue(Queue { name: queue.to_owned(), vhost: "/".to_owned(), ..Queue::default() }),
        deletion_policy: DeletionPolicy::DeleteIfEmpty,
        deleting,
        age: (age, name.to_owned()),
        generation: 1,
        was_ready: false,
    }
}

#[test]
fn the_older_claim_wins_unless_it_is_on_its_way_out() {
    let name = |owner: &Option<Key>| owner.as_ref().map(|key| key.name.clone());
    let owners =
        conflict::owners(&[object("new", "q", 2, false), object("old", "q", 1, false), object("x", "p", 3, false)]);
    assert_eq!(owners.iter().map(name).collect::<Vec<_>>(), [Some("old".to_owned()), None, None]);
    let owners = conflict::owners(&[object("new", "q", 2, false), object("old", "q", 1, true)]);
    assert_eq!(owners.iter().map(name).collect::<Vec<_>>(), [None, Some("new".to_owned())]);
}

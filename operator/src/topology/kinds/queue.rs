//! Queues.
use super::comparison::{Field, differing_arguments, differing_fields};
use super::field::check_own_name;
use super::{Comparison, Correction, FieldError, Identity, Inventory, Kind, Lists, Numbers};
use leveret_api::{BrokerRef, DeletionPolicy, Queue, TopologyStatus};
use leveret_client::{Arguments, Client, DeleteOnly, Error, Made, QueueInfo as Object};

impl Kind for Queue {
    type Object = Object;

    const RANK: u8 = 20;

    fn broker(&self) -> &BrokerRef {
        &self.spec.broker_ref
    }

    fn deletion_policy(&self) -> DeletionPolicy {
        self.spec.deletion_policy
    }

    fn status(&self) -> Option<&TopologyStatus> {
        self.status.as_ref()
    }

    fn object(&self, name: &str) -> Object {
        let spec = self.spec.clone();
        Object {
            name: spec.name.unwrap_or_else(|| name.to_owned()),
            vhost: spec.vhost,
            durable: spec.durable,
            auto_delete: spec.auto_delete,
            arguments: spec.arguments.unwrap_or_default(),
            ..Object::default()
        }
    }

    fn check(queue: &Object) -> Result<(), FieldError> {
        check_own_name(&queue.name, &queue.vhost)
    }

    fn identity(queue: &Object) -> Identity {
        Identity::of::<Self>(&[&queue.vhost, &queue.name])
    }

    fn describe(queue: &Object) -> String {
        format!("queue '{}' in vhost '{}'", queue.name, queue.vhost)
    }

    fn lists() -> Lists {
        Lists { queues: true, ..Lists::default() }
    }

    async fn list(client: &Client) -> Result<Vec<Object>, Error> {
        client.queues().await
    }

    fn missing_requirements(queue: &Object, inventory: &Inventory) -> Option<String> {
        inventory.missing_vhost(&queue.vhost)
    }

    fn compare(wanted: &Object, existing: Option<&Object>, inventory: &Inventory) -> Comparison {
        let Some(existing) = existing else { return Comparison::Missing };
        // A queue that names no type has the default type of its virtual host.
        let default_type = inventory.vhosts.get(&wanted.vhost).and_then(Option::as_deref);
        let arguments = differing_arguments(&typed_arguments(wanted, default_type), &typed_arguments(existing, None));
        let fields = differing_fields(&[
            Field::new("durable", wanted.durable, existing.durable),
            Field::new("autoDelete", wanted.auto_delete, existing.auto_delete),
            // No resource wants a queue that belongs to a client's connection.
            Field::new("exclusive", false, existing.exclusive),
        ]);
        let numbers = Numbers {
            ready: existing.messages_ready,
            unacked: existing.messages_unacknowledged,
            consumers: existing.consumers,
        };
        Comparison::of([fields, arguments], Some(numbers), || correction(existing, numbers))
    }

    async fn declare(queue: &Object, client: &Client) -> Result<Made, Error> {
        client.declare_queue(queue).await
    }

    async fn exists(queue: &Object, client: &Client) -> Result<bool, Error> {
        client.queue(&queue.vhost, &queue.name).await.map(|existing| existing.name == queue.name)
    }

    async fn delete(queue: &Object, _: Option<&Object>, client: &Client, only: DeleteOnly) -> Result<(), Error> {
        client.delete_queue(&queue.vhost, &queue.name, only).await
    }

    fn empty_numbers() -> Option<Numbers> {
        Some(Numbers::default())
    }
}

/// Returns the arguments of the queue, including its type: RabbitMQ lists the type of every queue, whether it was
/// declared with one or not.
fn typed_arguments(queue: &Object, default_type: Option<&str>) -> Arguments {
    let mut arguments = queue.arguments.clone();
    let default_type = default_type.filter(|type_| *type_ != "undefined").unwrap_or(CLASSIC);
    arguments.entry(TYPE).or_insert_with(|| default_type.into());
    arguments
}

fn correction(existing: &Object, Numbers { ready, unacked, consumers }: Numbers) -> Correction {
    if existing.exclusive {
        Correction::Wait("a client's connection has it for itself".to_owned())
    } else if ready + unacked + consumers > 0 {
        Correction::Wait(format!("it has {ready} messages ready, {unacked} unacknowledged and {consumers} consumers"))
    } else {
        Correction::Replace
    }
}

const TYPE: &str = "x-queue-type";
/// The type of a queue if neither its declaration nor its virtual host names another.
const CLASSIC: &str = "classic";

//! Arguments of queues: which are honoured, which mean nothing, which are refused.
use super::exchanges::unsupported;
use super::queues::{QueueDeclare, queue_type};
use leveret_model::refusal::Refusal;
use leveret_model::table::FieldTable;

/// An argument that begins with `x-` would change what the queue does, and is refused unless it does so or does nothing in
/// RabbitMQ 4 either.
pub(super) fn check(at: (&str, &str), declare: &QueueDeclare) -> Result<(), Refusal> {
    let quorum = queue_type(&declare.arguments) == "quorum";
    let invalid = |argument: &str, why: String| {
        let (vhost, name) = at;
        Err(Refusal::precondition(format!("invalid arg '{argument}' for queue '{name}' in vhost '{vhost}': {why}")))
    };
    for (argument, value) in declare.arguments.iter() {
        match argument {
            "x-queue-type" => match value.as_str() {
                Some("classic" | "quorum") => {}
                Some(other) => return invalid(argument, format!("\"unsupported queue type '{other}'\"")),
                None => return invalid(argument, format!("{value} is no string")),
            },
            "x-delivery-limit" if quorum && value.as_integer().is_some_and(is_delivery_limit) => {}
            "x-delivery-limit" if quorum => return invalid(argument, format!("{value} is not a number from -1 on")),
            _ if is_idle(argument) => {}
            _ if argument.starts_with("x-") => return Err(unsupported("queue", at, argument)),
            _ => {}
        }
    }
    if !quorum {
        return Ok(());
    }
    let wrong = match declare {
        QueueDeclare { server_named: true, .. } => {
            let text = "Cannot declare a server-named queue for type rabbit_quorum_queue".to_owned();
            return Err(Refusal::precondition(text));
        }
        QueueDeclare { durable: false, .. } => "non-durable",
        QueueDeclare { exclusive: Some(_), .. } => "exclusive",
        QueueDeclare { auto_delete: true, .. } => "auto-delete",
        _ => return Ok(()),
    };
    Err(Refusal::precondition(format!(
        "invalid property '{wrong}' for queue '{}' in vhost '{}': a quorum queue is durable, shared and stays",
        at.1, at.0
    )))
}

/// Arguments of a queue that are taken and change nothing, as in RabbitMQ 4: they chose how classic queues were stored and
/// mirrored.
pub fn idle_arguments(arguments: &FieldTable) -> impl Iterator<Item = &str> {
    arguments.iter().map(|(name, _)| name).filter(|name| is_idle(name))
}

fn is_idle(argument: &str) -> bool {
    matches!(argument, "x-queue-mode" | "x-queue-version") || argument.starts_with("x-ha-")
}

fn is_delivery_limit(limit: i64) -> bool {
    limit == -1 || u32::try_from(limit).is_ok()
}

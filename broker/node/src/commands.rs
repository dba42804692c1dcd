//! The encoding of commands that change the definitions, for the log of group 0.
//!
//! Format: the number of the command `u8`, then its fields: 1 declare exchange `vhost, name, type, flags u8 (1 durable, 2
//! auto-delete, 4 internal), arguments`; 2 delete exchange `vhost, name, if unused u8`; 3 declare queue `vhost, name, flags
//! u8 (1 durable, 2 exclusive, 4 auto-delete, 8 named by the server), arguments, origin`; 4 delete queue `vhost, name, uid
//! u64`; 5 delete exclusive queues `connection, most u32`; 6 bind and 7 unbind `binding, origin`; 8 node started; 9 node gone
//! `run`. An origin is `u8`: 0 the node itself, 1 the management API, 2 a connection, which follows. A connection is `run,
//! number u64`, a run `node u64, incarnation u64`. Texts, bindings and tables are encoded as in `definitions`.
use crate::definitions::{bond, put_bond, put_run, put_table, put_texts, run, table, text};
use bytes::{Buf, BufMut};
use leveret_engine::catalog::{CatalogCommand, ConnectionId, ExchangeDeclare, Origin, QueueDeclare, QueueId};
use leveret_model::exchange::ExchangeType;

/// Appends a command.
pub(crate) fn encode(out: &mut Vec<u8>, command: &CatalogCommand) {
    match command {
        CatalogCommand::DeclareExchange { vhost, name, declare } => {
            put_texts(out, 1, &[vhost, name, declare.kind.name()]);
            put_flags(out, [declare.durable, declare.auto_delete, declare.internal, false]);
            put_table(out, &declare.arguments);
        }
        CatalogCommand::DeleteExchange { vhost, name, if_unused } => {
            put_texts(out, 2, &[vhost, name]);
            out.push(u8::from(*if_unused));
        }
        CatalogCommand::DeclareQueue { vhost, name, declare, origin } => {
            let QueueDeclare { durable, exclusive, auto_delete, arguments, server_named } = declare;
            put_texts(out, 3, &[vhost, name]);
            put_flags(out, [*durable, *exclusive, *auto_delete, *server_named]);
            put_table(out, arguments);
            put_origin(out, *origin);
        }
        CatalogCommand::DeleteQueue { vhost, name, id } => {
            put_texts(out, 4, &[vhost, name]);
            out.put_u64_le(id.0);
        }
        CatalogCommand::DeleteExclusive { owner, most } => {
            out.push(5);
            put_connection(out, *owner);
            out.put_u32_le(*most);
        }
        CatalogCommand::Bind { bond, origin } => {
            put_bond(out, 6, bond);
            put_origin(out, *origin);
        }
        CatalogCommand::Unbind { bond, origin } => {
            put_bond(out, 7, bond);
            put_origin(out, *origin);
        }
        CatalogCommand::NodeStarted => out.push(8),
        CatalogCommand::NodeGone(run) => {
            out.push(9);
            put_run(out, *run);
        }
    }
}

fn put_flags(out: &mut Vec<u8>, flags: [bool; 4]) {
    out.push(flags.iter().rev().fold(0, |all, flag| all << 1 | u8::from(*flag)));
}

fn put_connection(out: &mut Vec<u8>, ConnectionId { run, number }: ConnectionId) {
    put_run(out, run);
    out.put_u64_le(number);
}

fn put_origin(out: &mut Vec<u8>, origin: Origin) {
    match origin {
        Origin::System => out.push(0),
        Origin::Api => out.push(1),
        Origin::Connection(connection) => {
            out.push(2);
            put_connection(out, connection);
        }
    }
}

/// Decodes a command; `None` if it is not known or not whole.
pub(crate) fn decode(bytes: &[u8]) -> Option<CatalogCommand> {
    let rest = &mut &*bytes;
    let command = match rest.try_get_u8().ok()? {
        1 => {
            let (vhost, name) = (text(rest)?, text(rest)?);
            let kind = text(rest)?.parse::<ExchangeType>().ok()?;
            let [durable, auto_delete, internal, _] = flags(rest)?;
            let declare = ExchangeDeclare { kind, durable, auto_delete, internal, arguments: table(rest)? };
            CatalogCommand::DeclareExchange { vhost, name, declare }
        }
        2 => {
            let (vhost, name) = (text(rest)?, text(rest)?);
            CatalogCommand::DeleteExchange { vhost, name, if_unused: rest.try_get_u8().ok()? == 1 }
        }
        3 => {
            let (vhost, name) = (text(rest)?, text(rest)?);
            let [durable, exclusive, auto_delete, server_named] = flags(rest)?;
            let declare = QueueDeclare { durable, exclusive, auto_delete, arguments: table(rest)?, server_named };
            CatalogCommand::DeclareQueue { vhost, name, declare, origin: origin(rest)? }
        }
        4 => {
            let (vhost, name) = (text(rest)?, text(rest)?);
            CatalogCommand::DeleteQueue { vhost, name, id: QueueId(rest.try_get_u64_le().ok()?) }
        }
        5 => CatalogCommand::DeleteExclusive { owner: connection(rest)?, most: rest.try_get_u32_le().ok()? },
        6 => CatalogCommand::Bind { bond: bond(rest)?, origin: origin(rest)? },
        7 => CatalogCommand::Unbind { bond: bond(rest)?, origin: origin(rest)? },
        8 => CatalogCommand::NodeStarted,
        9 => CatalogCommand::NodeGone(run(rest)?),
        _ => return None,
    };
    rest.is_empty().then_some(command)
}

fn flags(rest: &mut &[u8]) -> Option<[bool; 4]> {
    let flags = rest.try_get_u8().ok()?;
    Some([1, 2, 4, 8].map(|bit| flags & bit != 0))
}

fn connection(rest: &mut &[u8]) -> Option<ConnectionId> {
    Some(ConnectionId { run: run(rest)?, number: rest.try_get_u64_le().ok()? })
}

fn origin(rest: &mut &[u8]) -> Option<Origin> {
    Some(match rest.try_get_u8().ok()? {
        0 => Origin::System,
        1 => Origin::Api,
        2 => Origin::Connection(connection(rest)?),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use leveret_engine::catalog::{Bond, Destination, NodeRun};
    use leveret_model::table::{FieldTable, FieldValue};

    fn commands() -> Vec<CatalogCommand> {
        let (vhost, name) = ("/".to_owned(), "name".to_owned());
        let arguments = FieldTable(vec![("x-queue-type".to_owned(), FieldValue::from("quorum"))]);
        let run = NodeRun { node: 5, incarnation: 6 };
        let owner = ConnectionId { run, number: 7 };
        let bond = Bond {
            vhost: "/".into(),
            source: "e".into(),
            destination: Destination::Exchange("d".to_owned()),
            routing_key: b"k\xff".to_vec(),
            arguments: arguments.clone(),
        };
        let exchange = ExchangeDeclare {
            kind: ExchangeType::Topic,
            durable: false,
            auto_delete: true,
            internal: false,
            arguments: arguments.clone(),
        };
        let queue = QueueDeclare { durable: true, exclusive: false, auto_delete: false, arguments, server_named: true };
        let both = (vhost.clone(), name.clone());
        vec![
            CatalogCommand::DeclareExchange { vhost: both.0.clone(), name: both.1.clone(), declare: exchange },
            CatalogCommand::DeleteExchange { vhost: both.0.clone(), name: both.1.clone(), if_unused: true },
            CatalogCommand::DeclareQueue {
                vhost: both.0,
                name: both.1,
                declare: queue,
                origin: Origin::Connection(owner),
            },
            CatalogCommand::DeleteQueue { vhost, name, id: QueueId(9) },
            CatalogCommand::DeleteExclusive { owner, most: 64 },
            CatalogCommand::Bind { bond: bond.clone(), origin: Origin::Api },
            CatalogCommand::Unbind { bond, origin: Origin::System },
            CatalogCommand::NodeStarted,
            CatalogCommand::NodeGone(run),
        ]
    }

    #[test]
    fn commands_are_decoded_as_they_were_encoded() {
        for command in commands() {
            let mut bytes = Vec::new();
            encode(&mut bytes, &command);
            assert_eq!(decode(&bytes).as_ref(), Some(&command));
            assert!((0..bytes.len()).all(|len| decode(&bytes[..len]).is_none()), "{command:?}");
            bytes.push(0);
            assert_eq!(decode(&bytes), None);
        }
    }

    /// The encoding must not change, because a data folder outlives its broker.
    #[test]
    fn commands_have_the_same_bytes_as_in_existing_data_folders() {
        let golden: [&[u8]; 4] = [
            b"\x03\x01\0\0\0/\x04\0\0\0name\x09\x01\0\0\0\x0c\0\0\0x-queue-typeS\x06\0\0\0quorum\x02\x05\0\0\0\0\0\0\0\x06\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0",
            b"\x05\x05\0\0\0\0\0\0\0\x06\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0\x40\0\0\0",
            b"\x08",
            b"\x09\x05\0\0\0\0\0\0\0\x06\0\0\0\0\0\0\0",
        ];
        for (golden, at) in golden.into_iter().zip([2, 4, 7, 8]) {
            let mut bytes = Vec::new();
            encode(&mut bytes, &commands()[at]);
            assert_eq!(bytes.escape_ascii().to_string(), golden.escape_ascii().to_string());
        }
    }
}

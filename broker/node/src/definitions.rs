//! The encoding of definitions as facts, of which a snapshot of group 0 consists. The log of group 0 has them, too, in data
//! folders of earlier versions, in the order in which the catalog accepted them.
//!
//! Format: `version u8 = 1, incarnation u64`, then facts, each beginning with its number: 1 next identity, 2 virtual host,
//! 3 virtual host gone, 4 exchange, 5 exchange gone, 6 queue, 7 queue gone, 8 binding, 9 binding gone, 10 a node runs `run`, 11 transient exchange `vhost, name, type, run, auto-delete u8, internal u8,
//! arguments`, 12 transient queue `vhost, name, uid u64, durable u8, auto-delete u8, run, owned u8, owner u64, arguments`. A
//! run is `node u64, incarnation u64`. Texts are `length
//! u32, bytes`, tables `n u32` of name and value, values a letter of AMQP and its bytes, integers little-endian.
use bytes::{Buf, BufMut};
use leveret_engine::catalog::{Bond, Destination, ExchangeDeclare, Fact, NodeRun, QueueId, QueueLife};
use leveret_model::exchange::ExchangeType;
use leveret_model::table::{FieldTable, FieldValue};
use std::sync::Arc;

#[cfg(test)]
pub(crate) fn encode(incarnation: u64, facts: &[Fact]) -> Vec<u8> {
    let mut out = vec![VERSION];
    out.put_u64_le(incarnation);
    facts.iter().for_each(|fact| put_fact(&mut out, fact));
    out
}

/// Decodes an entry or a snapshot to its incarnation and its facts; `None` if it has another version or is malformed.
pub(crate) fn decode(bytes: &[u8]) -> Option<(u64, Vec<Fact>)> {
    let (&version, mut rest) = bytes.split_first()?;
    (version == VERSION).then_some(())?;
    let incarnation = rest.try_get_u64_le().ok()?;
    Some((incarnation, facts(rest)?))
}

/// Decodes facts; `None` if one is not known or not whole.
pub(crate) fn facts(mut rest: &[u8]) -> Option<Vec<Fact>> {
    let mut facts = Vec::new();
    while !rest.is_empty() {
        facts.push(fact(&mut rest)?);
    }
    Some(facts)
}

/// Appends one fact.
pub(crate) fn put_fact(out: &mut Vec<u8>, fact: &Fact) {
    match fact {
        Fact::NextId(next) => {
            out.push(1);
            out.put_u64_le(*next);
        }
        Fact::Vhost(name) => put_texts(out, 2, &[name]),
        Fact::VhostGone(name) => put_texts(out, 3, &[name]),
        Fact::Exchange { vhost, name, declare } => {
            put_texts(out, 4, &[vhost, name, declare.kind.name()]);
            out.extend_from_slice(&[
                u8::from(declare.durable),
                u8::from(declare.auto_delete),
                u8::from(declare.internal),
            ]);
            put_table(out, &declare.arguments);
        }
        Fact::ExchangeGone { vhost, name } => put_texts(out, 5, &[vhost, name]),
        Fact::Queue { vhost, name, id, auto_delete, arguments } => {
            put_texts(out, 6, &[vhost, name]);
            out.put_u64_le(id.0);
            out.push(u8::from(*auto_delete));
            put_table(out, arguments);
        }
        Fact::QueueGone { vhost, name } => put_texts(out, 7, &[vhost, name]),
        Fact::Running(run) => {
            out.push(10);
            put_run(out, *run);
        }
        Fact::TransientExchange { vhost, name, declare, home } => {
            put_texts(out, 11, &[vhost, name, declare.kind.name()]);
            put_run(out, *home);
            out.extend_from_slice(&[u8::from(declare.auto_delete), u8::from(declare.internal)]);
            put_table(out, &declare.arguments);
        }
        Fact::TransientQueue { vhost, name, id, life: QueueLife { durable, home, owner }, auto_delete, arguments } => {
            put_texts(out, 12, &[vhost, name]);
            out.put_u64_le(id.0);
            out.extend_from_slice(&[u8::from(*durable), u8::from(*auto_delete)]);
            put_run(out, *home);
            out.push(u8::from(owner.is_some()));
            out.put_u64_le(owner.unwrap_or(0));
            put_table(out, arguments);
        }
        Fact::Bound(bond) => put_bond(out, 8, bond),
        Fact::Unbound(bond) => put_bond(out, 9, bond),
    }
}

/// Appends a number and texts.
pub(crate) fn put_texts(out: &mut Vec<u8>, number: u8, names: &[&str]) {
    out.push(number);
    names.iter().for_each(|name| put_bytes(out, name.as_bytes()));
}

pub(crate) fn put_run(out: &mut Vec<u8>, NodeRun { node, incarnation }: NodeRun) {
    out.put_u64_le(node);
    out.put_u64_le(incarnation);
}

/// Appends a number and a binding.
pub(crate) fn put_bond(out: &mut Vec<u8>, number: u8, bond: &Bond) {
    put_texts(out, number, &[&bond.vhost, &bond.source]);
    let (kind, name) = match &bond.destination {
        Destination::Queue(name) => (0, name),
        Destination::Exchange(name) => (1, name),
    };
    put_texts(out, kind, &[name]);
    put_bytes(out, &bond.routing_key);
    put_table(out, &bond.arguments);
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.put_u32_le(bytes.len() as u32);
    out.extend_from_slice(bytes);
}

pub(crate) fn put_table(out: &mut Vec<u8>, table: &FieldTable) {
    out.put_u32_le(table.0.len() as u32);
    for (name, value) in &table.0 {
        put_bytes(out, name.as_bytes());
        put_value(out, value);
    }
}

fn put_value(out: &mut Vec<u8>, value: &FieldValue) {
    let mut fixed = |letter: u8, bytes: &[u8]| {
        out.push(letter);
        out.extend_from_slice(bytes);
    };
    match value {
        FieldValue::Boolean(value) => fixed(b't', &[u8::from(*value)]),
        FieldValue::Int8(value) => fixed(b'b', &value.to_le_bytes()),
        FieldValue::UInt8(value) => fixed(b'B', &value.to_le_bytes()),
        FieldValue::Int16(value) => fixed(b's', &value.to_le_bytes()),
        FieldValue::UInt16(value) => fixed(b'u', &value.to_le_bytes()),
        FieldValue::Int32(value) => fixed(b'I', &value.to_le_bytes()),
        FieldValue::UInt32(value) => fixed(b'i', &value.to_le_bytes()),
        FieldValue::Int64(value) => fixed(b'l', &value.to_le_bytes()),
        FieldValue::Float(value) => fixed(b'f', &value.to_le_bytes()),
        FieldValue::Double(value) => fixed(b'd', &value.to_le_bytes()),
        FieldValue::Decimal(places, value) => {
            fixed(b'D', &[*places]);
            out.put_u32_le(*value);
        }
        FieldValue::Timestamp(value) => fixed(b'T', &value.to_le_bytes()),
        FieldValue::Void => fixed(b'V', &[]),
        FieldValue::LongString(bytes) => {
            out.push(b'S');
            put_bytes(out, bytes);
        }
        FieldValue::ByteArray(bytes) => {
            out.push(b'x');
            put_bytes(out, bytes);
        }
        FieldValue::Array(values) => {
            out.push(b'A');
            out.put_u32_le(values.len() as u32);
            values.iter().for_each(|value| put_value(out, value));
        }
        FieldValue::Table(table) => {
            out.push(b'F');
            put_table(out, table);
        }
    }
}

/// Decodes one fact and removes it from the beginning of `rest`; `None` if it is not known or cut short.
pub(crate) fn fact(rest: &mut &[u8]) -> Option<Fact> {
    Some(match rest.try_get_u8().ok()? {
        1 => Fact::NextId(rest.try_get_u64_le().ok()?),
        2 => Fact::Vhost(name(rest)?),
        3 => Fact::VhostGone(name(rest)?),
        4 => {
            let (vhost, name, kind) = (name(rest)?, name(rest)?, text(rest)?);
            let (durable, auto_delete, internal) =
                (rest.try_get_u8().ok()? == 1, rest.try_get_u8().ok()? == 1, rest.try_get_u8().ok()? == 1);
            let kind = kind.parse::<ExchangeType>().ok()?;
            let declare = ExchangeDeclare { kind, durable, auto_delete, internal, arguments: table(rest)? };
            Fact::Exchange { vhost, name, declare }
        }
        5 => Fact::ExchangeGone { vhost: name(rest)?, name: name(rest)? },
        6 => {
            let (vhost, name, id, auto_delete) =
                (name(rest)?, name(rest)?, rest.try_get_u64_le().ok()?, rest.try_get_u8().ok()? == 1);
            Fact::Queue { vhost, name, id: QueueId(id), auto_delete, arguments: table(rest)? }
        }
        7 => Fact::QueueGone { vhost: name(rest)?, name: name(rest)? },
        8 => Fact::Bound(bond(rest)?),
        9 => Fact::Unbound(bond(rest)?),
        10 => Fact::Running(run(rest)?),
        11 => {
            let (vhost, name, kind, home) = (name(rest)?, name(rest)?, text(rest)?, run(rest)?);
            let kind = kind.parse::<ExchangeType>().ok()?;
            let (auto_delete, internal) = (rest.try_get_u8().ok()? == 1, rest.try_get_u8().ok()? == 1);
            let declare = ExchangeDeclare { kind, durable: false, auto_delete, internal, arguments: table(rest)? };
            Fact::TransientExchange { vhost, name, declare, home }
        }
        12 => {
            let (vhost, name, id) = (name(rest)?, name(rest)?, QueueId(rest.try_get_u64_le().ok()?));
            let (durable, auto_delete) = (rest.try_get_u8().ok()? == 1, rest.try_get_u8().ok()? == 1);
            let (home, owned, owner) = (run(rest)?, rest.try_get_u8().ok()? == 1, rest.try_get_u64_le().ok()?);
            let life = QueueLife { durable, home, owner: owned.then_some(owner) };
            Fact::TransientQueue { vhost, name, id, life, auto_delete, arguments: table(rest)? }
        }
        _ => return None,
    })
}

pub(crate) fn run(rest: &mut &[u8]) -> Option<NodeRun> {
    Some(NodeRun { node: rest.try_get_u64_le().ok()?, incarnation: rest.try_get_u64_le().ok()? })
}

pub(crate) fn bond(rest: &mut &[u8]) -> Option<Bond> {
    let (vhost, source) = (name(rest)?, name(rest)?);
    let destination = match rest.try_get_u8().ok()? {
        0 => Destination::Queue(text(rest)?),
        _ => Destination::Exchange(text(rest)?),
    };
    Some(Bond { vhost, source, destination, routing_key: octets(rest)?, arguments: table(rest)? })
}

fn octets(rest: &mut &[u8]) -> Option<Vec<u8>> {
    let length = rest.try_get_u32_le().ok()? as usize;
    Some(rest.split_off(..length)?.to_vec())
}

pub(crate) fn text(rest: &mut &[u8]) -> Option<String> {
    String::from_utf8(octets(rest)?).ok()
}

fn name(rest: &mut &[u8]) -> Option<Arc<str>> {
    text(rest).map(Into::into)
}

pub(crate) fn table(rest: &mut &[u8]) -> Option<FieldTable> {
    let entries: Option<Vec<_>> = (0..rest.try_get_u32_le().ok()?).map(|_| Some((text(rest)?, value(rest)?))).collect();
    Some(FieldTable(entries?))
}

fn value(rest: &mut &[u8]) -> Option<FieldValue> {
    Some(match rest.try_get_u8().ok()? {
        b't' => FieldValue::Boolean(rest.try_get_u8().ok()? == 1),
        b'b' => FieldValue::Int8(rest.try_get_i8().ok()?),
        b'B' => FieldValue::UInt8(rest.try_get_u8().ok()?),
        b's' => FieldValue::Int16(rest.try_get_i16_le().ok()?),
        b'u' => FieldValue::UInt16(rest.try_get_u16_le().ok()?),
        b'I' => FieldValue::Int32(rest.try_get_i32_le().ok()?),
        b'i' => FieldValue::UInt32(rest.try_get_u32_le().ok()?),
        b'l' => FieldValue::Int64(rest.try_get_i64_le().ok()?),
        b'f' => FieldValue::Float(rest.try_get_f32_le().ok()?),
        b'd' => FieldValue::Double(rest.try_get_f64_le().ok()?),
        b'D' => FieldValue::Decimal(rest.try_get_u8().ok()?, rest.try_get_u32_le().ok()?),
        b'T' => FieldValue::Timestamp(rest.try_get_u64_le().ok()?),
        b'V' => FieldValue::Void,
        b'S' => FieldValue::LongString(octets(rest)?),
        b'x' => FieldValue::ByteArray(octets(rest)?),
        b'A' => FieldValue::Array((0..rest.try_get_u32_le().ok()?).map(|_| value(rest)).collect::<Option<_>>()?),
        b'F' => FieldValue::Table(table(rest)?),
        _ => return None,
    })
}

const VERSION: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;
    use leveret_engine::catalog::Catalog;

    fn facts() -> Vec<Fact> {
        let arguments = FieldTable(vec![
            ("x-queue-type".to_owned(), "quorum".into()),
            (
                "a".to_owned(),
                FieldValue::Array(vec![FieldValue::Void, FieldValue::Decimal(1, 2), FieldValue::Double(0.5)]),
            ),
            ("t".to_owned(), FieldValue::Table(FieldTable(vec![("b".to_owned(), FieldValue::Boolean(true))]))),
        ]);
        let bond = Bond {
            vhost: "/".into(),
            source: "e".into(),
            destination: Destination::Queue("q".to_owned()),
            routing_key: b"k\xff".to_vec(),
            arguments: FieldTable::default(),
        };
        let declare = ExchangeDeclare {
            kind: ExchangeType::Topic,
            durable: true,
            auto_delete: false,
            internal: true,
            arguments: FieldTable::default(),
        };
        let (vhost, name): (Arc<str>, Arc<str>) = ("/".into(), "q".into());
        let home = NodeRun { node: 1, incarnation: 2 };
        vec![
            Fact::Vhost("other".into()),
            Fact::Exchange { vhost: vhost.clone(), name: "e".into(), declare: declare.clone() },
            Fact::Queue { vhost: vhost.clone(), name, id: QueueId(77), auto_delete: false, arguments },
            Fact::Bound(Bond { routing_key: b"k".to_vec(), ..bond.clone() }),
            Fact::Unbound(bond),
            Fact::QueueGone { vhost: vhost.clone(), name: "no".into() },
            Fact::VhostGone("no".into()),
            Fact::Running(home),
            Fact::TransientExchange {
                vhost: vhost.clone(),
                name: "transient".into(),
                declare: ExchangeDeclare { durable: false, ..declare },
                home,
            },
            Fact::TransientQueue {
                vhost: vhost.clone(),
                name: "exclusive".into(),
                id: QueueId(80),
                life: QueueLife { durable: true, home, owner: Some(3) },
                auto_delete: true,
                arguments: FieldTable::default(),
            },
            Fact::ExchangeGone { vhost, name: "no".into() },
        ]
    }

    #[test]
    fn facts_are_decoded_as_they_were_encoded_and_recreate_the_catalog() {
        let facts = facts();
        let (incarnation, read) = decode(&encode(5, &facts)).unwrap();
        assert_eq!((incarnation, &read), (5, &facts));
        let mut catalog = Catalog::default();
        read.into_iter().for_each(|fact| catalog.replay(fact));
        let snapshot = catalog.facts();
        let mut again = Catalog::default();
        snapshot.iter().cloned().for_each(|fact| again.replay(fact));
        assert_eq!(again.facts(), snapshot);
        assert_eq!(again.bindings("/").unwrap().count(), 1);
        assert!(again.next_identity() > 77);
    }

    /// The encoding must not change, because a data folder outlives its broker.
    #[test]
    fn facts_have_the_same_bytes_as_in_existing_data_folders() {
        let arguments = FieldTable(vec![("x-delivery-limit".to_owned(), FieldValue::Int32(3))]);
        let (vhost, name): (Arc<str>, Arc<str>) = ("/".into(), "q".into());
        let facts = [
            Fact::NextId(258),
            Fact::Queue { vhost: vhost.clone(), name, id: QueueId(7), auto_delete: true, arguments },
            Fact::Unbound(Bond {
                vhost,
                source: "e".into(),
                destination: Destination::Exchange("d".to_owned()),
                routing_key: b"k".to_vec(),
                arguments: FieldTable::default(),
            }),
        ];
        let golden = [
            &b"\x01\x05\0\0\0\0\0\0\0"[..],
            b"\x01\x02\x01\0\0\0\0\0\0",
            b"\x06\x01\0\0\0/\x01\0\0\0q\x07\0\0\0\0\0\0\0\x01\x01\0\0\0\x10\0\0\0x-delivery-limitI\x03\0\0\0",
            b"\x09\x01\0\0\0/\x01\0\0\0e\x01\x01\0\0\0d\x01\0\0\0k\0\0\0\0",
        ]
        .concat();
        assert_eq!(encode(5, &facts).escape_ascii().to_string(), golden.escape_ascii().to_string());
        assert_eq!(decode(&golden), Some((5, facts.to_vec())));
    }
}

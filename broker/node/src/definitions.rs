//! What is declared, as facts in the log of group 0: said after the catalog has accepted them, one after the other.
//!
//! Format: `version u8 = 1, incarnation u64`, then facts, each beginning with its number: 1 next identity, 2 virtual host, 3
//! virtual host gone, 4 exchange, 5 exchange gone, 6 queue, 7 queue gone, 8 binding, 9 binding gone. Texts are `length u32,
//! bytes`, tables `n u32` of name and value, values a letter of AMQP and its bytes, integers little-endian. A snapshot is the
//! facts that make the catalog as it is.
use crate::entry::{long, word};
use leveret_engine::catalog::{Catalog, Destination, ExchangeDeclare, QueueDeclare, QueueId};
use leveret_model::exchange::ExchangeType;
use leveret_model::table::{FieldTable, FieldValue};

/// Something that was declared or deleted.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Fact {
    NextId(u64),
    Vhost(String),
    VhostGone(String),
    Exchange { vhost: String, name: String, declare: ExchangeDeclare },
    ExchangeGone { vhost: String, name: String },
    Queue { vhost: String, name: String, id: u64, auto_delete: bool, arguments: FieldTable },
    QueueGone { vhost: String, name: String },
    Bound(Route),
    Unbound(Route),
}

/// A binding.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Route {
    pub(crate) vhost: String,
    pub(crate) source: String,
    pub(crate) destination: Destination,
    pub(crate) routing_key: Vec<u8>,
    pub(crate) arguments: FieldTable,
}

pub(crate) fn encode(incarnation: u64, facts: &[Fact]) -> Vec<u8> {
    let mut out = vec![VERSION];
    out.extend_from_slice(&incarnation.to_le_bytes());
    facts.iter().for_each(|fact| put_fact(&mut out, fact));
    out
}

/// Incarnation and facts; none if it is not of this version.
pub(crate) fn decode(bytes: &[u8]) -> Option<(u64, Vec<Fact>)> {
    let (&version, mut rest) = bytes.split_first()?;
    (version == VERSION).then_some(())?;
    let incarnation = long(&mut rest)?;
    let mut facts = Vec::new();
    while !rest.is_empty() {
        facts.push(fact(&mut rest)?);
    }
    Some((incarnation, facts))
}

/// The facts that make the durable part of a catalog.
pub(crate) fn of(catalog: &Catalog) -> Vec<Fact> {
    let mut facts = vec![Fact::NextId(catalog.next_identity())];
    let mut bindings = Vec::new();
    for vhost in catalog.vhosts() {
        let at = vhost.to_string();
        facts.push(Fact::Vhost(at.clone()));
        for (name, exchange) in catalog.exchanges(vhost).into_iter().flatten() {
            let declare = exchange.declared.clone();
            if declare.durable && !name.is_empty() && !name.starts_with("amq.") {
                facts.push(Fact::Exchange { vhost: at.clone(), name: name.to_string(), declare });
            }
        }
        for (name, queue) in catalog.queues(vhost).into_iter().flatten().filter(|(_, queue)| queue.is_logged()) {
            let (id, auto_delete, arguments) = (queue.id.0, queue.auto_delete, queue.arguments.clone());
            facts.push(Fact::Queue { vhost: at.clone(), name: name.to_string(), id, auto_delete, arguments });
        }
        for (source, binding) in catalog.bindings(vhost).into_iter().flatten() {
            if catalog.is_logged(vhost, source, &binding.destination) {
                bindings.push(Fact::Bound(Route {
                    vhost: at.clone(),
                    source: source.to_string(),
                    destination: binding.destination.clone(),
                    routing_key: binding.routing_key.to_vec(),
                    arguments: binding.arguments.clone(),
                }));
            }
        }
    }
    facts.extend(bindings);
    facts
}

/// Applies a fact found in the log. What it asks for was accepted before: a refusal now means that a later fact took it
/// back, and is passed over.
pub(crate) fn apply(catalog: &mut Catalog, fact: Fact) {
    match fact {
        Fact::NextId(next) => catalog.raise_next_identity(next),
        Fact::Vhost(name) => drop(catalog.create_vhost(&name)),
        Fact::VhostGone(name) => drop(catalog.delete_vhost(&name)),
        Fact::Exchange { vhost, name, declare } => drop(catalog.declare_exchange(&vhost, &name, declare)),
        Fact::ExchangeGone { vhost, name } => drop(catalog.delete_exchange(&vhost, &name, false)),
        Fact::Queue { vhost, name, id, auto_delete, arguments } => {
            let declare = QueueDeclare {
                durable: true,
                exclusive: None,
                auto_delete,
                arguments,
                server_named: true,
                connection: None,
            };
            let _ = catalog.declare_queue_as(&vhost, &name, declare, QueueId(id));
        }
        Fact::QueueGone { vhost, name } => drop(catalog.delete_queue(&vhost, &name, None)),
        Fact::Bound(Route { vhost, source, destination, routing_key, arguments }) => {
            let _ = catalog.bind(&vhost, &source, destination, (&routing_key, &arguments), None);
        }
        Fact::Unbound(Route { vhost, source, destination, routing_key, arguments }) => {
            let _ = catalog.unbind(&vhost, &source, &destination, (&routing_key, &arguments), None);
        }
    }
}

fn put_fact(out: &mut Vec<u8>, fact: &Fact) {
    match fact {
        Fact::NextId(next) => {
            out.push(1);
            out.extend_from_slice(&next.to_le_bytes());
        }
        Fact::Vhost(name) => put_names(out, 2, &[name]),
        Fact::VhostGone(name) => put_names(out, 3, &[name]),
        Fact::Exchange { vhost, name, declare } => {
            put_names(out, 4, &[vhost, name, declare.kind.name()]);
            out.extend_from_slice(&[
                u8::from(declare.durable),
                u8::from(declare.auto_delete),
                u8::from(declare.internal),
            ]);
            put_table(out, &declare.arguments);
        }
        Fact::ExchangeGone { vhost, name } => put_names(out, 5, &[vhost, name]),
        Fact::Queue { vhost, name, id, auto_delete, arguments } => {
            put_names(out, 6, &[vhost, name]);
            out.extend_from_slice(&id.to_le_bytes());
            out.push(u8::from(*auto_delete));
            put_table(out, arguments);
        }
        Fact::QueueGone { vhost, name } => put_names(out, 7, &[vhost, name]),
        Fact::Bound(route) => put_route(out, 8, route),
        Fact::Unbound(route) => put_route(out, 9, route),
    }
}

fn put_names(out: &mut Vec<u8>, number: u8, names: &[&str]) {
    out.push(number);
    names.iter().for_each(|name| put_bytes(out, name.as_bytes()));
}

fn put_route(out: &mut Vec<u8>, number: u8, route: &Route) {
    put_names(out, number, &[&route.vhost, &route.source]);
    let (kind, name) = match &route.destination {
        Destination::Queue(name) => (0, name),
        Destination::Exchange(name) => (1, name),
    };
    put_names(out, kind, &[name]);
    put_bytes(out, &route.routing_key);
    put_table(out, &route.arguments);
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

fn put_table(out: &mut Vec<u8>, table: &FieldTable) {
    out.extend_from_slice(&(table.0.len() as u32).to_le_bytes());
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
            out.extend_from_slice(&value.to_le_bytes());
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
            out.extend_from_slice(&(values.len() as u32).to_le_bytes());
            values.iter().for_each(|value| put_value(out, value));
        }
        FieldValue::Table(table) => {
            out.push(b'F');
            put_table(out, table);
        }
    }
}

fn fact(rest: &mut &[u8]) -> Option<Fact> {
    Some(match byte(rest)? {
        1 => Fact::NextId(long(rest)?),
        2 => Fact::Vhost(text(rest)?),
        3 => Fact::VhostGone(text(rest)?),
        4 => {
            let (vhost, name, kind) = (text(rest)?, text(rest)?, text(rest)?);
            let (durable, auto_delete, internal) = (byte(rest)? == 1, byte(rest)? == 1, byte(rest)? == 1);
            let kind = kind.parse::<ExchangeType>().ok()?;
            let declare = ExchangeDeclare { kind, durable, auto_delete, internal, arguments: table(rest)? };
            Fact::Exchange { vhost, name, declare }
        }
        5 => Fact::ExchangeGone { vhost: text(rest)?, name: text(rest)? },
        6 => {
            let (vhost, name, id, auto_delete) = (text(rest)?, text(rest)?, long(rest)?, byte(rest)? == 1);
            Fact::Queue { vhost, name, id, auto_delete, arguments: table(rest)? }
        }
        7 => Fact::QueueGone { vhost: text(rest)?, name: text(rest)? },
        8 => Fact::Bound(route(rest)?),
        9 => Fact::Unbound(route(rest)?),
        _ => return None,
    })
}

fn route(rest: &mut &[u8]) -> Option<Route> {
    let (vhost, source) = (text(rest)?, text(rest)?);
    let destination = match byte(rest)? {
        0 => Destination::Queue(text(rest)?),
        _ => Destination::Exchange(text(rest)?),
    };
    Some(Route { vhost, source, destination, routing_key: octets(rest)?, arguments: table(rest)? })
}

fn byte(rest: &mut &[u8]) -> Option<u8> {
    rest.split_off_first().copied()
}

fn octets(rest: &mut &[u8]) -> Option<Vec<u8>> {
    let length = word(rest)? as usize;
    Some(rest.split_off(..length)?.to_vec())
}

fn text(rest: &mut &[u8]) -> Option<String> {
    String::from_utf8(octets(rest)?).ok()
}

fn table(rest: &mut &[u8]) -> Option<FieldTable> {
    let entries: Option<Vec<_>> = (0..word(rest)?).map(|_| Some((text(rest)?, value(rest)?))).collect();
    Some(FieldTable(entries?))
}

fn value(rest: &mut &[u8]) -> Option<FieldValue> {
    fn fixed<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
        let (value, after) = rest.split_first_chunk::<N>()?;
        *rest = after;
        Some(*value)
    }
    Some(match byte(rest)? {
        b't' => FieldValue::Boolean(byte(rest)? == 1),
        b'b' => FieldValue::Int8(i8::from_le_bytes(fixed(rest)?)),
        b'B' => FieldValue::UInt8(byte(rest)?),
        b's' => FieldValue::Int16(i16::from_le_bytes(fixed(rest)?)),
        b'u' => FieldValue::UInt16(u16::from_le_bytes(fixed(rest)?)),
        b'I' => FieldValue::Int32(i32::from_le_bytes(fixed(rest)?)),
        b'i' => FieldValue::UInt32(word(rest)?),
        b'l' => FieldValue::Int64(i64::from_le_bytes(fixed(rest)?)),
        b'f' => FieldValue::Float(f32::from_le_bytes(fixed(rest)?)),
        b'd' => FieldValue::Double(f64::from_le_bytes(fixed(rest)?)),
        b'D' => FieldValue::Decimal(byte(rest)?, word(rest)?),
        b'T' => FieldValue::Timestamp(long(rest)?),
        b'V' => FieldValue::Void,
        b'S' => FieldValue::LongString(octets(rest)?),
        b'x' => FieldValue::ByteArray(octets(rest)?),
        b'A' => FieldValue::Array((0..word(rest)?).map(|_| value(rest)).collect::<Option<_>>()?),
        b'F' => FieldValue::Table(table(rest)?),
        _ => return None,
    })
}

const VERSION: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_come_out_as_they_went_in_and_make_the_same_catalog() {
        let mut catalog = Catalog::default();
        let arguments = FieldTable(vec![
            ("x-queue-type".to_owned(), "quorum".into()),
            (
                "a".to_owned(),
                FieldValue::Array(vec![FieldValue::Void, FieldValue::Decimal(1, 2), FieldValue::Double(0.5)]),
            ),
            ("t".to_owned(), FieldValue::Table(FieldTable(vec![("b".to_owned(), FieldValue::Boolean(true))]))),
        ]);
        let route = Route {
            vhost: "/".to_owned(),
            source: "e".to_owned(),
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
        let at = || ("/".to_owned(), "q".to_owned());
        let facts = vec![
            Fact::Vhost("other".to_owned()),
            Fact::Exchange { vhost: at().0, name: "e".to_owned(), declare },
            Fact::Queue { vhost: at().0, name: at().1, id: 77, auto_delete: false, arguments },
            Fact::Bound(Route { routing_key: b"k".to_vec(), ..route.clone() }),
            Fact::Unbound(route),
            Fact::QueueGone { vhost: at().0, name: "no".to_owned() },
            Fact::VhostGone("no".to_owned()),
            Fact::ExchangeGone { vhost: at().0, name: "no".to_owned() },
        ];
        let (incarnation, read) = decode(&encode(5, &facts)).unwrap();
        assert_eq!((incarnation, &read), (5, &facts));
        for fact in read {
            apply(&mut catalog, fact);
        }
        let snapshot = of(&catalog);
        assert_eq!(snapshot[0], Fact::NextId(78));
        let mut again = Catalog::default();
        snapshot.iter().cloned().for_each(|fact| apply(&mut again, fact));
        // Identities of exchanges are given anew, so the next one is another.
        assert_eq!(of(&again)[1..], snapshot[1..]);
        assert_eq!(again.bindings("/").unwrap().count(), 1);
    }
}

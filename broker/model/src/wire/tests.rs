//! Tables and properties are encoded and parsed again; nesting that is too deep is refused.
use super::{table, text};
use crate::properties::{self, BrokerProperties, Properties};
use crate::table::{FieldTable, FieldValue};
use proptest::prelude::*;

fn value() -> impl Strategy<Value = FieldValue> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(FieldValue::Boolean),
        any::<i8>().prop_map(FieldValue::Int8),
        any::<u8>().prop_map(FieldValue::UInt8),
        any::<i16>().prop_map(FieldValue::Int16),
        any::<u16>().prop_map(FieldValue::UInt16),
        any::<i32>().prop_map(FieldValue::Int32),
        any::<u32>().prop_map(FieldValue::UInt32),
        any::<i64>().prop_map(FieldValue::Int64),
        (-1e30f32..1e30).prop_map(FieldValue::Float),
        (-1e300f64..1e300).prop_map(FieldValue::Double),
        (any::<u8>(), any::<u32>()).prop_map(|(places, value)| FieldValue::Decimal(places, value)),
        prop::collection::vec(any::<u8>(), 0..40).prop_map(FieldValue::LongString),
        prop::collection::vec(any::<u8>(), 0..40).prop_map(FieldValue::ByteArray),
        any::<u64>().prop_map(FieldValue::Timestamp),
        Just(FieldValue::Void),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(FieldValue::Array),
            prop::collection::vec((short(), inner), 0..4).prop_map(|entries| FieldValue::Table(FieldTable(entries))),
        ]
    })
}

/// Returns a strategy for short strings of any bytes, as text.
fn short() -> impl Strategy<Value = String> {
    let bytes =
        prop_oneof!["[a-zA-Z0-9_.-]{0,20}".prop_map(String::into_bytes), prop::collection::vec(any::<u8>(), 0..30)];
    bytes.prop_map(|bytes| text::from_bytes(&bytes))
}

fn any_table() -> impl Strategy<Value = FieldTable> {
    prop::collection::vec((short(), value()), 0..6).prop_map(FieldTable)
}

fn any_properties() -> impl Strategy<Value = Properties> {
    let text = || prop::option::of(short());
    let first = (text(), text(), prop::option::of(any_table()), any::<Option<u8>>(), any::<Option<u8>>());
    let second = (text(), text(), text(), text(), any::<Option<u64>>(), text(), text(), text(), text());
    (first, second).prop_map(|((content_type, content_encoding, headers, delivery_mode, priority), rest)| {
        let (correlation_id, reply_to, expiration, message_id, timestamp, kind, user_id, app_id, cluster_id) = rest;
        Properties {
            content_type,
            content_encoding,
            headers,
            delivery_mode,
            priority,
            correlation_id,
            reply_to,
            expiration,
            message_id,
            timestamp,
            kind,
            user_id,
            app_id,
            cluster_id,
        }
    })
}

proptest! {
    #[test]
    fn tables_survive_encoding_and_parsing(before in any_table()) {
        let mut bytes = Vec::new();
        table::encode(&mut bytes, &before);
        prop_assert_eq!(table::parse(&bytes), Ok(before));
        for end in 0..bytes.len() {
            prop_assert!(table::parse(&bytes[..end]).is_err());
        }
    }

    #[test]
    fn properties_survive_encoding_and_parsing(before in any_properties()) {
        let mut bytes = Vec::new();
        before.encode(&mut bytes);
        let names = |name| before.headers.as_ref().is_some_and(|headers| headers.get(name).is_some());
        let by_property = before.expiration.is_some() || before.user_id.is_some();
        let asked = BrokerProperties { by_property, recipients: names("CC") || names("BCC") };
        prop_assert_eq!(properties::check(&bytes), Ok(asked));
        prop_assert_eq!(Properties::parse(&bytes), Ok(before));
        for end in 0..bytes.len() {
            prop_assert!(properties::check(&bytes[..end]).is_err());
        }
    }

    #[test]
    fn removing_a_header_changes_nothing_else(mut before in any_properties(), at in 0usize..7) {
        if let Some(headers) = &mut before.headers {
            headers.0.insert(at.min(headers.0.len()), ("BCC".to_owned(), "a".into()));
        }
        let [mut with, mut without] = [Vec::new(), Vec::new()];
        before.encode(&mut with);
        if let Some(headers) = &mut before.headers {
            headers.0.retain(|(name, _)| name != "BCC");
        }
        before.encode(&mut without);
        prop_assert_eq!(properties::without_header(&with, b"BCC"), Ok(without));
    }
}

#[test]
fn nesting_has_a_bound() {
    for octet in [b'F', b'A'] {
        for (levels, is_taken) in [(20, true), (40, false), (18_000, false)] {
            let name: &[u8] = if octet == b'F' { b"\x01a" } else { b"" };
            let mut inner = Vec::new();
            for _ in 0..levels {
                let length = (inner.len() as u32).to_be_bytes();
                // Built from the end: a nested table follows the head of the table around it.
                inner.splice(0..0, [name, &[octet], &length].concat());
            }
            let table = match octet {
                b'F' => inner,
                _ => [b"\x01a", &inner[..]].concat(),
            };
            let bytes = [&(table.len() as u32).to_be_bytes(), &table[..]].concat();
            assert_eq!(table::parse(&bytes).is_ok(), is_taken, "{levels}");
            assert_eq!(properties::check(&[&[0x20, 0], &bytes[..]].concat()).is_ok(), is_taken, "{levels}");
            assert_eq!(table::parse_entries(&table).is_ok(), is_taken, "{levels}");
        }
    }
}

//! Exchanges.
use super::{Found, Identity, arguments_differ, differences, found};
use leveret_client::Exchange;

pub(super) fn identity(exchange: &Exchange) -> Identity {
    Identity(vec!["exchange".to_owned(), exchange.vhost.clone(), exchange.name.clone()])
}

pub(super) fn compare(wanted: &Exchange, is: Option<&Exchange>) -> Found {
    let Some(is) = is else { return Found::Missing };
    let fields = differences(&[
        ("type", wanted.kind.clone(), is.kind.clone()),
        ("durable", wanted.durable.to_string(), is.durable.to_string()),
        ("autoDelete", wanted.auto_delete.to_string(), is.auto_delete.to_string()),
        ("internal", wanted.internal.to_string(), is.internal.to_string()),
    ]);
    found([fields, arguments_differ(&wanted.arguments, &is.arguments)], None)
}

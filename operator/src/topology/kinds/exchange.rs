//! Exchanges.
use super::{Found, Identity, arguments_differ, differences, found};
use leveret_client::{Binding, Exchange};

pub(super) fn identity(exchange: &Exchange) -> Identity {
    Identity(vec!["exchange".to_owned(), exchange.vhost.clone(), exchange.name.clone()])
}

pub(super) fn compare<'a>(
    wanted: &Exchange,
    is: Option<&Exchange>,
    mut bindings: impl Iterator<Item = &'a Binding>,
) -> Found {
    let Some(is) = is else { return Found::Missing };
    let fields = differences(&[
        ("type", wanted.kind.clone(), is.kind.clone()),
        ("durable", wanted.durable.to_string(), is.durable.to_string()),
        ("autoDelete", wanted.auto_delete.to_string(), is.auto_delete.to_string()),
        ("internal", wanted.internal.to_string(), is.internal.to_string()),
    ]);
    let arguments = arguments_differ(&wanted.arguments, &is.arguments);
    // Only what differs is searched for: it takes the whole list. Bindings from it and to it go with it.
    let in_use =
        (fields.is_some() || arguments.is_some()).then(|| bindings.find_map(|binding| bound(binding, is))).flatten();
    found([fields, arguments], None, in_use)
}

/// What a binding has to do with an exchange.
fn bound(binding: &Binding, exchange: &Exchange) -> Option<String> {
    let Binding { vhost, source, destination, destination_type, .. } = binding;
    if *vhost != exchange.vhost {
        None
    } else if *source == exchange.name {
        Some(format!("{destination_type} '{destination}' is bound to it"))
    } else if destination_type == "exchange" && *destination == exchange.name {
        Some(format!("it is bound to exchange '{source}'"))
    } else {
        None
    }
}

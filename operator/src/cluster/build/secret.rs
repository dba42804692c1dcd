//! The Secret of the default user, in the shape that the Service Binding specification looks for. Its password is made
//! once and never changed.
use super::{AMQP, meta};
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use leveret_api::Broker;

pub(crate) fn name(broker: &Broker) -> String {
    format!("{}-default-user", broker.name_any())
}

/// A Secret with a password of these random bytes.
pub(super) fn build(broker: &Broker, random: &[u8; 32]) -> Secret {
    let text = |bytes: &[u8]| bytes.iter().map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).collect::<String>();
    let (username, password) = (format!("user-{}", text(&random[..8])), text(&random[8..]));
    let host = format!("{}.{}.svc", broker.name_any(), broker.namespace().unwrap_or_default());
    let connection_string = format!("amqp://{username}:{password}@{host}:{AMQP}/");
    let fields = [
        ("type", "rabbitmq".to_owned()),
        ("provider", "leveret".to_owned()),
        ("host", host),
        ("port", AMQP.to_string()),
        ("username", username),
        ("password", password),
        ("connection_string", connection_string),
    ];
    Secret {
        metadata: meta(broker, name(broker)),
        type_: Some("servicebinding.io/rabbitmq".to_owned()),
        string_data: Some(fields.map(|(field, value)| (field.to_owned(), value)).into()),
        ..Secret::default()
    }
}

/// Characters that need no quoting anywhere; 32, so that each is as likely as any other.
const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

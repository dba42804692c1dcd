//! The two Secrets of the default user: one for applications, in the shape that the Service Binding specification defines,
//! and one for the broker's pods and the operator.
//!
//! Users edit the first one to change the password. The second one holds the login that the pods are to run with, so that
//! neither an edit nor the loss of the first one locks anybody out.
use super::{AMQP, meta};
use crate::cluster::login::{Login, Logins};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use leveret_api::Broker;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// Returns the name of the Secret for applications.
pub(crate) fn name(broker: &Broker) -> String {
    format!("{}-default-user", broker.name_any())
}

/// Returns the name of the Secret for the pods.
pub(crate) fn login_name(broker: &Broker) -> String {
    format!("{}-login", broker.name_any())
}

/// Returns the Secret for applications, with everything that they need to connect.
pub(super) fn build(broker: &Broker, login: &Login) -> Secret {
    let host = format!("{}.{}.svc", broker.name_any(), broker.namespace().unwrap_or_default());
    let encoded = |text: &str| utf8_percent_encode(text, UNRESERVED).to_string();
    let connection_string = format!("amqp://{}:{}@{host}:{AMQP}/", encoded(&login.username), encoded(&login.password));
    let fields = [
        ("type", "rabbitmq".to_owned()),
        ("provider", "leveret".to_owned()),
        ("host", host),
        ("port", AMQP.to_string()),
        ("username", login.username.clone()),
        ("password", login.password.clone()),
        ("connection_string", connection_string),
    ];
    secret(broker, name(broker), "servicebinding.io/rabbitmq", &fields)
}

/// Returns the Secret for the pods: the login, its version, and the previous login while a pod may still run with that
/// one.
pub(super) fn build_login(broker: &Broker, logins: &Logins) -> Secret {
    let previous = logins.previous.clone().unwrap_or_default();
    let fields = [
        ("username", logins.current.username.clone()),
        ("password", logins.current.password.clone()),
        ("version", logins.version.clone()),
        ("previous-username", previous.username),
        ("previous-password", previous.password),
    ];
    secret(broker, login_name(broker), "leveret.dev/login", &fields)
}

fn secret(broker: &Broker, name: String, kind: &str, fields: &[(&str, String)]) -> Secret {
    let bytes = |(name, value): &(&str, String)| ((*name).to_owned(), ByteString(value.clone().into_bytes()));
    Secret {
        metadata: meta(broker, name),
        type_: Some(kind.to_owned()),
        data: Some(fields.iter().map(bytes).collect()),
        ..Secret::default()
    }
}

/// The characters that are not percent-encoded in an address.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

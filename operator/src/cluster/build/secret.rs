//! The Secrets of a Broker: one for applications, in the shape that the Service Binding specification defines, one with the
//! login of the broker's pods and the operator, and one that the nodes of the cluster share.
//!
//! Users edit the first one to change the password. The second one holds the login that the pods are to run with, so that
//! neither an edit nor the loss of the first one locks anybody out. It has a copy of the third one, so that the loss of one
//! of the two does not keep the nodes from knowing each other.
use super::{AMQP, Secrets, meta};
use crate::cluster::login::Login;
use crate::cluster::shared_secret::{COPY, COPY_VERSION, SECRET, SharedSecret, VERSION};
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

/// Returns the name of the Secret that the nodes of the cluster share.
pub(crate) fn shared_name(broker: &Broker) -> String {
    format!("{}-cluster", broker.name_any())
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

/// Returns the Secret that the nodes of the cluster share.
pub(super) fn build_shared(broker: &Broker, shared: &SharedSecret) -> Secret {
    let fields = [(SECRET, shared.secret.clone()), (VERSION, shared.version.clone())];
    secret(broker, shared_name(broker), "leveret.dev/cluster", &fields)
}

/// Returns the Secret for the pods: the login, its version, the previous login while a pod may still run with that one, and
/// a copy of the secret of the cluster.
pub(super) fn build_login(broker: &Broker, Secrets { logins, shared }: &Secrets) -> Secret {
    let previous = logins.previous.clone().unwrap_or_default();
    let fields = [
        ("username", logins.current.username.clone()),
        ("password", logins.current.password.clone()),
        ("version", logins.version.clone()),
        ("previous-username", previous.username),
        ("previous-password", previous.password),
        (COPY, shared.secret.clone()),
        (COPY_VERSION, shared.version.clone()),
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

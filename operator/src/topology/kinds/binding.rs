//! Bindings: all that they are is their identity.
use super::Identity;
use leveret_client::Binding;

pub(super) fn identity(binding: &Binding) -> Identity {
    // An object's keys are ordered: equal arguments are equal texts.
    let arguments = serde_json::Value::Object(binding.arguments.clone()).to_string();
    let Binding { vhost, source, destination, destination_type, routing_key, .. } = binding.clone();
    Identity(vec!["binding".to_owned(), vhost, source, destination_type, destination, routing_key, arguments])
}

//! Bindings: all that they are is their identity.
use super::Identity;
use leveret_client::Binding;

pub(super) fn identity(binding: &Binding) -> Identity {
    // An object's keys are ordered: equal arguments are equal texts.
    let arguments = serde_json::Value::Object(binding.arguments.clone()).to_string();
    let Binding { vhost, source, destination, destination_type, routing_key, .. } = binding.clone();
    Identity(vec!["binding".to_owned(), vhost, source, destination_type, destination, routing_key, arguments])
}

/// What a binding leads from and to, each as kind, name and identity.
pub(super) fn ends(binding: &Binding) -> [(&str, &str, Identity); 2] {
    let end = |kind: &str, name: &str| Identity(vec![kind.to_owned(), binding.vhost.clone(), name.to_owned()]);
    let (kind, destination) = (&*binding.destination_type, &*binding.destination);
    [("exchange", &*binding.source, end("exchange", &binding.source)), (kind, destination, end(kind, destination))]
}

//! Bindings. All fields of a binding belong to its identity, so a binding is either as wanted or missing.
use super::field::{NameField, check_names};
use super::{Comparison, FieldError, Identity, Inventory, Kind, Lists};
use leveret_api::{
    Binding, BrokerRef, DeletionPolicy, DestinationType, Exchange, Queue, SpecArguments, TopologyStatus,
};
use leveret_client::{BindingInfo as Object, Client, DeleteOnly, Error, Made};

impl Kind for Binding {
    type Object = Object;

    /// A binding is declared after its exchange and its queue.
    const RANK: u8 = 30;

    fn broker(&self) -> &BrokerRef {
        &self.spec.broker_ref
    }

    fn deletion_policy(&self) -> DeletionPolicy {
        self.spec.deletion_policy
    }

    fn status(&self) -> Option<&TopologyStatus> {
        self.status.as_ref()
    }

    fn object(&self, _: &str) -> Object {
        let spec = self.spec.clone();
        let destination_type = match spec.destination_type {
            DestinationType::Queue => QUEUE,
            DestinationType::Exchange => EXCHANGE,
        };
        Object {
            source: spec.source,
            vhost: spec.vhost,
            destination: spec.destination,
            destination_type: destination_type.to_owned(),
            routing_key: spec.routing_key,
            arguments: spec.arguments.unwrap_or_default(),
            properties_key: String::new(),
        }
    }

    fn check(binding: &Object) -> Result<(), FieldError> {
        check_names(&[
            NameField { field: "source", value: &binding.source },
            NameField { field: "destination", value: &binding.destination },
            NameField { field: "vhost", value: &binding.vhost },
        ])
    }

    fn identity(binding: &Object) -> Identity {
        let Object { vhost, source, destination, destination_type, routing_key, .. } = binding;
        // The keys of a JSON object are ordered, so equal arguments have equal texts.
        let arguments = serde_json::Value::Object(binding.arguments.clone()).to_string();
        Identity::of::<Self>(&[vhost, source, destination_type, destination, routing_key, &arguments])
    }

    fn describe(binding: &Object) -> String {
        let Object { vhost, source, destination, destination_type, routing_key, .. } = binding;
        format!(
            "binding from '{source}' to {destination_type} '{destination}' with key '{routing_key}' in vhost '{vhost}'"
        )
    }

    #[allow(clippy::needless_update, reason = "a further kind has a further list")]
    fn lists() -> Lists {
        // A binding waits for its source and its destination.
        Lists { exchanges: true, queues: true, bindings: true, ..Lists::default() }
    }

    async fn list(client: &Client) -> Result<Vec<Object>, Error> {
        let mut bindings = client.bindings().await?;
        // Every queue is bound to the default exchange; no resource can want such a binding.
        bindings.retain(|binding| !binding.source.is_empty());
        Ok(bindings)
    }

    fn missing_requirements(binding: &Object, inventory: &Inventory) -> Option<String> {
        let Object { vhost, source, destination, destination_type, .. } = binding;
        if let Some(missing) = inventory.missing_vhost(vhost) {
            return Some(missing);
        }
        let ends = [(EXCHANGE, source), (&**destination_type, destination)];
        let is_there = |kind: &str, name: &str| match kind {
            EXCHANGE => inventory.exchanges.contains_key(&Identity::of::<Exchange>(&[vhost, name])),
            _ => inventory.queues.contains_key(&Identity::of::<Queue>(&[vhost, name])),
        };
        let missing = ends.into_iter().filter(|(kind, name)| !is_there(kind, name));
        let missing: Vec<_> = missing.map(|(kind, name)| format!("{kind} '{name}' in vhost '{vhost}'")).collect();
        (!missing.is_empty()).then(|| missing.join(" and "))
    }

    fn compare(_: &Object, existing: Option<&Object>, _: &Inventory) -> Comparison {
        existing.map_or(Comparison::Missing, |_| Comparison::Equal(None))
    }

    async fn declare(binding: &Object, client: &Client) -> Result<Made, Error> {
        client.bind(binding).await.map(|()| Made::Created)
    }

    async fn exists(binding: &Object, client: &Client) -> Result<bool, Error> {
        let bindings = client.bindings_like(binding).await?;
        Ok(bindings.iter().any(|existing| Self::identity(existing) == Self::identity(binding)))
    }

    async fn delete(_: &Object, existing: Option<&Object>, client: &Client, _: DeleteOnly) -> Result<(), Error> {
        match existing {
            // The broker deletes a binding by the `properties_key` that it has given to the binding.
            Some(existing) => client.unbind(existing).await,
            None => Ok(()),
        }
    }

    /// A binding with other arguments would be another binding beside the declared one. The API server refuses most
    /// changes of the arguments, but does not notice that an argument was renamed.
    fn keep_declared(binding: &mut Object, status: &TopologyStatus) -> Option<String> {
        let declared = status.arguments.as_ref().filter(|declared| **declared != binding.arguments)?;
        binding.arguments = declared.clone();
        let text = serde_json::Value::Object(declared.clone());
        let advice = "Set them back, or delete the Binding and create it anew";
        Some(format!("arguments cannot be changed: it was declared with {text}. {advice}"))
    }

    fn declared_arguments(binding: &Object) -> Option<SpecArguments> {
        Some(binding.arguments.clone())
    }
}

const QUEUE: &str = "queue";
const EXCHANGE: &str = "exchange";

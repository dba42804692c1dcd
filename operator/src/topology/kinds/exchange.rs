//! Exchanges.
use super::comparison::{Field, differing_arguments, differing_fields};
use super::field::{check_own_name, is_reserved};
use super::{Comparison, Correction, FieldError, Identity, Inventory, Kind, Lists};
use leveret_api::{BrokerRef, DeletionPolicy, Exchange, TopologyStatus};
use leveret_client::{BindingInfo, Client, DeleteOnly, Error, ExchangeInfo as Object, Made};

impl Kind for Exchange {
    type Object = Object;

    const RANK: u8 = 20;

    fn broker(&self) -> &BrokerRef {
        &self.spec.broker_ref
    }

    fn deletion_policy(&self) -> DeletionPolicy {
        self.spec.deletion_policy
    }

    fn status(&self) -> Option<&TopologyStatus> {
        self.status.as_ref()
    }

    fn object(&self, name: &str) -> Object {
        let spec = self.spec.clone();
        Object {
            name: spec.name.unwrap_or_else(|| name.to_owned()),
            vhost: spec.vhost,
            kind: spec.kind.name().to_owned(),
            durable: spec.durable,
            auto_delete: spec.auto_delete,
            internal: spec.internal,
            arguments: spec.arguments.unwrap_or_default(),
        }
    }

    fn check(exchange: &Object) -> Result<(), FieldError> {
        check_own_name(&exchange.name, &exchange.vhost)
    }

    fn identity(exchange: &Object) -> Identity {
        Identity::of::<Self>(&[&exchange.vhost, &exchange.name])
    }

    fn describe(exchange: &Object) -> String {
        format!("exchange '{}' in vhost '{}'", exchange.name, exchange.vhost)
    }

    fn lists() -> Lists {
        // The bindings show whether an exchange is in use.
        Lists { exchanges: true, bindings: true, ..Lists::default() }
    }

    async fn list(client: &Client) -> Result<Vec<Object>, Error> {
        client.exchanges().await
    }

    fn missing_requirements(exchange: &Object, inventory: &Inventory) -> Option<String> {
        inventory.missing_vhost(&exchange.vhost)
    }

    fn compare(wanted: &Object, existing: Option<&Object>, inventory: &Inventory) -> Comparison {
        let Some(existing) = existing else { return Comparison::Missing };
        let fields = differing_fields(&[
            Field::new("type", &wanted.kind, &existing.kind),
            Field::new("durable", wanted.durable, existing.durable),
            Field::new("autoDelete", wanted.auto_delete, existing.auto_delete),
            Field::new("internal", wanted.internal, existing.internal),
        ]);
        let arguments = differing_arguments(&wanted.arguments, &existing.arguments);
        Comparison::of([fields, arguments], None, || {
            // The bindings from an exchange and to it are deleted with it.
            let use_ = inventory.bindings.values().find_map(|binding| use_by(binding, existing));
            use_.map_or(Correction::Replace, Correction::Wait)
        })
    }

    async fn declare(exchange: &Object, client: &Client) -> Result<Made, Error> {
        client.declare_exchange(exchange).await
    }

    async fn exists(exchange: &Object, client: &Client) -> Result<bool, Error> {
        client.exchange(&exchange.vhost, &exchange.name).await.map(|existing| existing.name == exchange.name)
    }

    async fn delete(exchange: &Object, _: Option<&Object>, client: &Client, only: DeleteOnly) -> Result<(), Error> {
        client.delete_exchange(&exchange.vhost, &exchange.name, only.if_unused).await
    }

    fn is_predeclared(exchange: &Object) -> bool {
        is_reserved(&exchange.name)
    }
}

/// Returns how a binding uses an exchange, in words, or `None` if it does not.
fn use_by(binding: &BindingInfo, exchange: &Object) -> Option<String> {
    let BindingInfo { vhost, source, destination, destination_type, .. } = binding;
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

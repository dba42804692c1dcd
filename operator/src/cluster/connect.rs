//! How to reach the broker of a Broker: through its Service, as its default user.
use crate::cluster::build;
use anyhow::Context;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client as Kubernetes, ResourceExt};
use leveret_api::Broker;
use leveret_client::Client;

/// A client of the broker's management API.
pub(crate) async fn client(kubernetes: &Kubernetes, broker: &Broker) -> anyhow::Result<Client> {
    let namespace = broker.namespace().unwrap_or_default();
    let name = build::secret::name(broker);
    let secrets: Api<Secret> = Api::namespaced(kubernetes.clone(), &namespace);
    let secret = secrets.get(&name).await.with_context(|| format!("cannot read Secret {namespace}/{name}"))?;
    let field = |key: &str| {
        let bytes = secret.data.as_ref().and_then(|data| data.get(key));
        let text = bytes.and_then(|bytes| String::from_utf8(bytes.0.clone()).ok());
        text.with_context(|| format!("Secret {namespace}/{name} has no text {key}"))
    };
    let base = format!("http://{}.{namespace}.svc:{}", broker.name_any(), build::HTTP);
    Ok(Client::new(&base, &field("username")?, &field("password")?)?)
}

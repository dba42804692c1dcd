//! How to reach the broker of a Broker: through its Service for management, as its default user.
use super::build;
use super::login::{Login, Logins};
use anyhow::Context;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client as Kubernetes, ResourceExt};
use leveret_api::Broker;
use leveret_client::{Client, Error, Overview};

/// A client of the broker's management API, and what the broker says of itself. While a changed password reaches the pods,
/// the one before it is tried too.
pub(crate) async fn client(kubernetes: &Kubernetes, broker: &Broker) -> anyhow::Result<(Client, Overview)> {
    let namespace = broker.namespace().unwrap_or_default();
    let name = build::secret::login_name(broker);
    let secrets: Api<Secret> = Api::namespaced(kubernetes.clone(), &namespace);
    let secret = secrets.get(&name).await.with_context(|| format!("cannot read Secret {namespace}/{name}"))?;
    let logins = Logins::read(&secret).with_context(|| format!("Secret {namespace}/{name} holds no login"))?;
    let refused = match login(broker, &logins.current).await {
        Err(error @ Error::Unauthorized { .. }) => error,
        answer => return Ok(answer?),
    };
    match &logins.previous {
        Some(previous) => Ok(login(broker, previous).await?),
        None => Err(refused.into()),
    }
}

/// Logs in.
pub(super) async fn login(broker: &Broker, login: &Login) -> Result<(Client, Overview), Error> {
    let namespace = broker.namespace().unwrap_or_default();
    let base = format!("http://{}.{namespace}.svc:{}", build::management_name(broker), build::HTTP);
    let client = Client::new(&base, &login.username, &login.password)?;
    let overview = client.overview().await?;
    Ok((client, overview))
}

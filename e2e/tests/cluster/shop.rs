//! A broker with an exchange, two queues and their bindings, and the credentials and addresses to reach it.

use std::fmt::Debug;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::{Api, ResourceExt};
use leveret_api::{Binding, Broker, Exchange, Queue};
use leveret_e2e::http;
use leveret_e2e::wait::until_ok;
use serde::de::DeserializeOwned;

use crate::world::{Forward, PATIENCE, World, ready, wait};

/// The resources in the worst order: each comes before those that it refers to.
const OBJECTS: &str = r##"
apiVersion: leveret.dev/v1alpha1
kind: Binding
metadata: {name: orders-to-billing}
spec: {brokerRef: {name: shop}, source: orders, destination: billing, routingKey: "order.created.*"}
---
apiVersion: leveret.dev/v1alpha1
kind: Binding
metadata: {name: orders-to-audit}
spec: {brokerRef: {name: shop}, source: orders, destination: audit, routingKey: "#"}
---
apiVersion: leveret.dev/v1alpha1
kind: Queue
metadata: {name: billing}
spec: {brokerRef: {name: shop}}
---
apiVersion: leveret.dev/v1alpha1
kind: Queue
metadata: {name: audit}
spec: {brokerRef: {name: shop}, deletionPolicy: Delete}
---
apiVersion: leveret.dev/v1alpha1
kind: Exchange
metadata: {name: orders}
spec: {brokerRef: {name: shop}, type: topic}
---
apiVersion: leveret.dev/v1alpha1
kind: Broker
metadata: {name: shop}
spec: {storage: {size: 320Mi}, resources: {limits: {memory: 512Mi}}}
"##;

/// A running broker `shop` with its topology, in a namespace of its own.
pub(crate) struct Shop {
    pub(crate) world: World,
    username: String,
    password: String,
}

impl Shop {
    /// Applies all resources in one file, and waits until all of them are ready.
    pub(crate) async fn open() -> Result<Self> {
        Self::open_with(1).await
    }

    /// Does the same with a broker of several pods.
    pub(crate) async fn open_with(replicas: i32) -> Result<Self> {
        let world = World::new().await?;
        world.apply(&OBJECTS.replace("spec: {storage:", &format!("spec: {{replicas: {replicas}, storage:")))?;
        is_ready(&world.api::<Broker>(), "shop").await?;
        for queue in ["billing", "audit"] {
            is_ready(&world.api::<Queue>(), queue).await?;
        }
        is_ready(&world.api::<Exchange>(), "orders").await?;
        for binding in ["orders-to-billing", "orders-to-audit"] {
            is_ready(&world.api::<Binding>(), binding).await?;
        }
        let (username, password) = credentials(&world).await?;
        Ok(Self { world, username, password })
    }

    /// Reads the user and the password from the Secret again.
    pub(crate) async fn log_in_again(&mut self) -> Result<()> {
        (self.username, self.password) = credentials(&self.world).await?;
        Ok(())
    }

    /// Returns the AMQP URL for pods of the cluster.
    pub(crate) fn amqp_url(&self) -> String {
        let (username, password) = (percent(&self.username), percent(&self.password));
        format!("amqp://{username}:{password}@shop.{}.svc:5672/%2F", self.world.namespace)
    }

    /// Waits until the broker has a ready pod other than `before`, and returns it.
    pub(crate) async fn another_pod(&self, before: &Pod) -> Result<Pod> {
        let (pods, name) = (self.world.api::<Pod>(), before.name_any());
        let pod = wait(&pods, &name, "another pod that is ready", |pod: &Pod| {
            let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
            let ready = conditions.is_some_and(|list| {
                list.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
            });
            ready && pod.uid() != before.uid()
        });
        pod.await
    }

    /// Forwards the broker's HTTP ports to this machine.
    pub(crate) fn forward(&self) -> Result<ShopForward> {
        let forward = Forward::to(&self.world.namespace, "service/shop", &[15672, 15692])?;
        let http = format!("http://{}:{}@{}", self.username, self.password, forward.port(15672)?);
        Ok(ShopForward { metrics: format!("http://{}/metrics", forward.port(15692)?), http, _forward: forward })
    }
}

/// Returns the text percent-encoded for a URL.
fn percent(text: &str) -> String {
    let encode = |byte: u8| {
        if byte.is_ascii_alphanumeric() || byte == b'-' { char::from(byte).to_string() } else { format!("%{byte:02X}") }
    };
    text.bytes().map(encode).collect()
}

/// Checks the Secret of the broker's default user, and returns user and password.
async fn credentials(world: &World) -> Result<(String, String)> {
    let secret = world.api::<Secret>().get("shop-default-user").await?;
    let data = secret.data.context("the Secret is empty")?;
    let text = |key: &str| {
        Ok::<_, anyhow::Error>(String::from_utf8(data.get(key).with_context(|| format!("no {key}"))?.0.clone())?)
    };
    for (key, value) in [
        ("provider", "leveret"),
        ("type", "rabbitmq"),
        ("port", "5672"),
        ("host", &format!("shop.{}.svc", world.namespace)),
    ] {
        ensure!(text(key)? == value, "{key} is {}", text(key)?);
    }
    ensure!(text("connection_string")?.starts_with(&format!("amqp://{}:", text("username")?)));
    Ok((text("username")?, text("password")?))
}

/// The broker's HTTP ports, forwarded to this machine.
pub(crate) struct ShopForward {
    http: String,
    metrics: String,
    _forward: Forward,
}

impl ShopForward {
    /// Sends a request to the management API.
    pub(crate) fn request(&self, method: &str, path: &str) -> Result<http::Response> {
        http::request(method, &format!("{}{path}", self.http), None)
    }

    /// Returns the value of a metric without labels.
    pub(crate) fn figure(&self, name: &str) -> Result<f64> {
        let text = http::get(&self.metrics)?.body;
        let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(found.with_context(|| format!("no {name} in {} bytes of metrics", text.len()))?.parse()?)
    }

    /// Waits until a metric of a queue has this value.
    pub(crate) fn shows(&self, metric: &str, queue: &str, value: f64) -> Result<()> {
        let series = format!("leveret_queue_{metric}{{vhost=\"/\",queue=\"{queue}\"}} ");
        until_ok(PATIENCE, format!("{series}to be {value}"), || {
            let text = http::get(&self.metrics)?.body;
            let found = text.lines().find_map(|line| line.strip_prefix(&series));
            let found = found.with_context(|| format!("no {series}in {} bytes of metrics", text.len()))?;
            ensure!((found.parse::<f64>()? - value).abs() < 0.5, "{series}is {found}");
            Ok(())
        })
    }

    /// Waits until the management API answers with this status for a queue: 200 if it exists, 404 if not.
    pub(crate) fn queue_status(&self, queue: &str, status: u16) -> Result<()> {
        until_ok(Duration::from_secs(60), format!("{queue} to answer {status}"), || {
            let answer = self.request("GET", &format!("/api/queues/%2F/{queue}"))?;
            ensure!(answer.status == status, "{} {}", answer.status, answer.body);
            Ok(())
        })
    }
}

/// Resources with conditions, of any kind.
pub(crate) trait Conditions: ResourceExt {
    /// Returns status, reason and message of the condition `Ready`.
    fn ready(&self) -> (String, String, String);
}

macro_rules! conditions {
    ($($kind:ty),*) => {$(
        impl Conditions for $kind {
            fn ready(&self) -> (String, String, String) {
                self.status.as_ref().map(|status| ready(self, &status.conditions)).unwrap_or_default()
            }
        }
    )*};
}
conditions!(Broker, Exchange, Queue, Binding);

/// Waits until a resource is ready, and returns it.
pub(crate) async fn is_ready<K>(api: &Api<K>, name: &str) -> Result<K>
where
    K: Conditions + Clone + Debug + Send + DeserializeOwned + serde::Serialize + 'static,
    K::DynamicType: Default,
{
    wait(api, name, "ready", |object: &K| object.ready().0 == "True").await
}

/// Waits until a resource is not ready for this reason, and returns the message.
pub(crate) async fn is_not_ready<K>(api: &Api<K>, name: &str, reason: &str) -> Result<String>
where
    K: Conditions + Clone + Debug + Send + DeserializeOwned + serde::Serialize + 'static,
    K::DynamicType: Default,
{
    let holds = |object: &K| object.ready().0 == "False" && object.ready().1 == reason;
    Ok(wait(api, name, &format!("not ready with reason {reason}"), holds).await?.ready().2)
}

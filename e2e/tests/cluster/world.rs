//! The cluster that the tests run on, with the chart installed, and a namespace per test.

use std::fmt::Debug;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{DeleteParams, PostParams};
use kube::runtime::wait::await_condition;
use kube::{Api, Client, Resource, ResourceExt};
use leveret_e2e::process::Process;
use leveret_e2e::programs;
use leveret_e2e::wait::until_for;
use serde::de::DeserializeOwned;
use serde_json::json;

/// How long something in the cluster may take before a test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);
const OPERATOR_NAMESPACE: &str = "leveret-system";

/// A namespace in the cluster. It is deleted when the test ends, however it ends.
pub(crate) struct World {
    pub(crate) client: Client,
    pub(crate) namespace: String,
}

impl World {
    /// Creates a namespace, after installing the chart if this is the first test.
    pub(crate) async fn new() -> Result<Self> {
        static CHART: OnceLock<Result<(), String>> = OnceLock::new();
        CHART
            .get_or_init(|| install_chart().map_err(|error| format!("{error:#}")))
            .clone()
            .map_err(anyhow::Error::msg)?;
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let namespace = format!("e2e-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let client = Client::try_default().await.context("KUBECONFIG names no cluster")?;
        let object =
            json!({"metadata": {"name": namespace, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
        Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &serde_json::from_value(object)?).await?;
        Ok(Self { client, namespace })
    }

    /// Returns the API of a kind in the test's namespace.
    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Returns the API of a kind in the operator's namespace.
    pub(crate) fn operator<K>(&self) -> Api<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), OPERATOR_NAMESPACE)
    }

    /// Runs `kubectl` in the test's namespace, and returns its output.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        kubectl(&[&["--namespace", &self.namespace], arguments].concat())
    }

    /// Applies YAML with `kubectl`, as a user does.
    pub(crate) fn apply(&self, yaml: &str) -> Result<String> {
        let folder = leveret_e2e::process::Folder::new()?;
        let file = folder.write("objects.yaml", yaml)?;
        self.kubectl(&["apply", "--filename", file.to_str().context("the path is not UTF-8")?])
    }

    /// Deletes the namespace, waits until it is gone, and returns how long that took.
    pub(crate) async fn delete(&self) -> Result<Duration> {
        let (begin, api) = (Instant::now(), Api::<Namespace>::all(self.client.clone()));
        api.delete(&self.namespace, &DeleteParams::default()).await?;
        let gone = await_condition(api.clone(), &self.namespace, |object: Option<&Namespace>| object.is_none());
        if tokio::time::timeout(PATIENCE, gone).await.is_err() {
            bail!("the namespace still exists after {PATIENCE:?}: {:?}", api.get(&self.namespace).await?.status);
        }
        Ok(begin.elapsed())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = kubectl(&["delete", "namespace", &self.namespace, "--ignore-not-found", "--wait=false"]);
    }
}

fn command(program: &str) -> Command {
    let ours = programs::root().join(".tools/kubernetes/bin").join(program);
    Command::new(if ours.is_file() { ours } else { program.into() })
}

fn succeed(command: &mut Command) -> Result<String> {
    let mut process = Process::start(command)?;
    let status = process.wait(Duration::from_secs(180))?;
    ensure!(status.success(), "{command:?} ended with {status}:\n{}", process.output());
    Ok(process.output())
}

pub(crate) fn kubectl(arguments: &[&str]) -> Result<String> {
    succeed(command("kubectl").args(arguments))
}

pub(crate) fn start_kubectl(arguments: &[&str]) -> Result<Process> {
    Process::start(command("kubectl").args(arguments))
}

pub(crate) fn helm(arguments: &[&str]) -> Result<String> {
    succeed(command("helm").args(arguments))
}

/// Installs or upgrades the chart, and waits until the operator is ready.
pub(crate) fn install_chart() -> Result<()> {
    let chart = programs::root().join("charts/leveret");
    let chart = chart.to_str().context("the path is not UTF-8")?;
    helm(&[
        "upgrade",
        "--install",
        "leveret",
        chart,
        "--namespace",
        OPERATOR_NAMESPACE,
        "--create-namespace",
        "--set",
        "registry=leveret.local",
        "--wait",
        "--timeout",
        "90s",
    ])?;
    Ok(())
}

/// Watches an object until `holds` returns true, and returns it.
///
/// # Errors
/// If that takes longer than [`PATIENCE`], with `what` and the object's last state.
pub(crate) async fn wait<K>(api: &Api<K>, name: &str, what: &str, holds: impl Fn(&K) -> bool) -> Result<K>
where
    K: Resource + Clone + Debug + Send + DeserializeOwned + serde::Serialize + 'static,
    K::DynamicType: Default,
{
    let met = await_condition(api.clone(), name, |object: Option<&K>| object.is_some_and(&holds));
    match tokio::time::timeout(PATIENCE, met).await {
        Ok(object) => object?.with_context(|| format!("{name} is gone")),
        Err(_) => {
            let last = api.get_opt(name).await?.map(|object| serde_json::to_string(&object)).transpose()?;
            bail!("waited {PATIENCE:?} for {name} to be {what}; it is {}", last.unwrap_or_else(|| "missing".to_owned()))
        }
    }
}

/// Watches an object until it is deleted.
///
/// # Errors
/// If that takes longer than [`PATIENCE`], with the object's last state.
pub(crate) async fn wait_gone<K>(api: &Api<K>, name: &str) -> Result<()>
where
    K: Resource + Clone + Debug + Send + DeserializeOwned + serde::Serialize + 'static,
    K::DynamicType: Default,
{
    let gone = await_condition(api.clone(), name, |object: Option<&K>| object.is_none());
    if tokio::time::timeout(PATIENCE, gone).await.is_err() {
        bail!("{name} still exists after {PATIENCE:?}: {}", serde_json::to_string(&api.get_opt(name).await?)?);
    }
    Ok(())
}

/// Returns status, reason and message of the condition `Ready`; empty strings if there is none of the current generation.
pub(crate) fn ready<K: ResourceExt>(object: &K, conditions: &[Condition]) -> (String, String, String) {
    let found = conditions
        .iter()
        .find(|condition| condition.type_ == "Ready" && condition.observed_generation == object.meta().generation);
    found
        .map(|condition| (condition.status.clone(), condition.reason.clone(), condition.message.clone()))
        .unwrap_or_default()
}

/// Ports of a Service, forwarded to the loopback interface of this machine until dropped.
pub(crate) struct Forward {
    process: Process,
}

impl Forward {
    /// Forwards these ports of a target such as `service/shop`.
    pub(crate) fn to(namespace: &str, target: &str, ports: &[u16]) -> Result<Self> {
        let ports: Vec<_> = ports.iter().map(|port| format!(":{port}")).collect();
        let mut arguments = vec!["--namespace", namespace, "port-forward", target];
        arguments.extend(ports.iter().map(String::as_str));
        let forward = Self { process: start_kubectl(&arguments)? };
        until_for(PATIENCE, "the forwarded ports", || {
            (forward.process.output().matches("Forwarding from 127").count() == ports.len()).then_some(())
        })
        .with_context(|| forward.process.output())?;
        Ok(forward)
    }

    /// Returns the local `HOST:PORT` that leads to the forwarded `port`.
    pub(crate) fn port(&self, port: u16) -> Result<String> {
        let output = self.process.output();
        let end = format!(" -> {port}");
        let line = output.lines().find_map(|line| line.strip_prefix("Forwarding from 127.0.0.1:")?.strip_suffix(&end));
        Ok(format!("127.0.0.1:{}", line.with_context(|| format!("{port} is not forwarded:\n{output}"))?))
    }
}

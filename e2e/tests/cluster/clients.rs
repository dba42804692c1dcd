//! A pod with the unmodified clients, which reach the broker through its Service from inside the cluster.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, PostParams};
use leveret_e2e::process::Process;
use leveret_e2e::wait::until_for;
use serde_json::json;

use crate::shop::Shop;
use crate::world::{PATIENCE, start_kubectl, wait, wait_gone};

/// The names of the clients.
pub(crate) const ALL: [&str; 4] = ["pika", "amqplib", "amqp091-go", "lapin"];

/// A running pod with the clients.
pub(crate) struct Clients<'a> {
    shop: &'a Shop,
    name: String,
}

impl<'a> Clients<'a> {
    /// Creates the pod, and waits until it runs.
    pub(crate) async fn start(shop: &'a Shop, name: &str) -> Result<Self> {
        Self::start_on(shop, name, None).await
    }

    /// Creates the pod, on this node of Kubernetes if one is given, and waits until it runs.
    pub(crate) async fn start_on(shop: &'a Shop, name: &str, node: Option<&str>) -> Result<Self> {
        let pod = json!({
            "metadata": {"name": name},
            "spec": {
                "nodeName": node,
                "terminationGracePeriodSeconds": 0,
                "securityContext": {"runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
                "containers": [{
                    "name": "clients", "image": "leveret.local/clients:1", "command": ["/bin/sleep", "infinity"],
                    "securityContext": {"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}},
                }],
            },
        });
        let api = shop.world.api::<Pod>();
        api.create(&PostParams::default(), &serde_json::from_value(pod)?).await?;
        let running = |pod: &Pod| pod.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Running"));
        wait(&api, name, "running", running).await?;
        Ok(Self { shop, name: name.to_owned() })
    }

    /// Starts a client in the pod.
    pub(crate) fn begin(&self, client: &str, arguments: &[&str]) -> Result<Process> {
        let (program, url) = (format!("/bin/{client}"), self.shop.amqp_url());
        let exec = ["--namespace", &self.shop.world.namespace, "exec", &self.name, "--", &program, "--url", &url];
        start_kubectl(&[&exec, arguments].concat())
    }

    /// Runs a client to its end, and returns its output.
    ///
    /// # Errors
    /// If it does not end in time or a check fails, with its output.
    pub(crate) fn run(&self, client: &str, arguments: &[&str]) -> Result<String> {
        let mut process = self.begin(client, arguments)?;
        let status = process.wait(PATIENCE)?;
        let output = process.output();
        ensure!(
            status.success() && output.contains(" passed, 0 failed"),
            "{client} {arguments:?} ended with {status}:\n{output}"
        );
        Ok(output)
    }

    /// Runs a command of the shell in the pod.
    pub(crate) fn shell(&self, command: &str) -> Result<String> {
        self.shop.world.kubectl(&["exec", &self.name, "--", "/bin/sh", "-c", command])
    }

    /// Starts a client that holds messages until its pod is deleted.
    pub(crate) fn hold(&self, client: &str, queue: &str, count: usize) -> Result<Process> {
        let process = self.begin(client, &["--queue", queue, "--count", &count.to_string(), "hold"])?;
        until_for(PATIENCE, "the client to hold", || process.output().contains("holding").then_some(()))
            .with_context(|| process.output())?;
        Ok(process)
    }

    /// Deletes the pod without a grace period, and waits until it is gone.
    pub(crate) async fn delete(self) -> Result<()> {
        let api = self.shop.world.api::<Pod>();
        api.delete(&self.name, &DeleteParams::default().grace_period(0)).await?;
        wait_gone(&api, &self.name).await
    }
}

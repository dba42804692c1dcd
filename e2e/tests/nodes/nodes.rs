//! The nodes of a cluster, as processes.
use std::process::{Command, ExitStatus};

use anyhow::{Context, Result, ensure};
use leveret_e2e::broker::{command, run};
use leveret_e2e::process::{Folder, Process, address};
use leveret_e2e::wait::{PATIENCE, until_ok};
use leveret_e2e::{http, programs};

/// The secret that the nodes share.
pub(crate) const SECRET: &str = "a-secret-of-the-tests";

/// A node of the cluster, which runs or not, with its data.
pub(crate) struct Node {
    pub(crate) folder: Folder,
    pub(crate) host: String,
    pub(crate) process: Option<Process>,
}

/// The nodes of a cluster.
pub(crate) struct Nodes(pub(crate) Vec<Node>);

impl Nodes {
    pub(crate) fn new() -> Result<Self> {
        let node = |_| Ok(Node { folder: Folder::new()?, host: address(), process: None });
        (0..3).map(node).collect::<Result<_>>().map(Self)
    }

    /// Starts a node. Does not wait until it is ready.
    pub(crate) fn start(&mut self, at: usize) -> Result<()> {
        let peers: Vec<String> = self.0.iter().map(|node| node.cluster()).collect();
        let node = &mut self.0[at];
        let name = format!("node_name = \"leveret@{at}\"\n");
        let mut serve = command(&node.folder, &node.host)?;
        serve.arg("--config").arg(node.folder.write("leveret.toml", &name)?);
        for flag in ["--cluster-listen", "--cluster-address"] {
            serve.arg(flag).arg(node.cluster());
        }
        serve.arg("--peer").arg(peers.join(",")).env("LEVERET_CLUSTER_SECRET", SECRET);
        node.process = Some(Process::start(&mut serve)?);
        Ok(())
    }

    /// Waits until the readiness of a node is answered with a status and a text.
    pub(crate) fn answers(&self, at: usize, status: u16, text: &str) -> Result<()> {
        let node = &self.0[at];
        let url = format!("{}/health/ready", node.http());
        let answered = until_ok(PATIENCE, format!("node {at} to answer {status} {text}"), || {
            let answer = http::get(&url)?;
            ensure!(answer.status == status && answer.body.contains(text), "{} {}", answer.status, answer.body);
            Ok(())
        });
        answered.with_context(|| node.process.as_ref().map(Process::output).unwrap_or_default())
    }

    pub(crate) fn ready(&self, nodes: &[usize]) -> Result<()> {
        nodes.iter().try_for_each(|at| self.answers(*at, 200, "ok"))
    }

    /// Waits until a node shows the members in these states, in the order of the nodes.
    pub(crate) fn shows(&self, at: usize, states: [&str; 3]) -> Result<()> {
        until_ok(PATIENCE, format!("node {at} to show {states:?}"), || {
            let (status, table) = self.0[at].asked(&["status"])?;
            ensure!(status.success(), "{table}");
            for (node, state) in self.0.iter().zip(states) {
                let row = table.lines().find(|line| line.contains(&node.cluster())).context(table.clone())?;
                ensure!(row.contains(state), "{table}");
            }
            Ok(())
        })
    }
}

impl Node {
    pub(crate) fn cluster(&self) -> String {
        format!("{}:25672", self.host)
    }

    pub(crate) fn http(&self) -> String {
        format!("http://guest:guest@{}:15672", self.host)
    }

    /// Runs `leveret cluster` against the node. Returns its status and what it printed.
    pub(crate) fn asked(&self, arguments: &[&str]) -> Result<(ExitStatus, String)> {
        let mut asked = Command::new(programs::built("leveret", &[])?);
        asked.arg("cluster").args(arguments).arg("--url").arg(format!("http://{}:15672", self.host));
        run(asked.env_clear(), PATIENCE)
    }

    pub(crate) fn process(&mut self) -> Result<&mut Process> {
        self.process.as_mut().context("the node does not run")
    }
}

//! The nodes of a cluster, as processes.

use std::process::{Command, ExitStatus};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use crate::broker::{command, run};
use crate::certificates::Papers;
use crate::process::{Folder, Process, address};
use crate::volume::LoopVolume;
use crate::wait::{PATIENCE, until_ok};
use crate::{http, network, programs};

/// The secret that the nodes share.
pub const SECRET: &str = "a-secret-of-the-tests";

/// The user of the nodes, whose password is its name. Unlike `guest` it may come from another machine.
pub const USER: &str = "tester";

/// A node of the cluster, which runs or not, with its data.
pub struct Node {
    pub process: Option<Process>,
    /// The volume with its data; `None` if it is the one of the folder.
    pub volume: Option<LoopVolume>,
    pub folder: Folder,
    pub host: String,
    /// The network namespace that the node runs in; `None` for that of the test.
    space: Option<String>,
    /// Whether the node is started with [`SECRET`].
    pub has_secret: bool,
    /// Whether the node is started with the certificates that [`Papers::write`](crate::certificates::Papers::write) has put
    /// into its folder.
    pub has_tls: bool,
}

/// The three nodes of a cluster, and nodes that want to join them.
pub struct Nodes(pub Vec<Node>);

impl Nodes {
    /// Returns three nodes that are not started yet.
    ///
    /// # Errors
    /// If their folders cannot be created.
    pub fn new() -> Result<Self> {
        (0..3).map(|_| Node::new(address(), None)).collect::<Result<_>>().map(Self)
    }

    /// Adds a node that is not started yet and wants to join the three.
    ///
    /// # Errors
    /// If its folder cannot be created.
    pub fn add(&mut self) -> Result<&mut Node> {
        let node = Node::new(address(), None)?;
        Ok(self.0.push_mut(node))
    }

    /// Returns nodes that are not started yet, each with its data on a volume of `mib` mebibytes.
    ///
    /// # Errors
    /// If their volumes cannot be made.
    pub fn on_volumes(mib: u64) -> Result<Self> {
        let mut nodes = Self::new()?;
        for node in &mut nodes.0 {
            node.volume = Some(LoopVolume::mount(&node.folder, mib)?);
        }
        Ok(nodes)
    }

    /// Returns nodes that are not started yet, each in a namespace of the network.
    ///
    /// # Errors
    /// If their folders cannot be created.
    pub fn in_network(network: &network::Network) -> Result<Self> {
        let node = |at| Node::new(network.address(at), Some(network.space(at)));
        (0..3).map(node).collect::<Result<_>>().map(Self)
    }

    /// Starts a node. Does not wait until it is ready.
    ///
    /// # Errors
    /// If the program cannot be started.
    pub fn start(&mut self, at: usize) -> Result<()> {
        let peers: Vec<String> = self.0[..3].iter().map(Node::cluster).collect();
        let node = &mut self.0[at];
        // Small messages let the log have small segments on a small volume.
        let bound = if node.volume.is_some() { "message_bytes_max = 1048576\n" } else { "" };
        let name = format!("node_name = \"leveret@{at}\"\n{bound}");
        let mut serve = command(&node.folder, &node.host)?;
        serve.arg("--config").arg(node.folder.write("leveret.toml", &name)?);
        for flag in ["--cluster-listen", "--cluster-address"] {
            serve.arg(flag).arg(node.cluster());
        }
        serve.arg(if at < 3 { "--peer" } else { "--join" }).arg(peers.join(","));
        if node.has_secret {
            serve.env("LEVERET_CLUSTER_SECRET", SECRET);
        }
        if node.has_tls {
            Papers::name_files(&mut serve, &node.folder);
        }
        as_user(&mut serve);
        node.process = Some(match &node.space {
            Some(space) => Process::start(&mut network::within(space, &serve))?,
            None => Process::start(&mut serve)?,
        });
        Ok(())
    }

    /// Waits until the readiness of a node is answered with a status and a text.
    ///
    /// # Errors
    /// If that takes too long, with what the node printed.
    pub fn answers(&self, at: usize, status: u16, text: &str) -> Result<()> {
        let node = &self.0[at];
        let url = format!("{}/health/ready", node.http());
        let answered = until_ok(PATIENCE, format!("node {at} to answer {status} {text}"), || {
            let answer = http::get(&url)?;
            ensure!(answer.status == status && answer.body.contains(text), "{} {}", answer.status, answer.body);
            Ok(())
        });
        answered.with_context(|| node.process.as_ref().map(Process::output).unwrap_or_default())
    }

    /// Waits until a node has logged a text.
    ///
    /// # Errors
    /// If that takes too long, with what the node printed.
    pub fn logs(&self, at: usize, text: &str) -> Result<()> {
        until_ok(PATIENCE, format!("node {at} to log '{text}'"), || {
            let output = self.0[at].process.as_ref().context("the node does not run")?.output();
            ensure!(output.contains(text), "{output}");
            Ok(())
        })
    }

    /// Waits until nodes are ready.
    ///
    /// # Errors
    /// If that takes too long, with what the node printed.
    pub fn ready(&self, nodes: &[usize]) -> Result<()> {
        nodes.iter().try_for_each(|at| self.answers(*at, 200, "ok"))
    }

    /// Kills a node and waits until it has ended.
    ///
    /// # Errors
    /// If it does not run, or does not end.
    pub fn kill(&mut self, at: usize) -> Result<()> {
        let process = self.0[at].process()?;
        process.signal(Signal::KILL)?;
        process.wait(PATIENCE)?;
        Ok(())
    }

    /// Returns what each node that was started has printed.
    pub fn outputs(&self) -> Vec<String> {
        self.0.iter().filter_map(|node| Some(node.process.as_ref()?.output())).collect()
    }

    /// Returns the cluster as a node shows it: its members and groups.
    ///
    /// # Errors
    /// If the node does not answer with JSON.
    pub fn cluster_at(&self, at: usize) -> Result<serde_json::Value> {
        http::get(&format!("{}/api/leveret/cluster", self.0[at].http()))?.json()
    }

    /// Waits until the three nodes, and no others, vote in all groups: until then the loss of another node may be that of a
    /// majority.
    ///
    /// # Errors
    /// If that takes too long, with the groups as they are.
    pub fn are_voters(&self) -> Result<()> {
        until_ok(PATIENCE, "three voters in all groups".to_owned(), || {
            let shown = self.cluster_at(0)?;
            let groups = shown["groups"].as_array().context("no groups")?;
            let is_settled = |group: &serde_json::Value| {
                let count = |field: &str| group[field].as_array().map_or(usize::MAX, Vec::len);
                (count("voters"), count("learners")) == (3, 0)
            };
            ensure!(!groups.is_empty() && groups.iter().all(is_settled), "{shown}");
            Ok(())
        })
    }

    /// Waits until a node shows the members in these states, in the order of the nodes.
    ///
    /// # Errors
    /// If that takes too long, with what it shows.
    pub fn shows(&self, at: usize, states: [&str; 3]) -> Result<()> {
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
    fn new(host: String, space: Option<String>) -> Result<Self> {
        let folder = Folder::new()?;
        Ok(Self { process: None, volume: None, folder, host, space, has_secret: true, has_tls: false })
    }

    /// Returns the volume of the node.
    ///
    /// # Errors
    /// If it has none.
    pub fn volume(&self) -> Result<&LoopVolume> {
        self.volume.as_ref().context("the node has no volume of its own")
    }

    /// Gives the node an empty volume of `mib` mebibytes in place of the one it had.
    ///
    /// # Errors
    /// If the volume cannot be made.
    pub fn renew_volume(&mut self, mib: u64) -> Result<()> {
        self.volume = None;
        self.volume = Some(LoopVolume::mount(&self.folder, mib)?);
        Ok(())
    }

    /// Returns the address at which other nodes reach the node.
    pub fn cluster(&self) -> String {
        format!("{}:25672", self.host)
    }

    /// Returns the URL of the management API, with user and password.
    pub fn http(&self) -> String {
        format!("http://{USER}:{USER}@{}:15672", self.host)
    }

    /// Runs `leveret cluster` against the node. Returns its status and what it printed.
    ///
    /// # Errors
    /// If the program cannot be started, or runs for too long.
    pub fn asked(&self, arguments: &[&str]) -> Result<(ExitStatus, String)> {
        let mut asked = Command::new(programs::built("leveret", &[])?);
        asked.arg("cluster").args(arguments).arg("--url").arg(format!("http://{}:15672", self.host));
        run(as_user(asked.env_clear()), PATIENCE)
    }

    /// Returns the process of the node.
    ///
    /// # Errors
    /// If the node was not started.
    pub fn process(&mut self) -> Result<&mut Process> {
        self.process.as_mut().context("the node does not run")
    }
}

fn as_user(command: &mut Command) -> &mut Command {
    command.env("LEVERET_DEFAULT_USER", USER).env("LEVERET_DEFAULT_PASS", USER)
}

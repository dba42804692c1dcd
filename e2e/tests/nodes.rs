//! Three brokers as processes that are one cluster: they form it from empty folders, tell people about it, and go on
//! without one of them.

use std::process::{Command, ExitStatus};

use anyhow::{Context, Result, ensure};
use leveret_e2e::broker::{command, run};
use leveret_e2e::process::{Folder, Process, address};
use leveret_e2e::wait::{PATIENCE, until_ok};
use leveret_e2e::{http, programs};
use rustix::process::Signal;

const SECRET: &str = "a-secret-of-the-tests";

/// A node of the cluster, which runs or not, with its data.
struct Node {
    folder: Folder,
    host: String,
    process: Option<Process>,
}

/// The nodes of a cluster.
struct Nodes(Vec<Node>);

impl Nodes {
    fn new() -> Result<Self> {
        let node = |_| Ok(Node { folder: Folder::new()?, host: address(), process: None });
        (0..3).map(node).collect::<Result<_>>().map(Self)
    }

    /// Starts a node. Does not wait until it is ready.
    fn start(&mut self, at: usize) -> Result<()> {
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
    fn answers(&self, at: usize, status: u16, text: &str) -> Result<()> {
        let node = &self.0[at];
        let url = format!("{}/health/ready", node.http());
        let answered = until_ok(PATIENCE, format!("node {at} to answer {status} {text}"), || {
            let answer = http::get(&url)?;
            ensure!(answer.status == status && answer.body.contains(text), "{} {}", answer.status, answer.body);
            Ok(())
        });
        answered.with_context(|| node.process.as_ref().map(Process::output).unwrap_or_default())
    }

    fn ready(&self, nodes: &[usize]) -> Result<()> {
        nodes.iter().try_for_each(|at| self.answers(*at, 200, "ok"))
    }

    /// Waits until a node shows the members in these states, in the order of the nodes.
    fn shows(&self, at: usize, states: [&str; 3]) -> Result<()> {
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
    fn cluster(&self) -> String {
        format!("{}:25672", self.host)
    }

    fn http(&self) -> String {
        format!("http://guest:guest@{}:15672", self.host)
    }

    /// Runs `leveret cluster` against the node. Returns its status and what it printed.
    fn asked(&self, arguments: &[&str]) -> Result<(ExitStatus, String)> {
        let mut asked = Command::new(programs::built("leveret", &[])?);
        asked.arg("cluster").args(arguments).arg("--url").arg(format!("http://{}:15672", self.host));
        run(asked.env_clear(), PATIENCE)
    }

    fn process(&mut self) -> Result<&mut Process> {
        self.process.as_mut().context("the node does not run")
    }
}

#[test]
fn three_processes_form_a_cluster_and_go_on_without_one_that_is_killed() -> Result<()> {
    let mut nodes = Nodes::new()?;
    nodes.start(0)?;
    nodes.start(1)?;
    let missing = nodes.0[2].cluster();
    nodes.answers(0, 503, &missing)?;
    nodes.answers(1, 503, &missing)?;
    nodes.start(2)?;
    nodes.ready(&[0, 1, 2])?;
    nodes.shows(0, ["running", "running", "running"])?;

    nodes.0[1].process()?.signal(Signal::KILL)?;
    nodes.0[1].process()?.wait(PATIENCE)?;
    nodes.shows(0, ["running", "unreachable", "running"])?;
    nodes.ready(&[0, 2])?;
    let listed = http::get(&format!("{}/api/nodes/leveret@1", nodes.0[2].http()))?;
    ensure!(listed.status == 200 && listed.body.contains("\"running\":false"), "{} {}", listed.status, listed.body);
    let (status, said) = nodes.0[0].asked(&["transfer", "--timeout", "1"])?;
    ensure!(!status.success() && said.contains("cannot be reached"), "another node is missing already: {said}");

    nodes.start(1)?;
    nodes.ready(&[0, 1, 2])?;
    nodes.shows(1, ["", "running", "running"])?;
    let (status, said) = nodes.0[0].asked(&["transfer"])?;
    ensure!(status.success(), "{said}");
    nodes.shows(2, ["leaving", "running", "running"])?;
    let ended = nodes.0[0].process()?.terminate(PATIENCE)?;
    ensure!(ended.success(), "{ended}");
    nodes.ready(&[1, 2])?;

    let (status, said) = nodes.0[1].asked(&["remove", &nodes.0[0].cluster()])?;
    ensure!(status.success(), "{said}");
    nodes.start(0)?;
    nodes.answers(0, 503, "was removed from its cluster")?;
    let output: Vec<String> = nodes.0.iter().filter_map(|node| Some(node.process.as_ref()?.output())).collect();
    ensure!(output.iter().all(|text| !text.contains(SECRET) && !text.contains("panicked")), "{output:?}");
    Ok(())
}

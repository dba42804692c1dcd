//! Nodes of a cluster that are cut off from one another, while clients of all of them publish and consume. Needs root, as
//! each node runs in a network namespace of its own.
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lapin::options::BasicGetOptions;
use lapin::types::FieldTable;
use leveret_e2e::http;
use leveret_e2e::network::Network;
use leveret_e2e::nodes::{Nodes, USER};
use leveret_e2e::traffic::{QUEUES, Traffic};
use leveret_e2e::trouble::{connect, durable};
use leveret_e2e::wait::{PATIENCE, until_ok};

/// Three nodes, each in a namespace, and their clients.
struct World {
    network: Network,
    nodes: Nodes,
    traffic: Traffic,
}

impl World {
    async fn start() -> Result<Self> {
        let network = Network::new()?;
        let mut nodes = Nodes::in_network(&network)?;
        (0..3).try_for_each(|at| nodes.start(at))?;
        tokio::task::block_in_place(|| nodes.ready(&[0, 1, 2]))?;
        let hosts: Vec<String> = nodes.0.iter().map(|node| node.host.clone()).collect();
        let traffic = Traffic::start(&hosts, 0).await?;
        traffic.goes_on().await?;
        Ok(Self { network, nodes, traffic })
    }

    /// Lets all packets through, and waits until all nodes are ready and each publisher goes on.
    async fn heal(&self) -> Result<()> {
        self.network.heal()?;
        tokio::task::block_in_place(|| self.nodes.ready(&[0, 1, 2]))?;
        self.traffic.goes_on().await
    }

    /// Checks that the node, which is cut off, says so and confirms nothing, while the clients go on at the others.
    async fn is_alone(&self, node: usize) -> Result<()> {
        tokio::task::block_in_place(|| {
            self.nodes.answers(node, 503, "1 of 3 voters can be reached")?;
            let url = format!("{}/api/health/checks/alarms", self.nodes.0[node].http());
            until_ok(PATIENCE, "an alarm", || {
                let alarms = http::get(&url)?;
                ensure!(alarms.status == 503 && alarms.body.contains("cluster"), "{}", alarms.body);
                Ok(())
            })
        })?;
        let before = self.traffic.by_node()[node];
        let host = &self.nodes.0[node].host;
        let refused = |error: lapin::Error| {
            let text = error.to_string();
            ensure!(text.contains("most nodes of the cluster cannot be reached"), "refused with {text}");
            Ok(())
        };
        let (began, channel) = (Instant::now(), connect(host, USER).await?.create_channel().await?);
        let got = channel.basic_get("q0".into(), BasicGetOptions::default());
        let got = tokio::time::timeout(PATIENCE, got).await.context("no answer to a get")?;
        refused(got.err().context("a get on a node that is alone succeeded")?)?;
        let channel = connect(host, USER).await?.create_channel().await?;
        let declared = channel.queue_declare("later".into(), durable(), FieldTable::default());
        let declared = tokio::time::timeout(PATIENCE, declared).await.context("no answer to a declaration")?;
        refused(declared.err().context("a declaration on a node that is alone succeeded")?)?;
        ensure!(began.elapsed() < REFUSED_MAX, "the refusals took {:?}", began.elapsed());
        self.traffic.goes_on().await?;
        let after = self.traffic.by_node()[node];
        ensure!(before == after, "{} messages were confirmed by a node that is alone", after - before);
        Ok(())
    }

    /// Returns what the nodes printed last.
    fn said(&self) -> String {
        let last = |text: &String| text.lines().rev().take(20).collect::<Vec<_>>().join("\n");
        self.nodes.outputs().iter().map(last).collect::<Vec<_>>().join("\n\n")
    }

    /// Checks that requests about any queue on any node are answered in time, although two nodes do not reach each other, and
    /// that the third one leads everything in the end.
    async fn is_served_through(&self, third: usize) -> Result<()> {
        let began = Instant::now();
        for (node, host) in self.nodes.0.iter().map(|node| &node.host).enumerate() {
            for queue in QUEUES {
                let asked = tokio::time::timeout(REFUSED_MAX, is_answered(host, node, queue)).await;
                asked.with_context(|| format!("no answer about {queue} from node {node}: {}", self.said()))??;
            }
        }
        let groups = || -> Result<_> {
            let cluster = self.nodes.cluster_at(third)?;
            let led = |group: &serde_json::Value| group["leader"] == cluster["node"];
            let groups = cluster["groups"].as_array().context("no groups")?;
            Ok((groups.iter().filter(|group| led(group)).count(), groups.len()))
        };
        tokio::task::block_in_place(|| {
            until_ok(PATIENCE, format!("node {third} to lead everything"), || {
                let (led, all) = groups()?;
                ensure!(led == all && all > 0, "it leads {led} of {all} groups");
                Ok(())
            })?;
            self.nodes.ready(&[0, 1, 2])
        })?;
        eprintln!("figure: all are served through node {third} {:?} after two others were cut off", began.elapsed());
        self.traffic.goes_on().await
    }
}

/// Gets a message of a queue from a node, which is ready again afterwards. A node that cannot answer has to say why.
async fn is_answered(host: &str, node: usize, queue: &str) -> Result<()> {
    let connection = connect(host, USER).await?;
    let channel = connection.create_channel().await?;
    if let Err(error) = channel.basic_get(queue.into(), BasicGetOptions { no_ack: false }).await {
        let text = error.to_string();
        let names = text.contains(queue) && text.contains(&format!("which node leveret@{node} cannot reach"));
        ensure!(names, "refused with {text}");
    }
    tokio::spawn(async move { connection.close(200, "".into()).await.is_ok() });
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_confirmed_is_delivered_however_nodes_are_cut_off_from_one_another() -> Result<()> {
    let world = World::start().await?;
    let others = |node: usize| [(node + 1) % 3, (node + 2) % 3];
    // Both ways, each node once: one of them leads, at least.
    for node in 0..3 {
        for other in others(node) {
            world.network.cut(node, other)?;
            world.network.cut(other, node)?;
        }
        world.is_alone(node).await?;
        world.heal().await?;
    }
    // One way: the node hears the others, or they hear it.
    for (from, to) in [(0, [1, 2]), (1, [2, 0])] {
        to.iter().try_for_each(|to| world.network.cut(from, *to))?;
        world.is_alone(from).await?;
        world.heal().await?;
    }
    for from in [0, 1] {
        world.network.cut(from, 2)?;
    }
    world.is_alone(2).await?;
    world.heal().await?;
    // Two nodes that do not reach each other, but the third.
    for third in 0..3 {
        let [one, other] = others(third);
        world.network.cut(one, other)?;
        world.network.cut(other, one)?;
        world.is_served_through(third).await?;
        world.heal().await?;
    }
    // Connections are reset again and again, although all nodes live.
    for round in 0..6 {
        world.network.reset(round % 3, (round + 1) % 3)?;
        tokio::time::sleep(Duration::from_millis(200)).await;
        world.network.heal()?;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    world.heal().await?;
    eprintln!("{}", world.traffic.finish().await?);
    let output = world.nodes.outputs();
    ensure!(output.iter().all(|text| !text.contains("panicked")), "{output:?}");
    Ok(())
}

/// Two refusals on a node that is alone take no longer than this.
const REFUSED_MAX: Duration = Duration::from_secs(15);

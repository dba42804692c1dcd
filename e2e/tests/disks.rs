//! Three brokers of one cluster, each with its data on a volume of its own that fills up, fails or is lost, while clients of
//! all of them publish and consume. Needs root, to mount the volumes.
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use lapin::options::{BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Confirmation};
use leveret_e2e::http;
use leveret_e2e::nodes::{Nodes, USER};
use leveret_e2e::traffic::Traffic;
use leveret_e2e::trouble::{connect, durable};
use leveret_e2e::wait::{PATIENCE, until_ok};
use tokio::task::block_in_place;

/// Three nodes on volumes, their clients, and a queue that nobody consumes.
struct World {
    nodes: Nodes,
    hosts: Vec<String>,
    traffic: Traffic,
    /// The numbers of the messages in the queue.
    kept: BTreeSet<u64>,
}

impl World {
    async fn start() -> Result<Self> {
        let mut nodes = Nodes::on_volumes(VOLUME_MIB)?;
        (0..3).try_for_each(|at| nodes.start(at))?;
        block_in_place(|| nodes.ready(&[0, 1, 2]))?;
        let hosts: Vec<String> = nodes.0.iter().map(|node| node.host.clone()).collect();
        let channel = connect(&hosts[0], USER).await?.create_channel().await?;
        for queue in [KEPT, UNHEARD] {
            channel.queue_declare(queue.into(), durable(), FieldTable::default()).await?;
        }
        let traffic = Traffic::start(&hosts, BODY_BYTES).await?;
        traffic.goes_on().await?;
        Ok(Self { nodes, hosts, traffic, kept: BTreeSet::new() })
    }

    /// Publishes messages that stay, on a node, and has them confirmed.
    async fn keep(&mut self, node: usize) -> Result<()> {
        let channel = connect(&self.hosts[node], USER).await?.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        for _ in 0..KEPT_AT_A_TIME {
            let number = self.kept.len() as u64;
            let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
            let body = number.to_le_bytes();
            let publish = channel.basic_publish("".into(), KEPT.into(), options, &body, properties).await?;
            let confirmed = tokio::time::timeout(PATIENCE, publish).await.context("a message is not confirmed")??;
            ensure!(matches!(confirmed, Confirmation::Ack(None)), "message {number} came to {confirmed:?}");
            self.kept.insert(number);
        }
        Ok(())
    }

    /// Waits until the nodes are ready, no other votes, and the clients go on, and checks that all nodes have the same
    /// messages: each delivers its own copies.
    async fn is_whole(&self) -> Result<()> {
        block_in_place(|| self.nodes.ready(&[0, 1, 2]).and_then(|()| self.nodes.are_voters()))?;
        self.traffic.goes_on().await?;
        for host in &self.hosts {
            let connection = connect(host, USER).await?;
            let channel = connection.create_channel().await?;
            let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
            let mut deliveries = channel.basic_consume(KEPT.into(), "".into(), options, arguments).await?;
            let mut found = BTreeSet::new();
            while found.len() < self.kept.len() {
                let next = tokio::time::timeout(PATIENCE, deliveries.next()).await;
                let next = next.with_context(|| format!("{host} has {} of {}", found.len(), self.kept.len()))?;
                let delivery = next.context("the channel was closed")??;
                let number = u64::from_le_bytes(delivery.data.as_slice().try_into()?);
                ensure!(found.insert(number), "{host} has message {number} twice");
            }
            ensure!(found == self.kept, "{host} has other messages: {found:?}");
            connection.close(200, "".into()).await?; // all messages are ready again
        }
        Ok(())
    }

    /// Waits until a node has a disk alarm.
    fn is_alarmed(&self, node: usize) -> Result<()> {
        let url = format!("{}/api/health/checks/alarms", self.nodes.0[node].http());
        block_in_place(|| {
            until_ok(PATIENCE, format!("an alarm of node {node}"), || {
                let alarms = http::get(&url)?;
                ensure!(alarms.status == 503 && alarms.body.contains("\"disk\""), "{}", alarms.body);
                Ok(())
            })
        })
    }

    /// Waits until a client that publishes on a node is told that it is held back.
    async fn is_held_back(&self, node: usize) -> Result<()> {
        let connection = connect(&self.hosts[node], USER).await?;
        let channel = connection.create_channel().await?;
        let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
        channel.basic_publish("".into(), UNHEARD.into(), options, b"", properties).await?;
        let began = Instant::now();
        while !connection.status().blocked() {
            ensure!(connection.status().connected(), "node {node} closed the connection");
            ensure!(began.elapsed() < PATIENCE, "node {node} did not say that it holds publishers back");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Fills the volume of a node whenever the broker frees something, until its log takes no entries, which it has to say,
    /// or for a while: it may go on in the files of its log that exist. Returns whether it takes none.
    fn is_stuck(&self, node: usize) -> Result<bool> {
        let url = format!("{}/health/ready", self.nodes.0[node].http());
        let began = Instant::now();
        while began.elapsed() < STUCK_WITHIN {
            self.nodes.0[node].volume()?.fill()?;
            let ready = http::get(&url)?;
            if ready.status == 503 && ready.body.contains("its disk has no room") {
                return Ok(true);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(false)
    }

    /// Ends the clients, and checks what they saw and that no node has panicked.
    async fn end(self, what: &str) -> Result<()> {
        eprintln!("{what}: {}", self.traffic.finish().await?);
        let output = self.nodes.outputs();
        ensure!(output.iter().all(|text| !text.contains("panicked")), "{output:?}");
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_goes_on_without_a_node_whose_disk_is_full() -> Result<()> {
    let mut world = World::start().await?;
    // Each of them leads some of the queues at first.
    for node in 0..3 {
        let other = (node + 1) % 3;
        world.nodes.0[node].volume()?.fill()?;
        world.is_alarmed(node)?;
        world.is_held_back(node).await?;
        let mut states = ["running"; 3];
        states[node] = "full";
        block_in_place(|| world.nodes.shows(other, states))?;
        world.traffic.goes_on().await?;
        eprintln!("figure: disk of node {node} full: longest time without a confirm {:?}", world.traffic.longest_gap());
        let is_stuck = block_in_place(|| world.is_stuck(node))?;
        eprintln!("figure: the log of node {node} takes {}", if is_stuck { "nothing more" } else { "further entries" });
        world.keep(other).await?;
        world.traffic.goes_on().await?;
        world.nodes.0[node].volume()?.make_room()?;
        world.is_whole().await?;
    }
    world.end("full disks").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_of_which_two_disks_are_full_says_so_and_goes_on_once_there_is_room() -> Result<()> {
    let mut world = World::start().await?;
    world.keep(0).await?;
    for node in [1, 2] {
        world.nodes.0[node].volume()?.fill()?;
    }
    for node in [1, 2, 0] {
        world.is_alarmed(node)?;
        world.is_held_back(node).await?;
    }
    let before: u64 = world.traffic.by_node().iter().sum();
    tokio::time::sleep(HELD_FOR).await;
    let more = world.traffic.by_node().iter().sum::<u64>() - before;
    ensure!(more <= HELD_MAX, "{more} messages were confirmed although most disks are full");
    for node in [1, 2] {
        world.nodes.0[node].volume()?.make_room()?;
    }
    world.is_whole().await?;
    world.keep(2).await?;
    world.is_whole().await?;
    world.end("two full disks").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_lost_its_disk_is_replaced_by_a_new_one() -> Result<()> {
    let mut world = World::start().await?;
    for node in 0..3 {
        world.keep(node).await?;
        let before = world.identities(node)?;
        world.nodes.kill(node)?;
        world.nodes.0[node].volume()?.empty()?;
        world.traffic.goes_on().await?;
        world.nodes.start(node)?;
        world.is_replaced(node, &before)?;
        world.is_whole().await?;
    }
    world.end("lost disks").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_disk_fails_ends_and_the_others_go_on() -> Result<()> {
    let mut world = World::start().await?;
    for node in [0, 1] {
        world.keep(node).await?;
        let before = world.identities(node)?;
        world.nodes.0[node].volume()?.fail()?;
        let ended = world.nodes.0[node].process()?.wait(PATIENCE)?;
        let output = world.nodes.0[node].process()?.output();
        ensure!(ended.code() == Some(FAILED_DISK), "node {node} ended with {ended}: {output}");
        ensure!(output.contains("the log cannot be written"), "{output}");
        world.traffic.goes_on().await?;
        world.keep((node + 1) % 3).await?;
        world.nodes.0[node].renew_volume(VOLUME_MIB)?;
        world.nodes.start(node)?;
        world.is_replaced(node, &before)?;
        world.is_whole().await?;
    }
    world.end("failed disks").await
}

impl World {
    /// Returns the identities of the members, as a node shows them.
    fn identities(&self, at: usize) -> Result<BTreeSet<String>> {
        let cluster = self.nodes.cluster_at(at)?;
        let members = cluster["members"].as_array().context("no members")?;
        members.iter().map(|member| Ok(member["node"].as_str().context("no identity")?.to_owned())).collect()
    }

    /// Waits until the node that was started again is a new member, and the one that it was before is none any more.
    fn is_replaced(&self, node: usize, before: &BTreeSet<String>) -> Result<()> {
        block_in_place(|| {
            until_ok(PATIENCE, format!("node {node} to be replaced"), || {
                let now = self.identities((node + 1) % 3)?;
                let stayed = now.intersection(before).count();
                ensure!(now.len() == 3 && stayed == 2, "{before:?} became {now:?}");
                Ok(())
            })
        })
    }
}

const VOLUME_MIB: u64 = 256;
const BODY_BYTES: usize = 8 << 10;
/// A queue whose messages stay.
const KEPT: &str = "kept";
/// A queue for messages of clients that are held back.
const UNHEARD: &str = "unheard";
/// The time in which the log of a full node may get full, too.
const STUCK_WITHIN: Duration = Duration::from_secs(12);
const KEPT_AT_A_TIME: usize = 200;
/// The time for which publishers are watched that are held back, and how many of their messages may be confirmed meanwhile:
/// each of them publishes one whenever it connects again.
const HELD_FOR: Duration = Duration::from_secs(5);
const HELD_MAX: u64 = 30;
/// The exit code of a broker whose disk has failed.
const FAILED_DISK: i32 = 74;

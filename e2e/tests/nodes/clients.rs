//! Clients of all nodes publish and consume while nodes are killed with -9, stand still, and are all killed at once.
//!
//! `LEVERET_NODES_ROUNDS` sets how often a node is killed, `LEVERET_NODES_SEED` which ones and when.
use std::time::Duration;

use anyhow::{Result, ensure};
use leveret_e2e::nodes::Nodes;
use leveret_e2e::traffic::Traffic;
use leveret_e2e::trouble::{random, variable};
use leveret_e2e::wait::PATIENCE;
use rustix::process::Signal;

/// Kills nodes, one after the other, then stops one for a while, and at last kills all of them at once.
async fn trouble(nodes: &mut Nodes, rounds: u64, seed: &mut u64, traffic: &Traffic) -> Result<()> {
    for _ in 0..rounds {
        let at = (random(seed) % 3) as usize;
        nodes.kill(at)?;
        tokio::time::sleep(Duration::from_millis(random(seed) % 1_000)).await;
        nodes.start(at)?;
        goes_on(nodes, traffic).await?;
    }
    let at = (random(seed) % 3) as usize;
    nodes.0[at].process()?.signal(Signal::STOP)?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    nodes.0[at].process()?.signal(Signal::CONT)?;
    goes_on(nodes, traffic).await?;
    for node in &mut nodes.0 {
        node.process()?.signal(Signal::KILL)?;
    }
    for at in 0..3 {
        nodes.0[at].process()?.wait(PATIENCE)?;
        nodes.start(at)?;
    }
    goes_on(nodes, traffic).await
}

/// Waits until all nodes are ready, and until each publisher has got further confirms.
async fn goes_on(nodes: &Nodes, traffic: &Traffic) -> Result<()> {
    tokio::task::block_in_place(|| nodes.ready(&[0, 1, 2]))?;
    traffic.goes_on().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_confirmed_on_any_node_is_delivered_whichever_nodes_are_killed() -> Result<()> {
    let (rounds, mut seed) = (variable("LEVERET_NODES_ROUNDS", 5), variable("LEVERET_NODES_SEED", 1));
    let mut nodes = Nodes::new()?;
    (0..3).try_for_each(|at| nodes.start(at))?;
    tokio::task::block_in_place(|| nodes.ready(&[0, 1, 2]))?;
    let hosts: Vec<String> = nodes.0.iter().map(|node| node.host.clone()).collect();
    let traffic = Traffic::start(&hosts, 0).await?;
    trouble(&mut nodes, rounds, &mut seed, &traffic).await?;
    eprintln!("{}", traffic.finish().await?);
    let output = nodes.outputs();
    ensure!(output.iter().all(|text| !text.contains("panicked")), "{output:?}");
    Ok(())
}

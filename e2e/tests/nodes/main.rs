//! Three brokers as processes that are one cluster: they form it from empty folders, tell people about it, and go on
//! without one of them; clients of all nodes lose nothing that was confirmed.
mod clients;
mod figures;
mod tls;

use anyhow::{Result, ensure};
use leveret_e2e::http;
use leveret_e2e::nodes::{Nodes, SECRET};
use leveret_e2e::wait::PATIENCE;

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

    nodes.kill(1)?;
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
    let output = nodes.outputs();
    ensure!(output.iter().all(|text| !text.contains(SECRET) && !text.contains("panicked")), "{output:?}");
    Ok(())
}

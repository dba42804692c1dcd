//! Nodes whose links are TLS: only certificates of the right authority get in, whoever does not is told why, and
//! certificates are renewed while the nodes run.
use anyhow::{Result, ensure};
use leveret_e2e::certificates::{Authority, Papers};
use leveret_e2e::nodes::{Node, Nodes};
use leveret_e2e::traffic::Traffic;

/// Gives a node a certificate, with which it is started from now on.
fn equip(node: &mut Node, papers: &Papers) -> Result<()> {
    node.has_tls = true;
    papers.write(&node.folder)
}

/// Starts three nodes with certificates of an authority, and waits until they are a cluster.
fn cluster(authority: &Authority, has_secret: bool) -> Result<Nodes> {
    let mut nodes = Nodes::new()?;
    for at in 0..3 {
        nodes.0[at].has_secret = has_secret;
        let papers = authority.papers(&nodes.0[at].host, &[authority])?;
        equip(&mut nodes.0[at], &papers)?;
        nodes.start(at)?;
    }
    nodes.ready(&[0, 1, 2])?;
    Ok(nodes)
}

fn restart(nodes: &mut Nodes, at: usize) -> Result<()> {
    nodes.kill(at)?;
    nodes.start(at)
}

fn no_panics(nodes: &Nodes) -> Result<()> {
    let output = nodes.outputs();
    ensure!(output.iter().all(|text| !text.contains("panicked")), "{output:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_alone_make_a_cluster_that_loses_no_message() -> Result<()> {
    let mut nodes = tokio::task::block_in_place(|| cluster(&Authority::new("ours")?, false))?;
    let hosts: Vec<String> = nodes.0.iter().map(|node| node.host.clone()).collect();
    let traffic = Traffic::start(&hosts, 0).await?;
    traffic.goes_on().await?;
    for at in 0..2 {
        restart(&mut nodes, at)?;
        tokio::task::block_in_place(|| nodes.ready(&[0, 1, 2]))?;
        traffic.goes_on().await?;
    }
    eprintln!("{}", traffic.finish().await?);
    nodes.logs(0, "(TLS)")?;
    no_panics(&nodes)
}

#[test]
fn nodes_without_a_certificate_of_the_authority_stay_out_and_both_sides_say_why() -> Result<()> {
    let (ours, foreign) = (Authority::new("ours")?, Authority::new("foreign")?);
    let mut nodes = cluster(&ours, true)?;
    // It trusts the others, and knows the secret: nothing but their check keeps it out.
    let stranger = nodes.add()?;
    let papers = foreign.papers(&stranger.host, &[&ours, &foreign])?;
    equip(stranger, &papers)?;
    nodes.add()?; // without certificates
    nodes.start(3)?;
    nodes.start(4)?;
    let (refused, speaks_tls) = (
        "the other side refuses the certificate of this node: it is not from an authority that the other side trusts",
        "the other side speaks TLS, and this node does not: it has no cluster_tls_cert",
    );
    for (at, reason) in [(3, refused), (4, speaks_tls)] {
        let reason = format!("{}: {reason}", nodes.0[0].cluster());
        nodes.answers(at, 503, &reason)?;
        nodes.logs(at, &reason)?;
    }
    nodes.logs(0, ": the certificate of the other side is not from an authority in cluster_tls_ca")?;
    nodes.logs(0, ": the other side speaks no TLS: is its cluster_tls_cert set?")?;
    let (status, table) = nodes.0[0].asked(&["status"])?;
    ensure!(status.success() && table.lines().count() == 5, "a stranger is a member: {table}");
    no_panics(&nodes)
}

#[test]
fn certificates_are_renewed_while_the_nodes_run() -> Result<()> {
    let (old, new) = (Authority::new("old")?, Authority::new("new")?);
    let mut nodes = cluster(&old, true)?;
    nodes.0[0].folder.write("tls.key", "broken")?;
    nodes.logs(0, "stay the old ones, the new ones cannot be used: cluster_tls_key: ")?;
    restart(&mut nodes, 2)?; // with a certificate of the old authority
    nodes.ready(&[0, 1, 2])?;
    for at in 0..3 {
        let papers = new.papers(&nodes.0[at].host, &[&old, &new])?;
        papers.write(&nodes.0[at].folder)?;
        nodes.logs(at, "the certificates for TLS between nodes were read again")?;
    }
    // Now node 2 trusts the new authority alone. The others, which were not restarted, have to show their new certificates.
    let papers = new.papers(&nodes.0[2].host, &[&new])?;
    papers.write(&nodes.0[2].folder)?;
    restart(&mut nodes, 2)?;
    nodes.ready(&[0, 1, 2])?;
    nodes.shows(2, ["running", "running", "running"])?;
    no_panics(&nodes)
}

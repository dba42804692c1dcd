//! Brokers of several members: any pod, any volume and any node of Kubernetes may go, and no confirmed message with it.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams};
use leveret_api::{Broker, Queue};
use leveret_e2e::process::Process;
use leveret_e2e::programs;
use leveret_e2e::wait::until_ok;

use crate::clients::Clients;
use crate::figures::figure;
use crate::repair::{queues, ready_queues};
use crate::shop::{Shop, is_ready};
use crate::traffic::Traffic;
use crate::world::{PATIENCE, World, kubectl, wait, wait_gone};

/// The number of queues that the traffic goes over: most groups have one.
const QUEUES: usize = 12;

/// Waits until the Broker has all its members, all of which are up, and nothing is left to do.
async fn is_whole(world: &World) -> Result<()> {
    let replicas = world.api::<Broker>().get("shop").await?.spec.replicas;
    let members = format!("{replicas}/{replicas}");
    let holds = |broker: &Broker| {
        let Some(status) = &broker.status else { return false };
        let is = |type_: &str, value: &str| {
            status.conditions.iter().any(|one| {
                one.type_ == type_ && one.status == value && one.observed_generation == broker.metadata.generation
            })
        };
        is("Ready", "True") && is("Progressing", "False") && status.members.as_deref() == Some(&*members)
    };
    wait(&world.api::<Broker>(), "shop", &format!("whole with {members} members"), holds).await?;
    // The status may be a moment old: the nodes are asked themselves.
    let count = usize::try_from(replicas)?;
    until_ok(PATIENCE, "all nodes to see all members up".to_owned(), || {
        for ordinal in 0..count {
            let shown = world.kubectl(&["exec", &format!("shop-{ordinal}"), "--", "/leveret", "cluster", "status"])?;
            let is_ready = shown.lines().next().is_some_and(|line| line.ends_with(": ready"));
            ensure!(is_ready && shown.matches(" running ").count() == count, "shop-{ordinal}: {shown}");
        }
        Ok(())
    })
}

/// Waits until pods are replaced by others, and the Broker is whole again; reports the longest time without a confirm.
async fn recovers(shop: &Shop, traffic: &Traffic<'_>, event: &str, before: &[Pod]) -> Result<()> {
    let begin = Instant::now();
    for pod in before {
        shop.another_pod(pod).await?;
    }
    is_whole(&shop.world).await?;
    figure(&format!("{event} -> all members are up"), begin.elapsed());
    traffic.report(event)
}

/// Kills pods and deletes their volumes, and waits until the Broker is whole with other ones.
async fn lose_volumes(shop: &Shop, traffic: &Traffic<'_>, event: &str, names: &[&str]) -> Result<()> {
    let (api, claims) = (shop.world.api::<Pod>(), shop.world.api::<PersistentVolumeClaim>());
    let (mut lost, mut volumes) = (Vec::new(), Vec::new());
    for name in names {
        lost.push(api.get(name).await?);
        volumes
            .push(claims.delete(&format!("data-{name}"), &DeleteParams::default()).await?.left().context("no claim")?);
    }
    for name in names {
        api.delete(name, &DeleteParams::default().grace_period(0)).await?;
    }
    recovers(shop, traffic, event, &lost).await?;
    for old in volumes {
        let name = old.name_any();
        ensure!(claims.get(&name).await?.uid() != old.uid(), "the volume {name} is the old one");
    }
    Ok(())
}

async fn pods(world: &World) -> Result<Vec<Pod>> {
    let selector = ListParams::default().labels("app.kubernetes.io/instance=shop");
    Ok(world.api::<Pod>().list(&selector).await?.items)
}

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}

/// Returns the node of Kubernetes that the operator runs on.
async fn node_of_operator(world: &World) -> Result<String> {
    let operators = world.operator::<Pod>().list(&ListParams::default()).await?;
    operators.iter().find_map(node_of).map(str::to_owned).context("no operator has a node")
}

/// Returns a pod of the broker that runs elsewhere than on the node `but`, if the nodes are those of `e2e/cluster`.
async fn pod_elsewhere(world: &World, but: &str) -> Result<Option<Pod>> {
    let is_ours = |pod: &Pod| node_of(pod).is_some_and(|node| node != but && node.starts_with("node"));
    Ok(pods(world).await?.into_iter().rev().find(is_ours))
}

/// Runs a script of `e2e/cluster` for the node of a pod.
fn script(name: &str, pod: &Pod, arguments: &[&str]) -> Result<()> {
    let number = node_of(pod).and_then(|node| node.strip_prefix("node")).context("the pod has no node")?;
    let mut process =
        Process::start(Command::new(programs::root().join("e2e/cluster").join(name)).arg(number).args(arguments))?;
    let status = process.wait(PATIENCE)?;
    ensure!(status.success(), "{name} {number} {arguments:?} ended with {status}:\n{}", process.output());
    Ok(())
}

/// Pods are deleted, a volume is lost, all pods end at once, all are restarted, and a node is drained.
async fn lose_pods_and_volumes(shop: &Shop, traffic: &Traffic<'_>) -> Result<()> {
    let (api, now) = (shop.world.api::<Pod>(), DeleteParams::default().grace_period(0));
    let pod = api.get("shop-1").await?;
    api.delete("shop-1", &DeleteParams::default()).await?;
    recovers(shop, traffic, "a pod deleted in order", &[pod]).await?;

    lose_volumes(shop, traffic, "a pod killed and its volume lost", &["shop-0"]).await?;

    let all = pods(&shop.world).await?;
    for pod in &all {
        api.delete(&pod.name_any(), &now).await?;
    }
    recovers(shop, traffic, "all pods killed at once", &all).await?;

    let all = pods(&shop.world).await?;
    let patch = "{\"spec\":{\"config\":{\"shutdown_grace_seconds\":9}}}";
    shop.world.kubectl(&["patch", "broker.leveret.dev", "shop", "--type=merge", "--patch", patch])?;
    recovers(shop, traffic, "all pods restarted one after the other", &all).await?;

    grow_volumes(shop, traffic).await?;
    let pod = api.get("shop-2").await?;
    let node = node_of(&pod).context("the pod has no node")?;
    let selector = "--pod-selector=app.kubernetes.io/instance=shop";
    let drained = kubectl(&["drain", node, selector, "--timeout=90s"]);
    let moved = shop.another_pod(&pod).await;
    kubectl(&["uncordon", node])?;
    drained?;
    let moved = moved?;
    ensure!(node_of(&moved) != Some(node), "the pod is on {node} again");
    recovers(shop, traffic, "a node drained", &[pod]).await?;

    // Pods are spread over the nodes, so the next one comes to the node that has none.
    api.delete("shop-2", &DeleteParams::default()).await?;
    recovers(shop, traffic, "the pod of that node deleted", &[moved]).await?;
    let all = pods(&shop.world).await?;
    let nodes: BTreeSet<_> = all.iter().filter_map(node_of).collect();
    ensure!(nodes.len() == 3, "the pods are on {nodes:?}");
    Ok(())
}

/// The volumes of all pods are enlarged, without a restart.
async fn grow_volumes(shop: &Shop, traffic: &Traffic<'_>) -> Result<()> {
    let (begin, before) = (Instant::now(), pods(&shop.world).await?);
    let patch = "{\"spec\":{\"storage\":{\"size\":\"400Mi\"}}}";
    shop.world.kubectl(&["patch", "broker.leveret.dev", "shop", "--type=merge", "--patch", patch])?;
    let claims = shop.world.api::<PersistentVolumeClaim>();
    for ordinal in 0..3 {
        let is_large = |claim: &PersistentVolumeClaim| {
            let capacity = claim.status.as_ref().and_then(|status| status.capacity.as_ref());
            capacity.and_then(|capacity| capacity.get("storage")).is_some_and(|size| size.0 == "400Mi")
        };
        wait(&claims, &format!("data-shop-{ordinal}"), "of 400Mi", is_large).await?;
    }
    is_whole(&shop.world).await?;
    let uids = |pods: &[Pod]| pods.iter().map(ResourceExt::uid).collect::<BTreeSet<_>>();
    ensure!(uids(&pods(&shop.world).await?) == uids(&before), "a pod was restarted");
    figure("three volumes enlarged", begin.elapsed());
    traffic.report("three volumes enlarged")
}

/// A node of Kubernetes is killed, and another one disconnected; each comes back.
async fn lose_nodes(shop: &Shop, traffic: &Traffic<'_>, spared: &str) -> Result<()> {
    let brokers = shop.world.api::<Broker>();
    let is_short = |broker: &Broker| {
        broker
            .status
            .as_ref()
            .is_some_and(|status| status.members.as_deref() == Some("2/3") && status.waits_for.is_some())
    };
    let Some(pod) = pod_elsewhere(&shop.world, spared).await? else { return Ok(()) };
    script("node-kill", &pod, &[])?;
    traffic.report("a node killed")?;
    wait(&brokers, "shop", "shown with two members", is_short).await?;
    // Topology goes on without it.
    let queue =
        "apiVersion: leveret.dev/v1alpha1\nkind: Queue\nmetadata: {name: later}\nspec: {brokerRef: {name: shop}}\n";
    shop.world.apply(queue)?;
    is_ready(&shop.world.api::<Queue>(), "later").await?;
    script("node-start", &pod, &[])?;
    is_whole(&shop.world).await?;
    traffic.report("the killed node started again")?;

    let Some(pod) = pod_elsewhere(&shop.world, spared).await? else { return Ok(()) };
    until_ok(PATIENCE, "each node to lead groups again", || {
        let shown = shop.world.kubectl(&["exec", "shop-0", "--", "/leveret", "cluster", "status"])?;
        ensure!(shown.lines().all(|line| !line.ends_with(" -")), "{shown}");
        Ok(())
    })?;
    script("cable", &pod, &["down"])?;
    let lost = async {
        traffic.report("a node disconnected")?;
        wait(&brokers, "shop", "shown with two members", is_short).await
    };
    let lost = lost.await;
    script("cable", &pod, &["up"])?;
    lost?;
    is_whole(&shop.world).await?;
    traffic.report("the disconnected node connected again")
}

#[tokio::test(flavor = "multi_thread")]
async fn three_members_lose_nothing_whichever_pod_volume_or_node_goes() -> Result<()> {
    let begin = Instant::now();
    let shop = Shop::open_with(3).await?;
    figure("a Broker with three members and its topology applied -> all ready", begin.elapsed());
    shop.world.apply(&queues(QUEUES))?;
    ready_queues(&shop.world, QUEUES).await?;
    let spared = node_of_operator(&shop.world).await?;
    let clients = Clients::start_on(&shop, "clients", Some(&spared)).await?;
    let traffic = Traffic::start(&clients, QUEUES)?;
    Box::pin(lose_pods_and_volumes(&shop, &traffic)).await?;
    Box::pin(lose_nodes(&shop, &traffic, &spared)).await?;
    let shown = shop.world.kubectl(&["get", "broker.leveret.dev", "shop"])?;
    ensure!(shown.contains("3/3") && shown.contains("WAITS FOR"), "{shown}");
    traffic.check()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_has_one_three_or_five_members_without_losing_a_message() -> Result<()> {
    let shop = Shop::open().await?;
    shop.world.apply(&queues(QUEUES))?;
    ready_queues(&shop.world, QUEUES).await?;
    let clients = Clients::start(&shop, "clients").await?;
    // These are there before there are others.
    clients.run("lapin", &["--queue", "billing", "--count", "2000", "publish"])?;
    let traffic = Traffic::start(&clients, QUEUES)?;
    let pods = shop.world.api::<Pod>();
    let first = pods.get("shop-0").await?;
    let scale = async |replicas: i32| {
        let begin = Instant::now();
        let patch = format!("{{\"spec\":{{\"replicas\":{replicas}}}}}");
        shop.world.kubectl(&["patch", "broker.leveret.dev", "shop", "--type=merge", "--patch", &patch])?;
        is_whole(&shop.world).await?;
        figure(&format!("scaled to {replicas}"), begin.elapsed());
        traffic.report(&format!("scaled to {replicas}"))
    };
    scale(3).await?;
    ensure!(pods.get("shop-0").await?.uid() == first.uid(), "the first pod was restarted");
    let claims = shop.world.api::<PersistentVolumeClaim>();
    let before = claims.get("data-shop-2").await?;
    scale(5).await?;
    lose_volumes(&shop, &traffic, "two of five pods killed and their volumes lost", &["shop-1", "shop-3"]).await?;
    scale(3).await?;
    scale(1).await?;
    for ordinal in 1..5 {
        wait_gone(&pods, &format!("shop-{ordinal}")).await?;
        wait_gone(&claims, &format!("data-shop-{ordinal}")).await?;
    }
    ensure!(pods.get("shop-0").await?.uid() == first.uid(), "the first pod was restarted");
    // A node that was one of several starts alone.
    pods.delete("shop-0", &DeleteParams::default().grace_period(0)).await?;
    shop.another_pod(&first).await?;
    is_whole(&shop.world).await?;
    traffic.report("the only pod killed")?;
    scale(3).await?;
    ensure!(claims.get("data-shop-2").await?.uid() != before.uid(), "the volume is that of the removed member");
    // The first members may go now: the others have everything.
    lose_volumes(&shop, &traffic, "the first pod killed and its volume lost", &["shop-0"]).await?;
    traffic.check()?;
    clients.run("lapin", &["--queue", "billing", "--count", "2000", "consume"])?;
    Ok(())
}

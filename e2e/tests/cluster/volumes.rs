//! Confirmed messages survive the loss of the pod, and a full volume.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Node, PersistentVolumeClaim, Pod};
use kube::api::{DeleteParams, ListParams};
use kube::{Api, ResourceExt};
use leveret_api::{Broker, Time};
use leveret_e2e::wait::until_ok;

use crate::clients::Clients;
use crate::shop::{Shop, is_ready};
use crate::world::{PATIENCE, kubectl, wait};

const MESSAGES: &str = "5000";
/// After so long without writes the log is really full, and not just being cleaned up.
const STANDSTILL: Duration = Duration::from_secs(3);

fn node_of(pod: &Pod) -> Result<String> {
    pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).context("the pod has no node")
}

#[tokio::test(flavor = "multi_thread")]
async fn confirmed_messages_survive_a_pod_that_is_deleted_killed_or_moved() -> Result<()> {
    let shop = Shop::open().await?;
    Clients::start(&shop, "publisher").await?.run("lapin", &["--queue", "billing", "--count", MESSAGES, "publish"])?;
    let pods = shop.world.api::<Pod>();
    for grace in [30, 0] {
        let before = pods.get("shop-0").await?;
        pods.delete("shop-0", &DeleteParams::default().grace_period(grace)).await?;
        shop.another_pod(&before).await?;
        shop.forward()?.shows("messages_ready", "billing", MESSAGES.parse()?)?;
    }
    let nodes = Api::<Node>::all(shop.world.client.clone()).list(&ListParams::default()).await?;
    if nodes.items.len() > 1 {
        let before = pods.get("shop-0").await?;
        let node = node_of(&before)?;
        kubectl(&["cordon", &node])?;
        let moved = async {
            pods.delete("shop-0", &DeleteParams::default()).await?;
            shop.another_pod(&before).await
        };
        let moved = moved.await;
        kubectl(&["uncordon", &node])?;
        ensure!(node_of(&moved?)? != node, "the pod is on {node} again");
    }
    Clients::start(&shop, "consumer").await?.run("lapin", &["--queue", "billing", "--count", MESSAGES, "consume"])?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_volume_holds_publishers_back_until_it_is_enlarged() -> Result<()> {
    let shop = Shop::open().await?;
    let clients = Clients::start(&shop, "clients").await?;
    let large = ["--queue", "billing", "--count", "480", "--size", "1000000"]; // more than the volume holds
    let mut publisher = clients.begin("lapin", &[&large[..], &["publish"]].concat())?;
    let forward = shop.forward()?;
    let (mut written, mut since) = (0.0, Instant::now());
    until_ok(PATIENCE, "the publisher to be held back by the disk alarm".to_owned(), || {
        let answer = forward.request("GET", "/api/health/checks/alarms")?;
        ensure!(answer.status == 503 && answer.body.contains("\"disk\""), "{} {}", answer.status, answer.body);
        let now = forward.figure("leveret_log_written_bytes_total")?;
        if now > written {
            (written, since) = (now, Instant::now());
        }
        ensure!(since.elapsed() > STANDSTILL, "the log still grows: {written} bytes");
        Ok(())
    })?;
    let pod = shop.world.api::<Pod>().get("shop-0").await?;
    ensure!(publisher.ended()?.is_none(), "the publisher was not held back:\n{}", publisher.output());

    let grow = |size: &str| {
        let patch = format!("{{\"spec\":{{\"storage\":{{\"size\":\"{size}\"}}}}}}");
        shop.world.kubectl(&["patch", "broker", "shop", "--type=merge", "--patch", &patch])
    };
    let brokers = shop.world.api::<Broker>();
    let since = ready_since(&brokers.get("shop").await?);
    grow("1Gi")?;
    ensure!(publisher.wait(PATIENCE)?.success(), "{}", publisher.output());
    clients.run("lapin", &["--queue", "billing", "--count", "480", "consume"])?;
    let same = shop.world.api::<Pod>().get("shop-0").await?;
    ensure!(same.uid() == pod.uid() && restarts(&same) == restarts(&pod), "the pod was restarted");
    let claims = shop.world.api::<PersistentVolumeClaim>();
    wait(&claims, "data-shop-0", "of 1Gi", |claim: &PersistentVolumeClaim| {
        let capacity = claim.status.as_ref().and_then(|status| status.capacity.as_ref());
        capacity.and_then(|capacity| capacity.get("storage")).is_some_and(|size| size.0 == "1Gi")
    })
    .await?;
    let broker = is_ready(&brokers, "shop").await?;
    ensure!(ready_since(&broker) == since, "the Broker was not ready while its volume grew: {:?}", broker.status);

    // Shrinking is refused with a message that says what to do, and all other changes are applied.
    grow("512Mi")?;
    let degraded = |broker: &Broker| {
        let conditions = broker.status.iter().flat_map(|status| &status.conditions);
        conditions.filter(|one| one.type_ == "Degraded").any(|one| one.message.contains("cannot shrink"))
    };
    wait(&brokers, "shop", "degraded", degraded).await?;
    let label = "{\"spec\":{\"podTemplate\":{\"annotations\":{\"team\":\"a\"}}}}";
    shop.world.kubectl(&["patch", "broker.leveret.dev", "shop", "--type=merge", "--patch", label])?;
    wait(&shop.world.api::<StatefulSet>(), "shop", "changed except for its volumes", |set: &StatefulSet| {
        let template = set.spec.as_ref().and_then(|spec| spec.template.metadata.as_ref());
        template.and_then(|meta| meta.annotations.as_ref()).is_some_and(|all| all.contains_key("team"))
    })
    .await?;
    Ok(())
}

/// Returns since when the Broker has been ready; `None` if it is not.
fn ready_since(broker: &Broker) -> Option<Time> {
    let mut conditions = broker.status.iter().flat_map(|status| &status.conditions);
    let ready = conditions.find(|one| one.type_ == "Ready" && one.status == "True")?;
    Some(ready.last_transition_time.clone())
}

fn restarts(pod: &Pod) -> i32 {
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    statuses.into_iter().flatten().map(|container| container.restart_count).sum()
}

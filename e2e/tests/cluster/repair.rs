//! Entities that are deleted on the broker, and pods that are killed, come back without loss.

use std::fmt::Write;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Event, PersistentVolumeClaim, Pod};
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams};
use leveret_api::{Broker, Queue};
use leveret_e2e::wait::until_ok;

use crate::clients::Clients;
use crate::figures::figure;
use crate::shop::{Shop, is_ready};
use crate::world::{PATIENCE, World, helm, install_chart, wait_gone};

#[tokio::test(flavor = "multi_thread")]
async fn entities_deleted_on_the_broker_are_declared_again() -> Result<()> {
    let shop = Shop::open().await?;
    let forward = shop.forward()?;
    let begin = Instant::now();
    ensure!(forward.request("DELETE", "/api/queues/%2F/billing")?.status == 204);
    forward.queue_status("billing", 200)?;
    figure("a queue deleted on the broker -> declared again", begin.elapsed());
    until_ok(PATIENCE, "the binding to be back too", || {
        let answer = forward.request("GET", "/api/bindings/%2F/e/orders/q/billing")?;
        ensure!(answer.json()?.as_array().is_some_and(|list| list.len() == 1), "{}", answer.body);
        Ok(())
    })?;
    let events = shop.world.api::<Event>().list(&ListParams::default()).await?;
    let told = events.iter().any(|event| {
        event.involved_object.kind.as_deref() == Some("Queue")
            && event.involved_object.name.as_deref() == Some("billing")
    });
    ensure!(told, "no event about the queue: {:?}", events.iter().map(|event| &event.message).collect::<Vec<_>>());

    ensure!(forward.request("DELETE", "/api/exchanges/%2F/orders")?.status == 204);
    until_ok(PATIENCE, "the exchange with its bindings to be back", || {
        let answer = forward.request("GET", "/api/exchanges/%2F/orders/bindings/source")?;
        ensure!(answer.json()?.as_array().is_some_and(|list| list.len() == 2), "{}", answer.body);
        Ok(())
    })?;
    Clients::start(&shop, "clients")
        .await?
        .run("pika", &["--exchange", "orders", "--key", "order.created.eu", "--count", "5", "publish"])?;
    Ok(())
}

/// Returns the YAML of `count` Queues named q0000 and so on.
pub(crate) fn queues(count: usize) -> String {
    let mut yaml = String::new();
    for number in 0..count {
        let _ = write!(
            yaml,
            "---\napiVersion: leveret.dev/v1alpha1\nkind: Queue\nmetadata: {{name: q{number:04}}}\nspec: {{brokerRef: {{name: shop}}}}\n"
        );
    }
    yaml
}

/// Waits until exactly `count` Queues whose names begin with `q` are ready.
pub(crate) async fn ready_queues(world: &World, count: usize) -> Result<()> {
    let (begin, api) = (Instant::now(), world.api::<Queue>());
    loop {
        use crate::shop::Conditions;
        let ready = api
            .list(&ListParams::default())
            .await?
            .iter()
            .filter(|queue| queue.name_any().starts_with('q') && queue.ready().0 == "True")
            .count();
        if ready == count {
            return Ok(());
        }
        ensure!(begin.elapsed() < PATIENCE, "{ready} of {count} queues are ready after {PATIENCE:?}");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

/// Deletes the operator's pods without a grace period.
pub(crate) async fn kill_operator(world: &World) -> Result<()> {
    let pods = world.operator::<Pod>();
    let list = pods.list(&ListParams::default()).await?;
    ensure!(!list.items.is_empty(), "the operator has no pods");
    for pod in list {
        pods.delete(&pod.name_any(), &DeleteParams::default().grace_period(0)).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_killed_in_the_middle_of_its_work_loses_nothing() -> Result<()> {
    let shop = Shop::open().await?;
    let clients = Clients::start(&shop, "clients").await?;
    clients.run("lapin", &["--queue", "billing", "--count", "100", "publish"])?;
    shop.world.apply(&queues(300))?;
    kill_operator(&shop.world).await?;
    ready_queues(&shop.world, 300).await?;
    let forward = shop.forward()?;
    let names = forward.request("GET", "/api/queues/%2F?columns=name")?.json()?;
    ensure!(
        names.as_array().is_some_and(|list| list.len() == 302),
        "{} queues are on the broker",
        names.as_array().map_or(0, Vec::len)
    );
    clients.run("pika", &["--queue", "billing", "--count", "100", "consume"])?;

    // An operator that is stopped in order releases its lease, so that the next one can start at once.
    ensure!(forward.request("DELETE", "/api/queues/%2F/audit")?.status == 204);
    let begin = Instant::now();
    crate::world::kubectl(&["--namespace", "leveret-system", "rollout", "restart", "deployment"])?;
    forward.queue_status("audit", 200)?;
    figure("operator restarted -> first repair", begin.elapsed());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_broker_pod_comes_back_with_its_topology() -> Result<()> {
    let shop = Shop::open().await?;
    let pods = shop.world.api::<Pod>();
    let before = pods.get("shop-0").await?;
    pods.delete("shop-0", &DeleteParams::default().grace_period(0)).await?;
    shop.another_pod(&before).await?;
    shop.forward()?.queue_status("billing", 200)?;
    is_ready(&shop.world.api::<Queue>(), "billing").await?;
    Clients::start(&shop, "clients").await?.run("amqplib", &["roundtrip"])?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn uninstalling_the_chart_leaves_brokers_and_their_data() -> Result<()> {
    let shop = Shop::open().await?;
    helm(&["uninstall", "leveret", "--namespace", "leveret-system", "--wait"])?;
    let kept = async {
        Clients::start(&shop, "clients").await?.run("pika", &["roundtrip"])?;
        shop.world.api::<Queue>().get("billing").await.context("the Queue was deleted with the chart")
    };
    let kept = kept.await;
    install_chart()?;
    kept?;
    shop.world.apply(&queues(1))?;
    is_ready(&shop.world.api::<Queue>(), "q0000").await?;

    // A deleted Broker leaves its volumes, and a new one of the same name uses them again.
    let claims = shop.world.api::<PersistentVolumeClaim>();
    let names = || async {
        Ok::<_, anyhow::Error>(
            claims.list(&ListParams::default()).await?.iter().map(ResourceExt::uid).collect::<Vec<_>>(),
        )
    };
    let before = names().await?;
    ensure!(before.len() == 1, "{before:?}");
    let brokers = shop.world.api::<Broker>();
    brokers.delete("shop", &DeleteParams::default()).await?;
    wait_gone(&brokers, "shop").await?;
    wait_gone(&shop.world.api::<Pod>(), "shop-0").await?;
    ensure!(names().await? == before, "the volume was deleted with the Broker");
    Ok(())
}

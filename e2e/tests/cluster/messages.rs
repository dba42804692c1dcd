//! Messages through the cluster with each client, and what metrics and status show of them.

use anyhow::{Result, ensure};
use leveret_api::Queue;

use crate::clients::{ALL, Clients};
use crate::shop::Shop;
use crate::world::wait;

#[tokio::test(flavor = "multi_thread")]
async fn each_client_passes_the_conformance_checks_through_the_service() -> Result<()> {
    let shop = Shop::open().await?;
    let clients = Clients::start(&shop, "clients").await?;
    for client in ALL {
        let output = clients.run(client, &["conformance"])?;
        ensure!(
            output.lines().filter(|line| line.starts_with("ok ")).count() > 50,
            "{client} made too few checks:\n{output}"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_client_consumes_what_another_one_published() -> Result<()> {
    let shop = Shop::open().await?;
    let clients = Clients::start(&shop, "clients").await?;
    for (writer, reader) in ALL.into_iter().zip(ALL.into_iter().cycle().skip(1)) {
        clients.run(writer, &["--exchange", "orders", "--key", "order.created.eu", "--count", "300", "publish"])?;
        for queue in ["billing", "audit"] {
            clients.run(reader, &["--queue", queue, "--count", "300", "consume"])?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_and_status_follow_messages_and_consumers() -> Result<()> {
    let shop = Shop::open().await?;
    let clients = Clients::start(&shop, "clients").await?;
    let forward = shop.forward()?;
    forward.shows("messages_ready", "billing", 0.0)?;
    clients.run("amqp091-go", &["--queue", "billing", "--count", "200", "publish"])?;
    forward.shows("messages_ready", "billing", 200.0)?;
    let queues = shop.world.api::<Queue>();
    let column =
        |count: i64| move |queue: &Queue| queue.status.as_ref().and_then(|status| status.messages_ready) == Some(count);
    wait(&queues, "billing", "shown with 200 messages", column(200)).await?;

    let holder = Clients::start(&shop, "holder").await?;
    let held = holder.hold("pika", "billing", 50)?;
    forward.shows("consumers", "billing", 1.0)?;
    forward.shows("messages_unacked", "billing", 50.0)?;
    forward.shows("messages_ready", "billing", 150.0)?;
    holder.delete().await?;
    drop(held);
    forward.shows("consumers", "billing", 0.0)?;
    forward.shows("messages_ready", "billing", 200.0)?;

    clients.run("lapin", &["--queue", "billing", "--count", "200", "consume"])?;
    forward.shows("messages_ready", "billing", 0.0)?;
    forward.shows("messages_acked_total", "billing", 200.0)?;
    wait(&queues, "billing", "shown without messages", column(0)).await?;
    Ok(())
}

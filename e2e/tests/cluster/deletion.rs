//! Deleting ends, and takes no messages with it that nobody said may go.

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::Resource;
use kube::api::DeleteParams;
use leveret_api::{Broker, Queue};

use crate::clients::Clients;
use crate::figures::figure;
use crate::shop::{Shop, is_not_ready};
use crate::world::wait_gone;

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_with_messages_waits_and_says_how_many_hold_it() -> Result<()> {
    let shop = Shop::open().await?;
    let clients = Clients::start(&shop, "clients").await?;
    clients.run("pika", &["--queue", "billing", "--count", "7", "publish"])?;
    let queues = shop.world.api::<Queue>();
    queues.delete("billing", &DeleteParams::default()).await?;
    let message = is_not_ready(&queues, "billing", "NotEmpty").await?;
    ensure!(message.contains('7'), "the condition does not say how many: {message}");
    ensure!(queues.get("billing").await?.meta().deletion_timestamp.is_some());
    clients.run("pika", &["--queue", "billing", "--count", "7", "consume"])?;
    wait_gone(&queues, "billing").await?;
    let forward = shop.forward()?;
    forward.queue_status("billing", 404)?;

    // Delete means delete: this one goes with what is in it.
    clients.run("pika", &["--queue", "audit", "--count", "7", "publish"])?;
    queues.delete("audit", &DeleteParams::default()).await?;
    wait_gone(&queues, "audit").await?;
    forward.queue_status("audit", 404)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_with_all_of_it_goes() -> Result<()> {
    let shop = Shop::open().await?;
    let clients = Clients::start(&shop, "clients").await?;
    clients.run("pika", &["--queue", "billing", "--count", "7", "publish"])?;
    clients.delete().await?;
    figure("a namespace with a broker and messages deleted -> gone", shop.world.delete().await?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_let_go_of_a_broker_that_is_gone() -> Result<()> {
    let shop = Shop::open().await?;
    let clients = Clients::start(&shop, "clients").await?;
    clients.run("pika", &["--queue", "billing", "--count", "7", "publish"])?;
    let brokers = shop.world.api::<Broker>();
    brokers.delete("shop", &DeleteParams::default()).await?;
    wait_gone(&brokers, "shop").await?;
    wait_gone(&shop.world.api::<Pod>(), "shop-0").await?;
    let queues = shop.world.api::<Queue>();
    queues.delete("billing", &DeleteParams::default()).await?;
    wait_gone(&queues, "billing").await
}

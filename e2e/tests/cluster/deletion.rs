//! Deletions come to an end, and delete messages only where the deletion policy says so.

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
async fn the_deletion_of_a_queue_with_messages_waits_and_its_condition_has_their_number() -> Result<()> {
    let shop = Shop::open().await?;
    let clients = Clients::start(&shop, "clients").await?;
    clients.run("pika", &["--queue", "billing", "--count", "7", "publish"])?;
    let queues = shop.world.api::<Queue>();
    queues.delete("billing", &DeleteParams::default()).await?;
    let message = is_not_ready(&queues, "billing", "NotEmpty").await?;
    ensure!(message.contains('7'), "the condition does not have the number of messages: {message}");
    ensure!(queues.get("billing").await?.meta().deletion_timestamp.is_some());
    clients.run("pika", &["--queue", "billing", "--count", "7", "consume"])?;
    wait_gone(&queues, "billing").await?;
    let forward = shop.forward()?;
    forward.queue_status("billing", 404)?;

    // The deletion policy `Delete` deletes the queue with its messages.
    clients.run("pika", &["--queue", "audit", "--count", "7", "publish"])?;
    queues.delete("audit", &DeleteParams::default()).await?;
    wait_gone(&queues, "audit").await?;
    forward.queue_status("audit", 404)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_with_a_broker_and_messages_can_be_deleted() -> Result<()> {
    let shop = Shop::open().await?;
    let clients = Clients::start(&shop, "clients").await?;
    clients.run("pika", &["--queue", "billing", "--count", "7", "publish"])?;
    clients.delete().await?;
    figure("a namespace with a broker and messages deleted -> gone", shop.world.delete().await?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_of_a_deleted_broker_can_be_deleted() -> Result<()> {
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

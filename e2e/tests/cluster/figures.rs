//! Measures how long things take, and prints the times for comparison. A test fails only if a time is absurd.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams};
use leveret_api::Queue;

use crate::clients::Clients;
use crate::repair::{queues, ready_queues};
use crate::shop::{Shop, is_ready};
use crate::world::PATIENCE;

/// Prints a measured time.
pub(crate) fn figure(what: &str, took: Duration) {
    eprintln!("figure: {what}: {:.2} s", took.as_secs_f64());
}

#[tokio::test(flavor = "multi_thread")]
async fn time_from_applying_one_file_to_the_first_message() -> Result<()> {
    let begin = Instant::now();
    let shop = Shop::open().await?;
    figure("a Broker and its topology applied -> all ready", begin.elapsed());
    let clients = Clients::start(&shop, "clients").await?;
    let asked = Instant::now();
    clients.run("amqp091-go", &["--exchange", "orders", "--key", "order.created.eu", "--count", "1", "publish"])?;
    clients.run("amqp091-go", &["--queue", "billing", "--count", "1", "consume"])?;
    figure(
        "... a message published and consumed through the Service, including two starts of the client",
        asked.elapsed(),
    );
    ensure!(begin.elapsed() < PATIENCE);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn times_of_one_queue_and_of_a_thousand() -> Result<()> {
    let shop = Shop::open().await?;
    let forward = shop.forward()?;
    let api = shop.world.api::<Queue>();
    let begin = Instant::now();
    shop.world.apply(&queues(1))?;
    forward.queue_status("q0000", 200)?;
    figure("one Queue applied by kubectl -> on the broker", begin.elapsed());
    is_ready(&api, "q0000").await?;

    let begin = Instant::now();
    shop.world.apply(&queues(1000))?;
    let applied = begin.elapsed();
    ready_queues(&shop.world, 1000).await?;
    figure("1,000 Queues applied by kubectl -> all ready", begin.elapsed());
    figure("... of which kubectl", applied);

    let begin = Instant::now();
    for queue in api.list(&ListParams::default()).await?.iter().filter(|queue| queue.name_any().starts_with('q')) {
        api.delete(&queue.name_any(), &DeleteParams::default()).await?;
    }
    loop {
        let left =
            api.list(&ListParams::default()).await?.iter().filter(|queue| queue.name_any().starts_with('q')).count();
        if left == 0 {
            break;
        }
        ensure!(begin.elapsed() < PATIENCE, "{left} Queues are left after {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    figure("1,000 Queues deleted -> gone", begin.elapsed());
    let left = forward.request("GET", "/api/queues/%2F?columns=name")?.json()?;
    ensure!(left.as_array().is_some_and(|list| list.len() == 2), "left on the broker: {left}");
    Ok(())
}

//! Checks of connections: tuning, refused logins, heartbeats, many channels.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lapin::{Connection, ConnectionProperties};

use crate::broker::{
    Broker, drain, equal, exclusive, expect_close, numbers, open as open_channel, passive, protocol_error, send, within,
};

/// Checks only that the connection works, as lapin does not show the server's properties.
pub(crate) async fn open(broker: &Broker) -> Result<()> {
    let session = broker.channel().await?;
    ensure!(session.connection.status().connected());
    session.close().await
}

pub(crate) async fn tune(broker: &Broker) -> Result<()> {
    let connection = broker.connect("").await?;
    let tuned = connection.configuration();
    equal((tuned.channel_max(), tuned.frame_max(), tuned.heartbeat()), (2047, 131_072, 60))?;
    connection.close(200, "done".into()).await?;
    let connection = broker.connect("?channel_max=7&frame_max=8192&heartbeat=9").await?;
    let mut channels = Vec::new(); // kept: a dropped channel closes, which would race with the close of the connection
    for _ in 0..7 {
        channels.push(open_channel(&connection).await?);
    }
    connection.close(200, "done".into()).await?;
    Ok(())
}

async fn dial_refused(url: &str, code: u16, word: &str) -> Result<()> {
    let Err(error) = within(Connection::connect(url, ConnectionProperties::default()), "an answer").await? else {
        bail!("the connection was accepted")
    };
    let reason = protocol_error(&error).with_context(|| format!("refused with {error}, expected {code}"))?;
    equal(reason.get_id(), code)?;
    ensure!(reason.get_message().as_str().contains(word), "text {:?} does not name {word}", reason.get_message());
    Ok(())
}

pub(crate) async fn wrong_password(broker: &Broker) -> Result<()> {
    let (scheme, rest) = broker.url.split_once("://").context("the URL has no scheme")?;
    let (credentials, place) = rest.rsplit_once('@').context("the URL has no user")?;
    let user = credentials.split(':').next().unwrap_or_default();
    dial_refused(&format!("{scheme}://{user}:wrong@{place}"), 403, "ACCESS_REFUSED").await
}

pub(crate) async fn wrong_vhost(broker: &Broker) -> Result<()> {
    let (place, _) = broker.url.rsplit_once('/').context("the URL has no vhost")?;
    dial_refused(&format!("{place}/no-such-vhost"), 530, "no-such-vhost").await
}

pub(crate) async fn heartbeat(broker: &Broker) -> Result<()> {
    let connection = broker.connect("?heartbeat=1").await?;
    let channel = open_channel(&connection).await?;
    tokio::time::sleep(Duration::from_secs(4)).await; // four heartbeat intervals without other traffic
    exclusive(&channel).await?;
    connection.close(200, "done".into()).await?;
    Ok(())
}

pub(crate) async fn channels(broker: &Broker) -> Result<()> {
    let connection = broker.connect("").await?;
    let mut events = Box::pin(connection.events_listener());
    let mut channels = Vec::new();
    for _ in 0..200 {
        channels.push(open_channel(&connection).await?);
    }
    let queue = exclusive(&channels[0]).await?;
    for (channel, body) in channels.iter().zip(numbers(0, 200)) {
        send(channel, "", &queue, &body).await?;
    }
    equal(drain(&channels[0], &queue).await?, numbers(0, 200))?;
    ensure!(passive(&channels[7], "no-such-queue").await.is_err());
    expect_close(&mut events, 404, &[]).await?;
    send(&channels[8], "", &queue, "still here").await?;
    channels[9].close(200, "done".into()).await?;
    let reopened = open_channel(&connection).await?;
    equal(drain(&reopened, &queue).await?, ["still here"])?;
    connection.close(200, "done".into()).await?;
    Ok(())
}

pub(crate) async fn close(broker: &Broker) -> Result<()> {
    let session = broker.channel().await?;
    let queue = exclusive(&session).await?;
    session.close().await?;
    broker.refused(404, &[&queue], async |channel| passive(channel, &queue).await.map(drop)).await
}

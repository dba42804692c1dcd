//! The task that writes: whatever has gathered, in one call.
use super::output::{BUFFER_KEPT, Output};
use leveret_node::Broker;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::OwnedWriteHalf;

/// Writes until the output is closed and empty, or the socket fails. `heartbeat` changes once it is agreed upon.
pub(crate) async fn write(
    mut socket: OwnedWriteHalf,
    output: Arc<Output>,
    broker: Broker,
    mut heartbeat: tokio::sync::watch::Receiver<Option<Duration>>,
    sent_bytes: Arc<AtomicU64>,
) {
    let mut ready = Vec::new();
    let mut idle_ticks = 0u32;
    let mut ticks = tokio::time::interval(IDLE_TICK);
    while output.swap(&mut ready) {
        if ready.is_empty() {
            tokio::select! {
                () = output.woken() => {}
                changed = heartbeat.changed() => {
                    if changed.is_ok() && let Some(every) = *heartbeat.borrow_and_update() {
                        ticks = tokio::time::interval(every.min(IDLE_TICK));
                    }
                }
                _ = ticks.tick() => idle_ticks = tick(idle_ticks, &output, &mut ready, *heartbeat.borrow()),
            }
            continue;
        }
        idle_ticks = 0;
        if socket.write_all(&ready).await.is_err() {
            break;
        }
        sent_bytes.fetch_add(ready.len() as u64, Relaxed);
        if ready.capacity() > BUFFER_MAX {
            ready = Vec::new();
        }
        ready.clear();
        for (queue, consumer) in output.take_stalled() {
            broker.drained(&queue, consumer);
        }
    }
    let _ = socket.shutdown().await;
}

/// Nothing to write for a while: buffers are given back, and the client hears that we are there.
fn tick(idle_ticks: u32, output: &Output, ready: &mut Vec<u8>, heartbeat: Option<Duration>) -> u32 {
    if ready.capacity() > BUFFER_KEPT {
        *ready = Vec::new();
    }
    output.shrink();
    if let Some(every) = heartbeat
        && every.min(IDLE_TICK) * (idle_ticks + 1) >= every
    {
        output.write(|state| crate::codec::encode::heartbeat(&mut state.buffer));
        return 0;
    }
    idle_ticks + 1
}

/// How often an idle writer looks around.
const IDLE_TICK: Duration = Duration::from_secs(5);
/// A buffer that one large message has blown up beyond this is given back.
const BUFFER_MAX: usize = 4 << 20;

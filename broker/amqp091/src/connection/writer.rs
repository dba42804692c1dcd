//! The writing task: it writes all bytes that have gathered in one call.
//!
//! It sleeps until there are bytes to write, a heartbeat is due, or the buffers of a connection that has become idle are
//! to be freed.
use super::output::{BUFFER_KEPT, Between, Output};
use crate::pool::Pool;
use leveret_node::Broker;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::time::Instant;

/// The writer of a connection.
pub(crate) struct Writer {
    /// The bytes to write.
    pub(crate) output: Arc<Output>,
    /// The broker, to dispatch queues again that waited for the output to drain.
    pub(crate) broker: Broker,
    /// Determines the length of a turn.
    pub(crate) pool: Arc<Pool>,
    /// The interval of the heartbeats that the broker sends; set once it is agreed upon.
    pub(crate) heartbeat: tokio::sync::watch::Receiver<Option<Duration>>,
    /// Counts the bytes that the socket took.
    pub(crate) sent_bytes: Arc<AtomicU64>,
}

impl Writer {
    /// Writes until the output is closed and empty, or the socket fails.
    pub(crate) async fn write(mut self, mut socket: OwnedWriteHalf) {
        let (mut ready, mut between) = (Vec::new(), Between::default());
        let mut turn_bytes = 0;
        while self.output.swap(&mut ready, &mut between) {
            if ready.is_empty() {
                turn_bytes = 0;
                self.idle(&mut ready).await;
                continue;
            }
            let written = match between.len() {
                0 => self.write_all(&mut socket, &ready).await,
                _ => self.write_slices(&mut socket, &mut between.slices(&ready)).await,
            };
            if written.is_err() {
                break;
            }
            turn_bytes += ready.len() + between.len();
            between.clear();
            if ready.capacity() > BUFFER_MAX {
                ready = Vec::new();
            }
            ready.clear();
            for (queue, consumer) in self.output.take_stalled() {
                self.broker.drained(&queue, consumer);
            }
            if turn_bytes >= self.pool.turns.bytes_max() {
                turn_bytes = 0;
                self.pool.turns.pass().await;
            }
        }
        let _ = socket.shutdown().await;
    }

    async fn write_all(&self, socket: &mut OwnedWriteHalf, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = self.count(socket.write(bytes).await?)?;
            bytes = &bytes[written..];
        }
        Ok(())
    }

    async fn write_slices(&self, socket: &mut OwnedWriteHalf, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
        while !slices.is_empty() {
            let written = self.count(socket.write_vectored(slices).await?)?;
            IoSlice::advance_slices(&mut slices, written);
        }
        Ok(())
    }

    /// Counts the bytes that the socket took, at once: they show that the client reads.
    fn count(&self, written: usize) -> io::Result<usize> {
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.sent_bytes.fetch_add(written as u64, Relaxed);
        Ok(written)
    }

    /// Waits until there are bytes to write. Writes a heartbeat if there are none in time.
    async fn idle(&mut self, ready: &mut Vec<u8>) {
        let idle_since = Instant::now();
        loop {
            let beat = *self.heartbeat.borrow_and_update();
            let is_grown = ready.capacity() > BUFFER_KEPT || self.output.is_grown();
            let next = [beat, is_grown.then_some(GIVE_BACK_AFTER)].into_iter().flatten().min();
            let due = async {
                match next {
                    Some(next) => tokio::time::sleep_until(idle_since + next).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = self.output.woken() => return,
                changed = self.heartbeat.changed() => {
                    if changed.is_err() {
                        return self.output.woken().await; // the connection ends and will soon close its output
                    }
                }
                () = due => {
                    if is_grown && idle_since.elapsed() >= GIVE_BACK_AFTER {
                        *ready = Vec::new();
                        self.output.shrink();
                    }
                    if beat.is_some_and(|every| idle_since.elapsed() >= every) {
                        return self.output.write(|state| crate::codec::encode::heartbeat(&mut state.buffer));
                    }
                }
            }
        }
    }
}

/// The buffers of an idle connection are freed after this time.
const GIVE_BACK_AFTER: Duration = Duration::from_secs(5);
/// A buffer that has grown beyond this size, in bytes, is freed.
const BUFFER_MAX: usize = 4 << 20;

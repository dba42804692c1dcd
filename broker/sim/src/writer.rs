//! A replacement for the node's threads. The seed decides when the journal is written, and how long work takes that waits
//! for the disk.
//!
//! The journal is written in all ways that the real node has: write and sync with time between them, in which the node may
//! go on or end; a whole turn of the writer thread; or by the append itself.
use crate::random::Random;
use leveret_journal::faulty::Slow;
use leveret_journal::{Driver, Journal};
use parking_lot::Mutex;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use tokio::time::sleep;

pub(crate) struct Writer {
    random: Arc<Mutex<Random>>,
    /// True if appends may write the journal themselves, which is the case in half of the lives.
    at_once: bool,
    /// True if stalls of the disk are frequent.
    slow: bool,
    /// While this is true, the journal is not written.
    stands: Arc<AtomicBool>,
}

impl Writer {
    pub(crate) fn new(seed: u64, slow: bool) -> Self {
        let mut random = Random::new(seed);
        let at_once = random.once_in(2);
        Self { random: Arc::new(Mutex::new(random)), at_once, slow, stands: Arc::default() }
    }

    /// Has the journal not be written while `stands` is true.
    pub(crate) fn that_stands_while(self, stands: &Arc<AtomicBool>) -> Self {
        Self { stands: stands.clone(), ..self }
    }
}

impl Driver for Writer {
    fn drive(&self, journal: Journal) {
        let (random, stalls) = (self.random.clone(), if self.slow { 20 } else { 200 });
        let stands = self.stands.clone();
        tokio::spawn(async move {
            loop {
                let (wait, whole) = {
                    let mut random = random.lock();
                    let wait = if random.once_in(stalls) { 50 + random.below(400) } else { random.below(4) };
                    (wait, random.once_in(3))
                };
                sleep(Duration::from_millis(wait)).await; // disks stall now and then
                if !stands.load(Relaxed) {
                    if whole { journal.turn() } else { journal.step() }
                }
            }
        });
    }

    fn writes_at_once(&self) -> bool {
        self.at_once && !self.stands.load(Relaxed) && self.random.lock().once_in(2)
    }

    fn off_thread(&self, work: Box<dyn FnOnce() + Send>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let mut slow = Slow::new(work);
        Box::pin(async move {
            while let Some(time) = slow.go_on() {
                sleep(time).await;
            }
        })
    }
}

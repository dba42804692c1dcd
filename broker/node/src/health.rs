//! The health of storage, as health checks and the status of a queue report it.
use crate::Broker;
use crate::queue::{Queue, QueueId};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// The reason why a queue cannot deliver all of its messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Bytes on the disk are missing or are not those that were written; the text names the file and, if known, the offset.
    /// Deliveries stop before them; other queues go on.
    Unreadable(String),
    /// The disk or the system refuses to read at the moment; reading is tried again.
    Retrying(String),
}

/// The reason why storage is not healthy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StorageTrouble {
    /// Storage is being opened.
    #[error("storage is not open yet")]
    Opening,
    /// A part of the log takes no entries any more: publishes to its queues are not confirmed, and a restart is needed.
    #[error("the log has stopped: {0}")]
    Stopped(String),
    /// Some queues cannot deliver all of their messages.
    #[error("{queues} queues cannot deliver all of their messages, the first is '{name}' in vhost '{vhost}': {reason}")]
    Unreadable {
        /// The number of these queues.
        queues: usize,
        /// The virtual host of the first of them.
        vhost: Arc<str>,
        /// The name of the first of them.
        name: Arc<str>,
        /// The reason why the first of them cannot deliver.
        reason: String,
    },
}

impl Broker {
    /// Checks that storage is healthy. A node without storage always is.
    ///
    /// # Errors
    /// [`StorageTrouble`], the worst first.
    pub fn storage_health(&self) -> Result<(), StorageTrouble> {
        if self.0.shards.get().is_none() {
            return Ok(());
        }
        let storage = self.0.storage.get().ok_or(StorageTrouble::Opening)?;
        if let Some(stopped) = storage.groups.stopped() {
            return Err(StorageTrouble::Stopped(stopped.to_string()));
        }
        let troubled = self.troubled_queues();
        let queues = troubled.len();
        let Some((queue, Trouble::Unreadable(reason) | Trouble::Retrying(reason))) = troubled.into_iter().next() else {
            return Ok(());
        };
        Err(StorageTrouble::Unreadable { queues, vhost: queue.vhost.clone(), name: queue.name.clone(), reason })
    }

    /// Returns the number of panics of any task since the process began. A panic that the broker cannot survive ends the
    /// process instead.
    pub fn panics(&self) -> u64 {
        crate::tasks::panics()
    }

    /// Returns the queues that cannot deliver all of their messages, and why.
    pub(crate) fn troubled_queues(&self) -> Vec<(Arc<Queue>, Trouble)> {
        let Some(shards) = self.0.shards.get() else { return Vec::new() };
        let noted: Vec<QueueId> = shards.damage.queues.lock().iter().copied().collect();
        let mut troubled = Vec::new();
        for id in noted {
            match self.queue(id).and_then(|queue| Some((queue.clone(), queue.trouble()?))) {
                Some(found) => troubled.push(found),
                None => {
                    shards.damage.queues.lock().remove(&id);
                }
            }
        }
        troubled
    }
}

impl Queue {
    /// Returns the reason why the queue cannot deliver all of its messages; `None` if it can.
    pub fn trouble(&self) -> Option<Trouble> {
        self.shards.as_ref()?;
        if let Some(reason) = self.look(|queue| queue.unreadable().map(str::to_owned)) {
            return Some(Trouble::Unreadable(reason));
        }
        if self.reads.failures.load(Relaxed) == 0 {
            return None;
        }
        self.reads.trouble.lock().clone().map(Trouble::Retrying)
    }
}

//! Whether storage does what it should: what health checks and the status of a queue tell.
use crate::Broker;
use crate::queue::{Queue, QueueId};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Why a queue cannot deliver all that is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Bytes on the disk are not those that were written: file and offset. Deliveries stop before them; other queues go on.
    Unreadable(String),
    /// The disk or the system refuses at the moment; it is tried again.
    Retrying(String),
}

/// Why storage does not do all that it should.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StorageTrouble {
    /// It is being opened.
    #[error("storage is not open yet")]
    Opening,
    /// A part of the log takes nothing any more: what is published to its queues is not confirmed, a restart is needed.
    #[error("the log has stopped: {0}")]
    Stopped(String),
    /// Queues cannot deliver all that is in them.
    #[error("{queues} queues cannot deliver all of their messages, the first is '{name}' in vhost '{vhost}': {reason}")]
    Unreadable {
        /// How many.
        queues: usize,
        /// The virtual host of the first.
        vhost: Arc<str>,
        /// Its name.
        name: Arc<str>,
        /// What is wrong with it.
        reason: String,
    },
}

impl Broker {
    /// Whether storage does what it should; a node without storage has nothing to complain of.
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

    /// Panics of any task since the process began; one that the broker could not go on after has ended it.
    pub fn panics(&self) -> u64 {
        crate::tasks::panics()
    }

    /// Queues that cannot deliver all that is in them, and why.
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
    /// Why the queue cannot deliver all that is in it, if so.
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

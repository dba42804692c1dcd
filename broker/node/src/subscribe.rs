//! Consumers come and go, and clients that ask for one message at a time.
use crate::Broker;
use crate::queue::Queue;
use leveret_engine::queue::{ConsumerId, ExclusiveUse, Got, Sink, Subscription};
use leveret_model::refusal::{Refusal, RefusalKind};

impl Broker {
    /// Subscribes a consumer: its sink hears `started`, then takes what is ready.
    ///
    /// # Errors
    /// The queue is in exclusive use, or was deleted meanwhile.
    pub fn subscribe(&self, queue: &Queue, subscription: Subscription) -> Result<ConsumerId, Refusal> {
        let mut entered = queue.enter();
        if queue.is_deleted() {
            return Err(queue.not_found());
        }
        let id = entered.subscribe(subscription).map_err(|ExclusiveUse| Refusal {
            kind: RefusalKind::AccessRefused,
            text: format!("queue '{}' in vhost '{}' in exclusive use", queue.name, queue.vhost),
        })?;
        entered.dispatch(self.clock().now());
        Ok(id)
    }

    /// Takes a consumer away. What it was delivered stays to be settled; see [`left`](Self::left).
    pub fn unsubscribe(&self, queue: &Queue, id: ConsumerId) {
        let mut entered = queue.enter();
        entered.unsubscribe(id);
        entered.dispatch(self.clock().now());
    }

    /// A consumer has left and settled what it had: a queue declared to go with its last consumer goes.
    pub async fn left(&self, queue: &Queue) {
        if queue.auto_delete && queue.look(|queue| queue.depth().consumers) == 0 {
            self.delete_unused_queue(queue).await;
        }
    }

    /// The output of a consumer has room again.
    pub fn drained(&self, queue: &Queue, id: ConsumerId) {
        queue.enter().drained(id, self.clock().now());
    }

    /// The channel of a consumer, whose limit held it back, has room for it.
    pub fn unblocked(&self, queue: &Queue, id: ConsumerId) {
        queue.enter().unblocked(id, self.clock().now());
    }

    /// Hands on what is ready, after something else than the queue itself made room.
    pub fn dispatch(&self, queue: &Queue) {
        queue.enter().dispatch(self.clock().now());
    }

    /// Hands the first ready message to `sink`. False if there is none.
    pub async fn get(&self, queue: &Queue, sink: &dyn Sink, no_ack: bool) -> bool {
        queue.caught_up().await;
        loop {
            let fetched = queue.fetched.notified();
            let got = queue.enter().get(sink, no_ack, self.clock().now());
            match got {
                Got::Message => return true,
                Got::Empty => return false,
                Got::Cold => fetched.await,
            }
        }
    }
}

impl Queue {
    /// Waits until all that was published to it so far is in it: a client that asks next finds its own messages.
    pub async fn caught_up(&self) {
        if let Some(log) = &self.log {
            log.shard(self.id).until_visible().await;
        }
    }

    pub(crate) fn not_found(&self) -> Refusal {
        let text = format!("no queue '{}' in vhost '{}'", self.name, self.vhost);
        Refusal { kind: RefusalKind::NotFound, text }
    }
}

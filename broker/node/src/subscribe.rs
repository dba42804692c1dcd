//! Consumers come and go, and clients that ask for one message at a time.
use crate::Broker;
use crate::caller::Caller;
use crate::queue::Queue;
use leveret_engine::queue::{ConsumerId, ExclusiveUse, Got, Sink, Subscription};
use leveret_model::refusal::{Refusal, RefusalKind};
use std::time::Duration;

impl Broker {
    /// Subscribes a consumer: its sink hears `started`, then takes what is ready.
    ///
    /// # Errors
    /// The queue is in exclusive use, or was deleted meanwhile.
    pub fn subscribe(
        &self,
        _caller: &Caller,
        queue: &Queue,
        subscription: Subscription,
    ) -> Result<ConsumerId, Refusal> {
        self.mark_activity();
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

    /// Takes a consumer away. What it was delivered stays to be settled; see [`consumer_left`](Self::consumer_left).
    pub fn unsubscribe(&self, queue: &Queue, id: ConsumerId) {
        let mut entered = queue.enter();
        entered.unsubscribe(id);
        entered.dispatch(self.clock().now());
    }

    /// A consumer has left and settled what it had: a queue declared to go with its last consumer goes.
    pub async fn consumer_left(&self, queue: &Queue) {
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
    ///
    /// # Errors
    /// The queue was deleted meanwhile, or its next message cannot be read.
    pub async fn get(&self, _caller: &Caller, queue: &Queue, sink: &dyn Sink, no_ack: bool) -> Result<bool, Refusal> {
        queue.caught_up().await;
        let began = tokio::time::Instant::now();
        loop {
            let fetched = queue.reads.finished.notified();
            let (got, standstill) = {
                let mut entered = queue.enter();
                let got = entered.get(sink, no_ack, self.clock().now());
                (got, entered.standstill().map(str::to_owned))
            };
            match got {
                Got::Message => return Ok(true),
                _ if queue.is_deleted() => return Err(queue.not_found()),
                Got::Empty => return Ok(false),
                Got::Cold => {}
            }
            let waited = began.elapsed();
            if let Some(reason) = standstill.or_else(|| queue.reason_to_give_up(waited)) {
                return Err(queue.not_readable(&reason));
            }
            let until = began + if waited < READ_TROUBLE_MAX { READ_TROUBLE_MAX } else { READ_MAX };
            tokio::select! {
                biased;
                _ = tokio::time::timeout_at(until, fetched) => {}
                () = self.node().stopping.cancelled() => return Ok(false),
            }
        }
    }
}

impl Queue {
    /// Waits until all that was published to it so far is in it: a client that asks next finds its own messages.
    pub async fn caught_up(&self) {
        if let Some(shards) = &self.shards {
            shards.shard(self.id).until_visible().await;
        }
    }

    /// Waits until all that was acknowledged so far has gone from it.
    pub(crate) async fn settled(&self) {
        if let Some(shards) = &self.shards {
            shards.shard(self.id).until_settled().await;
        }
    }

    /// Why a client that has waited so long for contents had better not wait any more.
    fn reason_to_give_up(&self, waited: Duration) -> Option<String> {
        let trouble = if waited >= READ_TROUBLE_MAX { self.reads.trouble.lock().clone() } else { None };
        trouble.or_else(|| (waited >= READ_MAX).then(|| format!("the disk took more than {READ_MAX:?}")))
    }

    fn not_readable(&self, reason: &str) -> Refusal {
        let text =
            format!("the next message of queue '{}' in vhost '{}' cannot be read: {reason}", self.name, self.vhost);
        Refusal::precondition(text)
    }

    pub(crate) fn not_found(&self) -> Refusal {
        let text = format!("no queue '{}' in vhost '{}'", self.name, self.vhost);
        Refusal { kind: RefusalKind::NotFound, text }
    }
}

/// A client that asks for a message waits this long for the disk, at most.
const READ_MAX: Duration = Duration::from_secs(10);
/// And this long if reads fail.
const READ_TROUBLE_MAX: Duration = Duration::from_secs(1);

//! The door for consumers that come and go, and for clients that get one message at a time.
use crate::Broker;
use crate::ask::LOOK_AGAIN;
use crate::caller::Caller;
use crate::fronts;
use crate::queue::Queue;
use leveret_engine::queue::{self as engine, ConsumerId, ExclusiveUse, Got, Sink, Subscription};
use leveret_model::refusal::{Refusal, RefusalKind};
use std::time::Duration;
use tokio::time::Instant;

impl Broker {
    /// Subscribes a consumer: calls `started` on its sink, then delivers ready messages to it. Returns the identity of the
    /// consumer within the queue.
    ///
    /// # Errors
    /// The queue has an exclusive consumer, or has consumers while this one wants to be exclusive, or was deleted
    /// meanwhile.
    pub fn subscribe(
        &self,
        _caller: &Caller,
        queue: &Queue,
        subscription: Subscription,
    ) -> Result<ConsumerId, Refusal> {
        self.mark_activity();
        queue.check_here()?;
        let mut entered = queue.enter();
        if queue.is_deleted() {
            return Err(queue.not_found());
        }
        let id = entered.subscribe(subscription).map_err(|ExclusiveUse| queue.in_exclusive_use())?;
        entered.dispatch(self.clock().now());
        Ok(id)
    }

    /// Removes a consumer. Messages that were delivered to it stay unacknowledged; see
    /// [`consumer_left`](Self::consumer_left).
    pub fn unsubscribe(&self, queue: &Queue, id: ConsumerId) {
        let mut entered = queue.enter();
        entered.unsubscribe(id);
        fronts::admit(queue, &mut entered);
        entered.dispatch(self.clock().now());
    }

    /// To be called when a consumer has left and its deliveries are settled: deletes an auto-delete queue that has no more
    /// consumers.
    pub async fn consumer_left(&self, queue: &Queue) {
        let is_last = |state: &engine::QueueCore| {
            let is_served = queue.shards.is_none() || state.is_leading();
            state.depth().consumers == 0 && is_served
        };
        if queue.auto_delete && queue.look(is_last) {
            self.delete_unused_queue(queue).await;
        }
    }

    /// Tells a queue that the output of a consumer has room again.
    pub fn drained(&self, queue: &Queue, id: ConsumerId) {
        queue.enter().drained(id, self.clock().now());
    }

    /// Tells a queue that the channel of a consumer has room for it again, after the channel's prefetch limit held it back.
    pub fn unblocked(&self, queue: &Queue, id: ConsumerId) {
        queue.enter().unblocked(id, self.clock().now());
    }

    /// Delivers ready messages, after something outside the queue has made room for them.
    pub fn dispatch(&self, queue: &Queue) {
        queue.enter().dispatch(self.clock().now());
    }

    /// Delivers the first ready message to `sink`. Returns false if there is none, or if the node stops. Waits for a
    /// message that is only on the disk for ten seconds at most, and for one second if reads fail.
    ///
    /// # Errors
    /// The queue was deleted meanwhile, its next message cannot be read, or its leader cannot be reached.
    pub async fn get(&self, _caller: &Caller, queue: &Queue, sink: &dyn Sink, no_ack: bool) -> Result<bool, Refusal> {
        queue.check_here()?;
        queue.caught_up().await;
        self.check_majority(queue)?;
        let began = Instant::now();
        loop {
            let got = match self.is_served_here(queue) {
                true => self.get_here(queue, sink, no_ack).await?,
                false => self.get_from_leader(queue, sink, no_ack).await?,
            };
            match got {
                Some(found) => return Ok(found),
                None if began.elapsed() > READ_MAX => return Err(self.unanswered(queue, None)),
                None => tokio::time::sleep(LOOK_AGAIN).await,
            }
        }
    }

    /// Does what [`get`](Self::get) does, if this node leads the queue; returns `None` if it does not lead it any more.
    pub(crate) async fn get_here(&self, queue: &Queue, sink: &dyn Sink, no_ack: bool) -> Result<Option<bool>, Refusal> {
        let began = Instant::now();
        loop {
            let fetched = queue.reads.finished.notified();
            let (got, standstill) = {
                let mut entered = queue.enter();
                // What another leader has granted to this node is for its consumers.
                let got = entered.is_leading().then(|| entered.get(sink, no_ack, self.clock().now()));
                (got, entered.standstill().map(str::to_owned))
            };
            match got {
                Some(Got::Message) => return Ok(Some(true)),
                _ if queue.is_deleted() => return Err(queue.not_found()),
                Some(Got::Empty) => return Ok(Some(false)),
                Some(Got::Cold) => {}
                None => return Ok(None),
            }
            let waited = began.elapsed();
            if let Some(reason) = standstill.or_else(|| queue.reason_to_give_up(waited)) {
                return Err(queue.not_readable(&reason));
            }
            let until = began + if waited < READ_TROUBLE_MAX { READ_TROUBLE_MAX } else { READ_MAX };
            tokio::select! {
                biased;
                _ = tokio::time::timeout_at(until, fetched) => {}
                () = self.node().stopping.cancelled() => return Ok(Some(false)),
            }
        }
    }
}

impl Queue {
    /// Waits until all messages published to the queue so far are in it, so that a client that asks next finds its own
    /// messages. Does not wait for publishes that wait for room in the log, nor while most nodes of the cluster cannot be
    /// reached: a leader that is cut off does not know that it leads no more.
    pub async fn caught_up(&self) {
        let Some(shards) = &self.shards else { return };
        tokio::select! {
            biased;
            () = shards.shard(self.id).outbox.until_visible() => {}
            () = shards.memory.until_cluster_alarmed() => {}
        }
    }

    /// Waits until all messages acknowledged so far are gone from the queue.
    pub(crate) async fn settled(&self) {
        if let Some(shards) = &self.shards {
            shards.shard(self.id).outbox.until_settled().await;
        }
    }

    /// Returns the reason why a client that has waited `waited` for contents should not wait any longer; `None` if it
    /// should.
    fn reason_to_give_up(&self, waited: Duration) -> Option<String> {
        let trouble = if waited >= READ_TROUBLE_MAX { self.reads.trouble.lock().clone() } else { None };
        trouble.or_else(|| (waited >= READ_MAX).then(|| format!("the disk took more than {READ_MAX:?}")))
    }

    fn not_readable(&self, reason: &str) -> Refusal {
        let text =
            format!("the next message of queue '{}' in vhost '{}' cannot be read: {reason}", self.name, self.vhost);
        Refusal::precondition(text)
    }

    /// Checks that this node can hand out messages of the queue.
    ///
    /// # Errors
    /// The queue is transient and lives on another node.
    pub(crate) fn check_here(&self) -> Result<(), Refusal> {
        let Some(node) = self.away else { return Ok(()) };
        Err(Refusal::precondition(format!(
            "queue '{}' in vhost '{}' is transient and lives on node {node:016x}: consume from it there, or declare it durable",
            self.name, self.vhost
        )))
    }

    pub(crate) fn in_exclusive_use(&self) -> Refusal {
        let text = format!("queue '{}' in vhost '{}' in exclusive use", self.name, self.vhost);
        Refusal::new(RefusalKind::AccessRefused, text)
    }

    pub(crate) fn not_found(&self) -> Refusal {
        Refusal::no_queue(&self.vhost, &self.name)
    }
}

/// The longest time that a client that asks for a message waits for the disk.
const READ_MAX: Duration = Duration::from_secs(10);
/// The longest time that it waits if reads fail.
const READ_TROUBLE_MAX: Duration = Duration::from_secs(1);

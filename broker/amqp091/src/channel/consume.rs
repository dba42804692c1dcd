//! `basic.consume`, `cancel`, `get`, `qos`.
use super::Consumer;
use super::deliver::{ConsumerSink, GetSink};
use crate::codec::encode;
use crate::codec::method::BasicConsume;
use crate::connection::failure::Failure;
use crate::connection::session::Session;
use leveret_node::{Outcome, Subscription};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, OnceLock};

impl Session {
    pub(crate) fn consume(&mut self, number: u16, consume: &BasicConsume<'_>) -> Result<(), Failure> {
        if let Some((name, _)) = consume.arguments.0.iter().find(|(name, _)| name.starts_with("x-") && name != IDLE) {
            let text = format!("invalid arg '{name}' for basic.consume: not supported");
            return Err(Failure::new(406, text));
        }
        if self.consumers() >= CONSUMERS_MAX {
            let text = format!("reached maximum ({CONSUMERS_MAX}) of consumers per connection");
            return Err(Failure::new(530, text));
        }
        let name = self.queue_name(number, consume.queue)?;
        let queue = self.broker.find_queue(&self.connection.caller, &self.vhost, &name)?;
        let tag: Box<str> = match consume.consumer_tag {
            "" => format!("amq.ctag-{}", self.broker.random_name()).into(),
            tag => tag.into(),
        };
        let (output, connection) = (self.output.clone(), self.connection.id);
        let notify_cancel = self.client.consumer_cancel_notify;
        let opened = self.broker.count_opened(CONSUMER_BYTES)?;
        let channel = self.channel(number)?;
        if channel.consumers.contains_key(&tag) {
            return Err(Failure::new(530, format!("attempt to reuse consumer tag '{tag}'")));
        }
        let Some(subscriber) = output.lock().ledger(number).map(|ledger| ledger.open(queue.clone())) else {
            return Ok(());
        };
        let sink = Arc::new(ConsumerSink {
            output: output.clone(),
            queue: queue.clone(),
            connection,
            channel: number,
            subscriber,
            tag: tag.clone(),
            no_ack: consume.no_ack,
            no_wait: consume.no_wait,
            notify_cancel,
            id: OnceLock::new(),
            cancelled: channel.cancelled.clone(),
        });
        let (exclusive, no_ack, prefetch) = (consume.exclusive, consume.no_ack, channel.prefetch);
        let subscription = Subscription { sink, exclusive, no_ack, prefetch };
        match self.broker.subscribe(&self.connection.caller, &queue, subscription) {
            Ok(id) => {
                let channel = self.channel(number)?;
                channel.consumers.insert(tag, Consumer { queue, id, subscriber, _opened: opened });
                channel.view.consumers.store(channel.consumers.len() as u32, Relaxed);
                Ok(())
            }
            Err(refusal) => {
                if let Some(ledger) = output.lock().ledger(number) {
                    ledger.end(subscriber);
                }
                Err(refusal.into())
            }
        }
    }

    /// Ends a consumer. What it was delivered stays to be settled.
    pub(crate) async fn cancel(&mut self, number: u16, tag: &str, no_wait: bool) -> Result<(), Failure> {
        let channel = self.channel(number)?;
        let consumer = channel.consumers.remove(tag);
        channel.view.consumers.store(channel.consumers.len() as u32, Relaxed);
        if let Some(consumer) = &consumer {
            self.broker.unsubscribe(&consumer.queue, consumer.id);
            if let Some(ledger) = self.output.lock().ledger(number) {
                ledger.end(consumer.subscriber);
            }
        }
        if !no_wait {
            self.output.write(|state| encode::basic_cancel_ok(&mut state.buffer, number, tag));
        }
        if let Some(consumer) = consumer {
            self.broker.consumer_left(&consumer.queue).await;
        }
        Ok(())
    }

    pub(crate) async fn get(&mut self, number: u16, queue: &str, no_ack: bool) -> Result<(), Failure> {
        let name = self.queue_name(number, queue)?;
        let queue = self.broker.find_queue(&self.connection.caller, &self.vhost, &name)?;
        let Some(subscriber) = self.output.lock().ledger(number).map(|ledger| ledger.open_for_gets(queue.clone()))
        else {
            return Ok(());
        };
        let sink = GetSink { output: &self.output, channel: number, subscriber, no_ack };
        let got = self.broker.get(&self.connection.caller, &queue, &sink, no_ack).await;
        self.output.write(|state| {
            if let Some(ledger) = state.ledger(number) {
                ledger.end(subscriber);
            }
            if matches!(got, Ok(false)) {
                encode::basic_get_empty(&mut state.buffer, number);
            }
        });
        got?;
        Ok(())
    }

    /// `basic.qos`: for consumers to come or, `global`, for all of the channel together.
    pub(crate) fn qos(&mut self, number: u16, (size, count): (u32, u16), global: bool) -> Result<(), Failure> {
        if size != 0 {
            return Err(Failure::new(540, format!("prefetch_size!=0 ({size})")));
        }
        let output = self.output.clone();
        let channel = self.channel(number)?;
        if global {
            channel.view.global_prefetch.store(u32::from(count), Relaxed);
        } else {
            channel.prefetch = u32::from(count);
            channel.view.prefetch.store(u32::from(count), Relaxed);
        }
        output.write(|state| {
            if let Some(ledger) = state.ledger(number).filter(|_| global) {
                ledger.set_limit(u32::from(count));
            }
            encode::bare(&mut state.buffer, number, (60, 11));
        });
        self.give_turns(number);
        Ok(())
    }

    /// `basic.recover` with requeue: all that is not settled on this channel is ready again.
    pub(crate) async fn recover(&mut self, number: u16, requeue: bool, answer: bool) -> Result<(), Failure> {
        if !requeue {
            return Err(Failure::new(540, "requeue=false"));
        }
        if answer {
            self.output.write(|state| encode::bare(&mut state.buffer, number, (60, 111)));
        }
        self.settle(number, 0, true, Outcome::Returned).await
    }
}

/// Taken and without effect, as in RabbitMQ 4.
const IDLE: &str = "x-cancel-on-ha-failover";
/// Memory of a consumer in bytes, about.
const CONSUMER_BYTES: u64 = 1 << 10;
/// Consumers of one connection.
const CONSUMERS_MAX: usize = 16_384;

//! The end of a life: the node settles down, all queues are drained, or every message is delivered and compared.
use crate::life::{End, Life, held};
use crate::names::{DELETED, SLOTS, is_durable};
use crate::scenario::{Fault, Weather};
use crate::weather;
use leveret_node::{Outcome, Settlement};
use std::time::Duration;
use tokio::time::sleep;

impl Life<'_> {
    /// Ends a life after its last step. Unless the fault ends it in the middle, the node has to settle down and to be
    /// consistent first.
    pub(crate) async fn finish(&mut self, fault: Fault) -> End {
        if matches!(fault, Fault::Kill | Fault::PowerLoss) {
            return End::Cut;
        }
        weather::clear(&self.world.disk);
        self.settle_down().await;
        if self.has(Weather::FullVolume) && self.world.random.once_in(2) {
            self.world.disk.leave_free(0); // so the next start finds a full volume
        }
        match fault {
            Fault::Stop | Fault::BitFlip | Fault::Rot => {}
            // All earlier messages are marked as durable already; only the stop will mark those that are published now.
            Fault::RotInTail => self.publish_and_wait().await,
            _ => return End::Cut,
        }
        self.broker.close_storage().await;
        self.world.before = Some(self.held());
        End::Stopped
    }

    /// Waits until all requests are answered, all publishes are confirmed and no queue stands still. Then clients, catalog
    /// and queues have to agree.
    async fn settle_down(&mut self) {
        let answered = self.until(|life| {
            while life.requests.try_join_next().is_some() {}
            life.requests.is_empty()
        });
        if !answered.await {
            self.broken("a request was not answered within the time limit".to_owned());
        }
        if !self.until(|life| life.clients.with(|state| state.checker.all_confirmed())).await {
            self.broken("publishes were not confirmed within the time limit".to_owned());
        }
        // A queue without consumers may stand still as well, which only a new consumer reveals.
        for at in 0..SLOTS {
            self.subscribe_to(at, 0, (false, 1));
        }
        self.until(|life| life.standing_still().is_none()).await;
        if let Some(text) = self.standing_still() {
            self.broken(text);
        }
        sleep(QUIET).await; // until the log is marked as durable, and cancelled requests have ended
        self.all_readable();
        self.agree();
        self.check_brief();
        for at in (0..SLOTS).filter(|at| !is_durable(*at)) {
            self.consume_all(&[at]).await;
        }
        self.clients.with(|state| state.checker.drained_transient());
    }

    async fn publish_and_wait(&mut self) {
        self.publish().await;
        let mut confirmed = self.until(|life| life.clients.with(|state| state.checker.all_confirmed())).await;
        if !confirmed && self.has_no_space() {
            self.trace("the volume has room again".to_owned());
            weather::clear(&self.world.disk);
            confirmed = self.until(|life| life.clients.with(|state| state.checker.all_confirmed())).await;
        }
        if !confirmed {
            self.broken("a publish was not confirmed within the time limit".to_owned());
        }
    }

    /// Returns whether the volume is full and publishers are told to wait. A publish that is sent nevertheless may wait for
    /// room then, as the rest of the log is reserved for operations that free space.
    fn has_no_space(&self) -> bool {
        self.broker.memory().is_alarmed() && self.world.free() < SEGMENT_BYTES
    }

    /// Consumes all messages. Then deletes the queues that may be deleted, declares them again, and uses them.
    pub(crate) async fn drain(&mut self) -> End {
        let all: Vec<usize> = (0..SLOTS).collect();
        self.consume_all(&all).await;
        self.clients.with(|state| state.checker.drained());
        self.agree();
        for at in DELETED {
            self.delete_queue(at).await;
            self.declare_queue(at).await;
        }
        for _ in 0..4 {
            self.publish_and_wait().await;
        }
        self.consume_all(&all).await;
        self.clients.with(|state| state.checker.drained());
        self.agree();
        End::Drained
    }

    /// Consumes and acknowledges all messages of these queues.
    async fn consume_all(&mut self, of: &[usize]) {
        of.iter().for_each(|&at| self.subscribe_to(at, 0, (false, 0)));
        let ids: Vec<_> = self.clients.with(|state| of.iter().filter_map(|&at| state.checker.names[at].id).collect());
        let empty = self.until(|life| {
            life.acknowledge_all();
            life.drained();
            life.queues().iter().filter(|queue| ids.contains(&queue.id)).all(|queue| held(queue).1 == 0)
        });
        if !empty.await {
            let left: Vec<_> = self.queues().iter().map(|queue| (queue.name.to_string(), held(queue).1)).collect();
            let why = self.standing_still();
            self.broken(format!("queues stand still with {left:?} messages: {why:?}, {:?}", self.broker.unreadable()));
        }
    }

    fn acknowledge_all(&self) {
        for channel in 0..crate::clients::CHANNELS {
            let mut settlement = Settlement::default();
            self.clients.with(|state| state.settle(channel, (0, true), Outcome::Acknowledged, &mut settlement));
            if !settlement.is_empty() {
                self.settled(channel, &mut settlement, Outcome::Acknowledged);
            }
        }
    }

    /// Consumes without acknowledging until every message that is owed has been delivered. If a file is rotten, a queue may
    /// report instead that its contents cannot be read; the report has to name that file.
    pub(crate) async fn look(&mut self, rotten: Option<&str>) -> End {
        for at in (0..SLOTS).filter(|at| is_durable(*at)) {
            self.subscribe_to(at, 0, (false, 0));
        }
        let lacking = |life: &Self| life.clients.with(|state| state.checker.lacking());
        let done = self.until(|life| {
            life.drained();
            lacking(life).len() <= life.broker.unreadable().len()
        });
        let done = done.await;
        let (lacking, unreadable) = (lacking(self), self.broker.unreadable());
        if !done || (rotten.is_none() && !lacking.is_empty()) {
            self.broken(format!(
                "queues {lacking:?} lack messages; rotten file: {rotten:?}, unreadable: {unreadable:?}"
            ));
        }
        // Once the file of a segment is no longer recognised as one, a report has only the number of the segment.
        let told = |reason: &str, rotten: &str| {
            let of_log = ["not in the log any more", "of the log is missing"].iter().any(|text| reason.contains(text));
            reason.contains(rotten) || rotten.starts_with("wal/") && of_log
        };
        if let Some(reason) = unreadable.iter().find(|reason| !rotten.is_some_and(|rotten| told(reason, rotten))) {
            self.broken(format!("file {rotten:?} is rotten, but a queue reports: {reason}"));
        }
        End::Stopped
    }

    /// Waits until `done` returns true, for about a minute of simulated time at most. Returns false if it never did.
    pub(crate) async fn until(&mut self, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        for waits in 0..4_000 {
            if done(self) {
                return true;
            }
            sleep(Duration::from_millis(if waits < 1_000 { 1 } else { 20 })).await;
        }
        false
    }
}

/// A time after which an idle node has marked its log as durable and no request is under way.
const QUIET: Duration = Duration::from_secs(1);
/// The size of a log segment in bytes: the smallest one possible for messages of this size.
const SEGMENT_BYTES: u64 = 2 << 20;

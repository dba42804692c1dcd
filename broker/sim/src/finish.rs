//! How a life comes to its end: everything settles down, is drained, or is looked at.
use crate::life::{End, Life, held};
use crate::names::{DELETED, SLOTS, is_durable};
use crate::scenario::{Fault, Weather};
use crate::weather;
use leveret_node::{Outcome, Settlement};
use std::time::Duration;
use tokio::time::sleep;

impl Life<'_> {
    /// The last step is done. What the fault does not cut off has to settle down, and to be in order then.
    pub(crate) async fn finish(&mut self, fault: Fault) -> End {
        if matches!(fault, Fault::Kill | Fault::PowerLoss) {
            return End::Cut;
        }
        weather::clear(&self.world.disk);
        self.settle_down().await;
        if self.has(Weather::FullVolume) && self.world.random.once_in(2) {
            self.world.disk.leave_free(0); // the next start finds it like that
        }
        match fault {
            Fault::Stop | Fault::BitFlip | Fault::Rot => {}
            // What was durable before is marked as such; what comes now is not, but by the stop.
            Fault::RotInTail => self.publish_and_wait().await,
            _ => return End::Cut,
        }
        self.broker.close_storage().await;
        self.world.before = Some(self.held());
        End::Stopped
    }

    /// All requests are answered, all publishes confirmed, and no queue stands still; then clients, catalog and queues agree.
    async fn settle_down(&mut self) {
        let answered = self.until(|life| {
            while life.requests.try_join_next().is_some() {}
            life.requests.is_empty()
        });
        if !answered.await {
            self.broken("a request is not answered".to_owned());
        }
        if !self.until(|life| life.clients.with(|state| state.checker.all_confirmed())).await {
            self.broken("publishes are not confirmed".to_owned());
        }
        // Also where nobody consumes: a queue that stands still shows itself to a consumer that comes.
        for at in 0..SLOTS {
            self.subscribe_to(at, 0, (false, 1));
        }
        self.until(|life| life.standing_still().is_none()).await;
        if let Some(text) = self.standing_still() {
            self.broken(text);
        }
        sleep(QUIET).await; // what is durable is marked as such, and what was cancelled has come to its end
        self.all_readable();
        self.agree();
        self.agree_on_brief();
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
            self.broken("a publish is not confirmed".to_owned());
        }
    }

    /// The volume was filled by others, and publishers are told to wait: what one sends nevertheless may wait for room, as what
    /// the log has left is for what frees space.
    fn has_no_space(&self) -> bool {
        self.broker.memory().is_alarmed() && self.world.free() < SEGMENT_BYTES
    }

    /// Everything is consumed; then what can be deleted is deleted, and declared and used again.
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

    /// Consumes all that is in these queues.
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

    /// All that is owed is delivered; where a file is rotten, some queue may say instead that it cannot be read, and names it.
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
            self.broken(format!("queues {lacking:?} lack messages; rotten is {rotten:?}, unreadable {unreadable:?}"));
        }
        // Of a segment whose file is not one any more there is only its number to tell.
        let told = |reason: &str, rotten: &str| {
            let of_log = ["not in the log any more", "of the log is missing"].iter().any(|text| reason.contains(text));
            reason.contains(rotten) || rotten.starts_with("wal/") && of_log
        };
        if let Some(reason) = unreadable.iter().find(|reason| !rotten.is_some_and(|rotten| told(reason, rotten))) {
            self.broken(format!("rotten is {rotten:?}, and a queue says: {reason}"));
        }
        End::Stopped
    }

    /// Waits until `done`, at most a minute of the simulation's time.
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

/// After this time without work the log is marked, and no request is under way any more.
const QUIET: Duration = Duration::from_secs(1);
/// Of a segment of the log: the smallest there is for messages of this size.
const SEGMENT_BYTES: u64 = 2 << 20;

//! One life of the node: opened, compared with what was there before, and played with until something ends it.
use crate::checker::Checker;
use crate::clients::{Clients, Consumer};
use crate::scenario::Fault;
use crate::world::World;
use crate::writer::Writer;
use leveret_model::exchange::ExchangeType;
use leveret_model::table::{FieldTable, FieldValue};
use leveret_node::catalog::{Destination, ExchangeDeclare, QueueDeclare};
use leveret_node::{Broker, Options, Outcome, Queue, Settlement, StorageOptions};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::sleep;

/// What a life is for, and what ends it.
pub(crate) struct Plan {
    pub(crate) fault: Fault,
    pub(crate) purpose: Purpose,
}

pub(crate) enum Purpose {
    /// Clients come and go.
    Play { steps: u64, consume: bool },
    /// Everything is consumed.
    Drain,
    /// Everything is delivered, nothing settled.
    Look { flipped: String },
}

/// How a life ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// In order.
    Stopped,
    /// All queues are empty.
    Drained,
    /// In the middle.
    Cut,
    /// The node did not start.
    Refused(String),
    /// The node ended itself.
    Failed(String),
}

#[derive(Default)]
struct Failure {
    reason: Mutex<Option<String>>,
    notify: Notify,
}

pub(crate) struct Life<'w> {
    pub(crate) world: &'w mut World,
    pub(crate) clients: Arc<Clients>,
    pub(crate) broker: Broker,
    failure: Arc<Failure>,
    pub(crate) queues: Vec<Arc<Queue>>,
    pub(crate) consumers: Vec<(Arc<Queue>, Arc<Consumer>)>,
}

/// Queues 0 to 3 are classic, 4 is a quorum queue; 3 is deleted now and then; `fan` leads to 0, 1 and 4.
pub(crate) const QUEUES: usize = 5;
pub(crate) const FAN: [usize; 3] = [0, 1, 4];
pub(crate) const DELETED: usize = 3;
const QUORUM: usize = 4;
const DELIVERY_LIMIT: u32 = 3;

pub(crate) fn delivery_limits() -> [Option<u32>; QUEUES] {
    std::array::from_fn(|at| (at == QUORUM).then_some(DELIVERY_LIMIT))
}

impl<'w> Life<'w> {
    pub(crate) fn begin(world: &'w mut World) -> Self {
        let mut checker = world.checker.take().unwrap_or_else(|| Checker::new(&delivery_limits()));
        checker.begin_life();
        world.declared.resize(QUEUES + FAN.len() + 1, false);
        let options = Options { memory_max: u64::MAX / 2, message_bytes_max: 64 << 10, ..Options::default() };
        Self {
            world,
            clients: Clients::new(checker),
            broker: Broker::start(options),
            failure: Arc::default(),
            queues: Vec::new(),
            consumers: Vec::new(),
        }
    }

    pub(crate) async fn live(mut self, plan: Plan) -> Result<End, String> {
        let failure = self.failure.clone();
        let failed = async move {
            loop {
                let notified = failure.notify.notified();
                if let Some(reason) = failure.reason.lock().clone() {
                    return End::Failed(reason);
                }
                notified.await;
            }
        };
        let end = tokio::select! {
            biased;
            end = failed => end,
            end = self.play(&plan) => end,
        };
        let (checker, trace) = self.clients.with(|state| {
            let checker = std::mem::replace(&mut state.checker, Checker::new(&[]));
            (checker, std::mem::take(&mut state.trace))
        });
        self.world.report.trace.extend(trace);
        let verdict = checker.verdict();
        self.world.checker = Some(checker);
        verdict.map(|()| end)
    }

    async fn play(&mut self, plan: &Plan) -> End {
        if let Err(reason) = self.open().await {
            return End::Refused(reason);
        }
        let before = self.world.before.take();
        if let Err(broken) = self.compare(before) {
            self.broken(broken);
            return End::Cut;
        }
        if let Purpose::Look { flipped } = &plan.purpose {
            return self.look(flipped).await;
        }
        if let Err(refused) = self.declare().await {
            self.broken(refused);
            return End::Cut;
        }
        match plan.purpose {
            Purpose::Play { steps, consume } => {
                for step in 0..steps {
                    if plan.fault == Fault::DiskFull && step % 40 == 20 {
                        let full = self.world.random.once_in(2);
                        self.world.disk.set_full(full);
                    }
                    self.step(consume).await;
                }
                self.finish(plan.fault).await
            }
            _ => self.drain().await,
        }
    }

    async fn open(&mut self) -> Result<(), String> {
        let failure = self.failure.clone();
        let options = StorageOptions {
            disk: Arc::new(self.world.disk.clone()),
            log_bytes_max: 0,
            segment_bytes: 0,
            incarnation: self.world.random.next(),
            on_failure: Arc::new(move |reason| {
                failure.reason.lock().get_or_insert(reason);
                failure.notify.notify_waiters();
            }),
            driver: Some(Arc::new(Writer::new(self.world.random.next()))),
        };
        self.broker.open_storage(options).await.map_err(|error| error.to_string())
    }

    /// What is there after the start is what was there before.
    fn compare(&self, before: Option<Vec<(u64, u64)>>) -> Result<(), String> {
        let mut found = Vec::new();
        for at in 0..QUEUES {
            let queue = self.broker.find_queue("/", &name(at), None).ok();
            if queue.is_none() && self.world.declared[at] {
                return Err(format!("queue {at} is gone"));
            }
            let (digest, messages) = queue.as_deref().map_or((0, 0), held);
            let owed = self.clients.with(|state| state.checker.owed(at));
            if messages < owed {
                return Err(format!("queue {at} has {messages} messages, {owed} confirmed ones have to be there"));
            }
            self.trace(format!("queue {at} has {messages}, digest {digest:016x}"));
            found.push((digest, messages));
        }
        match before {
            Some(before) if before != found => Err(format!("{found:?} is there, {before:?} was before the stop")),
            _ => Ok(()),
        }
    }

    async fn declare(&mut self) -> Result<(), String> {
        self.queues.clear();
        for at in 0..QUEUES {
            let queue = self.declare_queue(at).await?;
            self.queues.push(queue);
        }
        let declare = ExchangeDeclare {
            kind: ExchangeType::Fanout,
            durable: true,
            auto_delete: false,
            internal: false,
            arguments: FieldTable::default(),
        };
        let created = self.broker.declare_exchange("/", "fan", declare).await.map_err(|refusal| refusal.text)?;
        self.declared(QUEUES, "exchange 'fan'", created)?;
        for (index, at) in FAN.into_iter().enumerate() {
            let (destination, arguments) = (Destination::Queue(name(at).as_str().into()), FieldTable::default());
            let bound = self.broker.bind("/", "fan", destination, (b"", &arguments), None).await;
            let created = bound.map_err(|refusal| refusal.text)?;
            self.declared(QUEUES + 1 + index, "a binding", created)?;
        }
        Ok(())
    }

    pub(crate) async fn declare_queue(&mut self, at: usize) -> Result<Arc<Queue>, String> {
        let quorum =
            [("x-queue-type", FieldValue::from("quorum")), ("x-delivery-limit", FieldValue::UInt32(DELIVERY_LIMIT))];
        let arguments: FieldTable = if at == QUORUM { quorum.into_iter().collect() } else { FieldTable::default() };
        let declare = QueueDeclare {
            durable: true,
            exclusive: None,
            auto_delete: false,
            arguments,
            server_named: false,
            connection: None,
        };
        let declared = self.broker.declare_queue("/", &name(at), declare).await;
        let (created, queue) = declared.map_err(|refusal| refusal.text)?;
        self.declared(at, &format!("queue {at}"), created)?;
        Ok(queue)
    }

    fn declared(&mut self, at: usize, what: &str, created: bool) -> Result<(), String> {
        if created && self.world.declared[at] {
            return Err(format!("{what} was declared and is gone"));
        }
        self.world.declared[at] = true;
        Ok(())
    }

    async fn finish(&mut self, fault: Fault) -> End {
        match fault {
            Fault::Kill | Fault::PowerLoss => return End::Cut,
            Fault::DiskFull => self.world.disk.set_full(false),
            _ => {}
        }
        if !self.until(|life| life.clients.with(|state| state.checker.all_confirmed())).await {
            self.broken("publishes are not confirmed".to_owned());
        }
        sleep(Duration::from_millis(300)).await; // what is durable is marked as such
        if !matches!(fault, Fault::Stop | Fault::BitFlip) {
            return End::Cut;
        }
        self.broker.close_storage().await;
        let held = (0..QUEUES).map(|at| held(&self.queues[at])).collect();
        self.world.before = Some(held);
        End::Stopped
    }

    async fn drain(&mut self) -> End {
        (0..QUEUES).for_each(|at| self.subscribe_to(at, 0));
        let empty = self.until(|life| {
            life.acknowledge_all();
            life.queues.iter().all(|queue| held(queue).1 == 0)
        });
        if !empty.await {
            let left: Vec<u64> = self.queues.iter().map(|queue| held(queue).1).collect();
            self.broken(format!("queues stand still with {left:?} messages: {:?}", self.broker.unreadable()));
        }
        self.clients.with(|state| state.checker.drained());
        End::Drained
    }

    fn acknowledge_all(&self) {
        let mut settlement = Settlement::default();
        self.clients.with(|state| {
            for (tag, queue, number) in std::mem::take(&mut state.out) {
                let _ = state.ledger.take(tag, false, |from, id| settlement.add(from, id, Outcome::Acknowledged));
                state.checker.settled(queue, number, false);
            }
        });
        self.broker.settle(&mut settlement, Outcome::Acknowledged);
        self.drained();
    }

    /// All that is owed is delivered, or reading it failed and says that it was in the file `flipped`.
    async fn look(&mut self, flipped: &str) -> End {
        for at in 0..QUEUES {
            let Ok(queue) = self.broker.find_queue("/", &name(at), None) else { return End::Stopped };
            self.queues.push(queue);
            self.subscribe_to(at, 0);
        }
        let done = self.until(|life| {
            life.drained();
            !life.broker.unreadable().is_empty() || life.clients.with(|state| state.checker.has_seen_all())
        });
        if !done.await {
            self.broken("with a bit flipped messages are missing, and nothing says why".to_owned());
        }
        for reason in self.broker.unreadable() {
            if !reason.contains(flipped) {
                self.broken(format!("a bit was flipped in {flipped}, and a queue says: {reason}"));
            }
        }
        End::Stopped
    }

    /// Waits until `done`, at most a minute of the simulation's time.
    async fn until(&mut self, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        for _ in 0..60_000 {
            if done(self) {
                return true;
            }
            sleep(Duration::from_millis(1)).await;
        }
        false
    }

    pub(crate) fn broken(&self, text: String) {
        self.clients.with(|state| state.checker.broken(text));
    }

    pub(crate) fn trace(&self, line: String) {
        self.clients.with(|state| state.trace.push(line));
    }
}

pub(crate) fn name(at: usize) -> String {
    format!("q{at}")
}

/// Digest and messages of a queue.
fn held(queue: &Queue) -> (u64, u64) {
    queue.look(|queue| (queue.digest(), queue.depth().ready + queue.depth().unacked))
}

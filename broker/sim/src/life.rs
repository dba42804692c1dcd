//! One life of the node: it is opened, compared with the state before, and played with until something ends it.
use crate::clients::{Clients, Consumer};
use crate::names::{BOUND_AT_TIMES, FAN, SLOTS, is_durable, name};
use crate::scenario::{Fault, Weather};
use crate::weather::Forecast;
use crate::world::World;
use crate::writer::Writer;
use leveret_model::exchange::ExchangeType;
use leveret_model::table::FieldTable;
use leveret_node::catalog::{BindingDeclare, Destination, ExchangeDeclare};
use leveret_node::{Broker, Caller, Options, Queue, StorageOptions};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// The plan of a life: its fault, its weather and its purpose.
pub(crate) struct Plan {
    pub(crate) fault: Fault,
    pub(crate) weather: Vec<Weather>,
    pub(crate) purpose: Purpose,
}

/// The purpose of a life, which decides what clients do.
pub(crate) enum Purpose {
    /// Clients publish, and if `consume` is set they also consume and send requests, in that many steps.
    Play { steps: u64, consume: bool },
    /// Clients consume and acknowledge all messages.
    Drain,
    /// All messages are delivered to clients, which settle none. The file `rotten` is damaged.
    Look { rotten: Option<String> },
}

/// The way in which a life ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The node was stopped in order.
    Stopped,
    /// All queues are empty.
    Drained,
    /// The node ended in the middle of its work.
    Cut,
    /// The life did not end by itself: a client waited in vain.
    Stalled,
    /// The node refused to start, for this reason.
    Refused(String),
    /// The node ended itself, for this reason.
    Failed(String),
}

/// The reason for which the node wants to end its process.
#[derive(Default)]
struct Failure {
    reason: Mutex<Option<String>>,
    notify: Notify,
}

/// A life that is being played.
pub(crate) struct Life<'w> {
    pub(crate) world: &'w mut World,
    pub(crate) clients: Arc<Clients>,
    pub(crate) broker: Broker,
    failure: Arc<Failure>,
    pub(crate) consumers: Vec<Arc<Consumer>>,
    /// The requests under way.
    pub(crate) requests: JoinSet<()>,
    pub(crate) weather: Vec<Weather>,
    pub(crate) forecast: Forecast,
}

impl<'w> Life<'w> {
    /// Creates the node and its clients; storage is not opened yet.
    pub(crate) fn begin(world: &'w mut World) -> Self {
        let mut checker = std::mem::take(&mut world.checker);
        checker.begin_life();
        let options = Options { memory_max: u64::MAX / 2, message_bytes_max: 64 << 10, ..Options::default() };
        Self {
            world,
            clients: Clients::new(checker),
            broker: Broker::start(options),
            failure: Arc::default(),
            consumers: Vec::new(),
            requests: JoinSet::new(),
            weather: Vec::new(),
            forecast: Forecast::default(),
        }
    }

    /// Plays the life.
    ///
    /// # Errors
    /// The first broken promise.
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
            () = tokio::time::sleep(LIFE_MAX) => End::Stalled,
        };
        if end == End::Stalled {
            self.broken(format!("a client waits for ever in a life with {:?}", plan.weather));
        }
        let (checker, trace, cancelled) = self
            .clients
            .with(|state| (std::mem::take(&mut state.checker), std::mem::take(&mut state.trace), state.cancelled));
        self.world.report.trace.extend(trace);
        self.world.report.cancelled += cancelled;
        self.all_leave();
        let verdict = checker.verdict();
        self.world.checker = checker;
        verdict.map(|()| end)
    }

    async fn play(&mut self, plan: &Plan) -> End {
        self.weather.clone_from(&plan.weather);
        let steps = if let Purpose::Play { steps, .. } = plan.purpose { steps } else { 1 };
        self.forecast = Forecast::new(&mut self.world.random, &self.weather, steps);
        self.weather_at(None).await;
        if let Err(reason) = self.open().await {
            return End::Refused(reason);
        }
        self.world.opened = true;
        let before = self.world.before.take();
        if let Err(broken) = self.is_as_before(before) {
            self.broken(broken);
            return End::Cut;
        }
        if let Purpose::Look { rotten } = &plan.purpose {
            return self.look(rotten.as_deref()).await;
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
                    self.weather_at(Some(step)).await;
                    self.step(consume).await;
                }
                self.finish(plan.fault).await
            }
            _ => self.drain().await,
        }
    }

    /// Applies the disturbances that come before that step; `None` is before the start of the node.
    async fn weather_at(&mut self, step: Option<u64>) {
        let Self { world, clients, forecast, .. } = self;
        forecast.strike(step, &world.disk, |line| clients.trace(line)).await;
    }

    async fn open(&mut self) -> Result<(), String> {
        let failure = self.failure.clone();
        let slow = self.weather.contains(&Weather::SlowDisk);
        let options = StorageOptions {
            disk: Arc::new(self.world.disk.clone()),
            log_bytes_max: 0,
            segment_bytes: 0,
            incarnation: self.world.random.next(),
            on_failure: Arc::new(move |reason| {
                failure.reason.lock().get_or_insert(reason);
                failure.notify.notify_waiters();
            }),
            driver: Some(Arc::new(Writer::new(self.world.random.next(), slow))),
            peers: None,
        };
        self.broker.open_storage(options).await.map_err(|error| error.to_string())
    }

    async fn declare(&self) -> Result<(), String> {
        for at in 0..SLOTS {
            self.declare_queue(at).await;
        }
        let declare = ExchangeDeclare {
            kind: ExchangeType::Fanout,
            durable: true,
            auto_delete: false,
            internal: false,
            arguments: FieldTable::default(),
        };
        let created = self
            .broker
            .declare_exchange(&Caller::system(), "/", "fan", declare)
            .await
            .map_err(|refusal| refusal.text)?;
        self.declared("exchange 'fan'", created)?;
        for (at, what) in FAN.into_iter().zip(["the first binding", "the second binding", "the third binding"]) {
            let (destination, arguments) = (Destination::Queue(name(at)), FieldTable::default());
            let bound = self
                .broker
                .bind(&Caller::system(), "/", BindingDeclare::new("fan", &destination, b"", &arguments))
                .await;
            let created = bound.map_err(|refusal| refusal.text)?;
            self.declared(what, created)?;
        }
        Ok(())
    }

    /// Records that something was declared that is never removed.
    ///
    /// # Errors
    /// If it was `created`, although it had been declared before.
    fn declared(&self, what: &'static str, created: bool) -> Result<(), String> {
        let known = self.clients.with(|state| !state.checker.declared.insert(what));
        if created && known { Err(format!("{what} was declared before and is gone")) } else { Ok(()) }
    }

    pub(crate) fn broken(&self, text: String) {
        self.clients.broken(text);
    }

    pub(crate) fn trace(&self, line: String) {
        self.clients.trace(line);
    }

    /// Returns the digest and the number of messages of each durable queue.
    pub(crate) fn held(&self) -> Vec<(u64, u64)> {
        let of = |at| self.broker.find_queue(&Caller::system(), "/", &name(at)).ok();
        (0..SLOTS).filter(|at| is_durable(*at)).map(|at| of(at).as_deref().map_or((0, 0), held)).collect()
    }

    /// Returns the queues that exist.
    pub(crate) fn queues(&self) -> Vec<Arc<Queue>> {
        (0..SLOTS).filter_map(|at| self.broker.find_queue(&Caller::system(), "/", &name(at)).ok()).collect()
    }
}

/// The longest life in simulated time; no replay of a log, leap of the clock or timeout takes as long.
const LIFE_MAX: Duration = Duration::from_secs(1_200);

/// Returns the digest and the number of messages of a queue.
pub(crate) fn held(queue: &Queue) -> (u64, u64) {
    queue.look(|queue| (queue.digest(), queue.depth().ready + queue.depth().unacked))
}

/// Returns the durable queues that clients bind to `fan` and unbind again.
pub(crate) fn bound_durably() -> impl Iterator<Item = usize> {
    BOUND_AT_TIMES.into_iter().filter(|at| is_durable(*at))
}

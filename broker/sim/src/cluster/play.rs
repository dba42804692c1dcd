//! Plays a cluster from its forming to its end: clients work while faults strike; then the faults end, everything has to be
//! confirmed and drained within a bounded time, and after a loss of power of all nodes nothing may be left or come back.
use super::faults::{self, FAULT_KINDS, FaultKind, Strike};
use super::fleet::{Due, Fleet};
use super::replicas::Replicas;
use super::session::{DURABLE, Phase};
use super::setup::SetUp;
use crate::invariants::watched;
use crate::names::name;
use crate::random::Random;
use leveret_node::Caller;

/// The parameters of the simulation of a cluster.
#[derive(Clone, Debug)]
pub struct ClusterScenario {
    /// The number of nodes.
    pub nodes: usize,
    /// The number of clients.
    pub clients: usize,
    /// The time for which faults strike, in milliseconds.
    pub ms: u64,
    /// The kinds of faults that may strike.
    pub kinds: Vec<FaultKind>,
    /// The faults that strike, if not those that follow from the seed.
    pub strikes: Option<Vec<Strike>>,
}

impl Default for ClusterScenario {
    fn default() -> Self {
        Self { nodes: 3, clients: 5, ms: 12_000, kinds: FAULT_KINDS.to_vec(), strikes: None }
    }
}

/// The report of the simulation of a cluster.
#[derive(Clone, Debug, Default)]
pub struct ClusterReport {
    /// The faults that struck.
    pub strikes: Vec<Strike>,
    /// All events, one per line, each with its time in milliseconds.
    pub story: Vec<String>,
    /// A checksum of the story and of all disks at its end.
    pub digest: u64,
    /// The number of messages published to a queue, counted once per queue.
    pub attempted: u64,
    /// The number of these that were confirmed.
    pub confirmed: u64,
    /// The number of deliveries.
    pub delivered: u64,
    /// The number of times that a node began to lead a group.
    pub leaders: u64,
    /// The number of comparisons of the states of two nodes.
    pub compared: u64,
    /// The simulated time in milliseconds.
    pub ms: u64,
}

/// A broken promise, with the report up to there.
#[derive(Clone, Debug)]
pub struct Broken {
    /// The seed.
    pub seed: u64,
    /// The promise.
    pub promise: String,
    /// What happened.
    pub report: ClusterReport,
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { seed, promise, report } = self;
        writeln!(f, "seed {seed}: {promise}\nthe faults that struck:")?;
        for Strike { at, fault } in &report.strikes {
            writeln!(f, "{at:>7} ms after the beginning: {fault:?}")?;
        }
        let lines = std::env::var("LEVERET_SIM_LINES").ok().and_then(|lines| lines.parse().ok()).unwrap_or(LINES);
        let from = report.story.len().saturating_sub(lines);
        write!(f, "the last lines of the story:\n{}", report.story[from..].join("\n"))
    }
}

/// Plays a scenario with the numbers that follow from `seed`.
///
/// # Errors
/// The first broken promise.
pub fn play(seed: u64, scenario: &ClusterScenario) -> Result<ClusterReport, Box<Broken>> {
    let mut fleet = Fleet::new(seed, scenario.nodes, scenario.clients);
    let mut random = Random::new(seed ^ 0x5712_1ce5);
    let planned = faults::plan(&mut random, &scenario.kinds, scenario.nodes, scenario.ms);
    let strikes = scenario.strikes.clone().unwrap_or(planned);
    leveret_replication::simulated::seed_timers(Some(seed));
    let played = watched(|| {
        let played = fleet.play(&strikes, scenario.ms);
        for host in 0..fleet.hosts.len() {
            fleet.end(host, false);
        }
        played
    });
    leveret_replication::simulated::seed_timers(None);
    let report = fleet.report(strikes);
    match played {
        Ok(()) => Ok(report),
        Err(promise) => Err(Box::new(Broken { seed, promise, report })),
    }
}

/// Leaves out, one after the other, the faults without which a promise is broken all the same. Returns the shortest story that
/// was found.
#[must_use]
pub fn shorten(mut broken: Box<Broken>, scenario: &ClusterScenario) -> Box<Broken> {
    let mut at = broken.report.strikes.len();
    while at > 0 {
        at -= 1;
        let mut strikes = broken.report.strikes.clone();
        if at >= strikes.len() {
            continue;
        }
        strikes.remove(at);
        if let Err(shorter) = play(broken.seed, &ClusterScenario { strikes: Some(strikes), ..scenario.clone() }) {
            broken = shorter;
        }
    }
    broken
}

impl Fleet {
    fn play(&mut self, strikes: &[Strike], ms: u64) -> Result<(), String> {
        for host in 0..self.hosts.len() {
            self.hosts[host].peers = (0..self.hosts.len()).collect();
            self.start(host)?;
        }
        self.until("a cluster is formed", FORM_MAX, |fleet| fleet.unready())?;
        let set_up = SetUp::begin(&self.hosts[0]);
        self.until("queues are declared", ANSWER_MAX, |_| set_up.missing())?;
        self.until("all nodes have the queues", ANSWER_MAX, |fleet| fleet.lacks_queues())?;
        self.until("all nodes have the bindings", ANSWER_MAX, |fleet| Replicas::behind(fleet.members()))?;
        self.let_clients_in();
        let begin = self.now;
        let mut strikes = strikes.iter().peekable();
        while self.now < begin + ms {
            while let Some(strike) = strikes.next_if(|strike| begin + strike.at <= self.now) {
                self.strike(strike.fault)?;
            }
            self.pass()?;
        }
        self.end_faults()?;
        self.finish()
    }

    /// Checks that everything is confirmed and drained within a bounded time, and that this lasts.
    fn finish(&mut self) -> Result<(), String> {
        self.until("all nodes are ready", READY_MAX, |fleet| fleet.unready())?;
        self.phase.set(Phase::Confirm);
        self.until("everything is confirmed", CONFIRM_MAX, |fleet| {
            let unconfirmed = fleet.record.lock().unconfirmed();
            (!unconfirmed.is_empty()).then(|| format!("publishes {unconfirmed:?}"))
        })?;
        self.wait(RELEASE_MAX)?;
        self.record.lock().drains = true;
        self.phase.set(Phase::Drain);
        self.until("all queues are drained", DRAIN_MAX, |fleet| fleet.held())?;
        let owing = self.record.lock().owing();
        if let Some(owing) = owing.first() {
            return Err(owing.clone());
        }
        self.until("all replicas are equal", EQUAL_MAX, |fleet| Replicas::behind(fleet.members()))?;
        self.note("all is drained; all nodes lose their power".to_owned());
        let nodes = self.hosts.len();
        for host in 0..nodes {
            self.end(host, true);
            self.later(1 + (host as u64 * 37) % 100, Due::Start(nodes - 1 - host));
        }
        self.until("all nodes are ready again", READY_MAX, |fleet| fleet.unready())?;
        self.until("all replicas are equal again", EQUAL_MAX, |fleet| Replicas::behind(fleet.members()))?;
        match self.held() {
            Some(held) => Err(format!("messages have come back: {held}")),
            None => Ok(()),
        }
    }

    fn wait(&mut self, ms: u64) -> Result<(), String> {
        (0..ms).try_for_each(|_| self.pass())
    }

    fn lacks_queues(&self) -> Option<String> {
        self.members().find_map(|host| {
            let broker = &host.process.as_ref()?.broker;
            let lacks = |at| broker.find_queue(&Caller::system(), "/", &name(at)).is_err();
            (0..DURABLE as usize).find(|at| lacks(*at)).map(|at| format!("node {} lacks queue {at}", host.host))
        })
    }

    /// Returns a queue that holds messages on some node; `None` if there is none.
    fn held(&self) -> Option<String> {
        self.members().find_map(|host| {
            let broker = &host.process.as_ref()?.broker;
            (0..DURABLE as usize).find_map(|at| {
                let depth = broker.find_queue(&Caller::system(), "/", &name(at)).ok()?.look(|queue| queue.depth());
                (depth.ready + depth.unacked > 0).then(|| format!("queue {at} has {depth:?} on node {}", host.host))
            })
        })
    }

    fn report(&mut self, strikes: Vec<Strike>) -> ClusterReport {
        let mut digest = 0xcbf2_9ce4_8422_2325u64;
        let mut add = |bytes: &[u8]| {
            for byte in bytes {
                digest = (digest ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
            }
        };
        self.story.iter().for_each(|line| add(line.as_bytes()));
        self.hosts.iter().for_each(|host| add(&host.disk.checksum().to_le_bytes()));
        let record = self.record.lock();
        ClusterReport {
            strikes,
            story: std::mem::take(&mut self.story),
            digest,
            attempted: record.attempted,
            confirmed: record.confirmed,
            delivered: record.delivered,
            leaders: self.leaders.changes,
            compared: self.replicas.compared,
            ms: self.now,
        }
    }
}

/// The number of lines of the story that a broken promise is reported with.
const LINES: usize = 60;
/// The longest times that things may take without faults, in milliseconds.
const FORM_MAX: u64 = 30_000;
const ANSWER_MAX: u64 = 30_000;
const READY_MAX: u64 = 60_000;
const CONFIRM_MAX: u64 = 60_000;
const DRAIN_MAX: u64 = 60_000;
/// After this time, what was granted to nodes and not delivered there is ready again.
const RELEASE_MAX: u64 = 8_000;
const EQUAL_MAX: u64 = 20_000;

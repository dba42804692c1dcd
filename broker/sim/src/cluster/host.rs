//! One node of the simulated cluster: its disk, which lasts, and its process, which comes and goes.
//!
//! Each process has a runtime of its own, on the one thread of the simulation, with a clock of its own. The runtimes run in turns,
//! a millisecond of their own time each. To end a process in the middle of its work is to drop its runtime; a process that
//! stands still gets no turns, and its clock leaps when it goes on.
use super::network::Network;
use super::pipe::Host;
use super::session::{Session, SessionHandle};
use super::wires::{self, SimWires};
use crate::random::Random;
use crate::writer::Writer;
use bytes::Bytes;
use leveret_journal::faulty::FaultyDisk;
use leveret_node::{Broker, ClusterError, ClusterOptions, ClusterTimes, OpenError, Options, StorageOptions};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use tokio::runtime::Runtime;

/// A node of the cluster.
pub(crate) struct SimHost {
    pub(crate) host: Host,
    pub(crate) disk: FaultyDisk,
    pub(crate) process: Option<Process>,
    /// The nodes that it is told to form a cluster with.
    pub(crate) peers: Vec<Host>,
    /// The nodes of a cluster that it is told to join.
    pub(crate) join: Vec<Host>,
    /// How far the removal of the node is.
    pub(crate) removal: Removal,
}

/// How far the removal of a node from its cluster is.
#[derive(Clone, Debug, Default)]
pub(crate) enum Removal {
    /// The node is not to be removed.
    #[default]
    None,
    /// The node is to be removed; somebody is to ask for that from this time on.
    Wanted(u64),
    /// Somebody has asked for it. The outcome is whether the node is removed.
    Asked(Arc<Mutex<Option<bool>>>),
    /// The node is no member any more.
    Done,
}

/// A process of the broker.
pub(crate) struct Process {
    runtime: Runtime,
    pub(crate) broker: Broker,
    state: Arc<Mutex<ProcessState>>,
    pub(crate) sessions: Vec<SessionHandle>,
    /// True while the journal is not written.
    pub(crate) disk_stands: Arc<AtomicBool>,
    /// The milliseconds for which it gets no turn any more.
    pub(crate) stands_for: u64,
    /// The milliseconds by which its clock leaps with its next turn.
    pub(crate) leap: u64,
}

/// How far a process is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ProcessState {
    Opening,
    Open,
    /// It refused to start, for this reason.
    Refused(String),
    /// Ends itself, because its storage failed for this reason.
    Failed(String),
    /// It was stopped in order.
    Stopped,
}

impl SimHost {
    pub(crate) fn new(host: Host, seed: u64) -> Self {
        let (disk, removal) = (FaultyDisk::new(seed ^ 0xd15c), Removal::None);
        Self { host, disk, process: None, peers: Vec::new(), join: Vec::new(), removal }
    }

    /// Starts a process.
    ///
    /// # Errors
    /// The error of the runtime.
    pub(crate) fn start(&mut self, network: &Network, random: &mut Random) -> Result<(), String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        let _entered = runtime.enter();
        let name = format!("leveret@node{}", self.host);
        let options = Options { name, memory_max: u64::MAX / 2, message_bytes_max: 64 << 10, ..Options::default() };
        let broker = Broker::start(options);
        let state = Arc::new(Mutex::new(ProcessState::Opening));
        let disk_stands = Arc::<AtomicBool>::default();
        let failed = state.clone();
        let storage = StorageOptions {
            disk: Arc::new(self.disk.clone()),
            log_bytes_max: 0,
            segment_bytes: 0,
            incarnation: random.next(),
            on_failure: Arc::new(move |reason| *failed.lock() = ProcessState::Failed(reason)),
            driver: Some(Arc::new(Writer::new(random.next(), false).that_stands_while(&disk_stands))),
            peers: None,
        };
        let cluster = ClusterOptions {
            name: "simulation".to_owned(),
            secret: Bytes::from_static(b"a secret of the simulation"),
            address: wires::address(self.host),
            peers: self.peers.iter().copied().map(wires::address).collect(),
            join: self.join.iter().copied().map(wires::address).collect(),
            times: ClusterTimes::default(),
        };
        network.power(self.host, true);
        network.listen(self.host);
        let wires = Arc::new(SimWires { network: network.clone(), host: self.host });
        let (opened, opening) = (state.clone(), broker.clone());
        runtime.spawn(async move {
            let outcome = match open(&opening, cluster, wires, storage).await {
                Ok(()) => ProcessState::Open,
                Err(error) => ProcessState::Refused(error.to_string()),
            };
            let mut state = opened.lock();
            if *state == ProcessState::Opening {
                *state = outcome;
            }
        });
        drop(_entered);
        let (sessions, stands_for, leap) = (Vec::new(), 0, 0);
        self.process = Some(Process { runtime, broker, state, sessions, disk_stands, stands_for, leap });
        Ok(())
    }

    /// Ends the process in the middle of its work, if there is one. With `power_fails` the machine is off after that, and
    /// what was not synced is lost.
    pub(crate) fn end(&mut self, network: &Network, power_fails: bool) -> Vec<SessionHandle> {
        match power_fails {
            true => network.power(self.host, false),
            false => network.end_process(self.host),
        }
        let Some(process) = self.process.take() else { return Vec::new() };
        let Process { runtime, broker, sessions, .. } = process;
        let entered = runtime.enter();
        sessions.iter().for_each(|session| session.end(&broker));
        drop(entered);
        drop(runtime);
        if power_fails {
            self.disk.crash()
        } else {
            self.disk.end_process()
        }
        self.disk = self.disk.clone();
        sessions
    }

    /// Returns the process if it is open and serves clients.
    pub(crate) fn serving(&self) -> Option<&Process> {
        self.process.as_ref().filter(|process| process.state() == ProcessState::Open && process.stands_for == 0)
    }

    /// Returns whether the node belongs to the cluster, or is to.
    pub(crate) fn is_member(&self) -> bool {
        !matches!(self.removal, Removal::Done)
    }

    /// Returns what the node lacks at the end of a simulation.
    pub(crate) fn lacks(&self) -> Option<String> {
        match self.removal {
            Removal::None => self.is_ready().err(),
            Removal::Wanted(_) | Removal::Asked(_) => Some("it is not removed yet".to_owned()),
            Removal::Done => None,
        }
    }

    /// Returns whether the node is a member of a cluster that can serve clients.
    pub(crate) fn is_ready(&self) -> Result<(), String> {
        match &self.process {
            Some(process) if process.state() == ProcessState::Open => process.readiness(),
            Some(process) => Err(format!("{:?}", process.state())),
            None => Err("it does not run".to_owned()),
        }
    }
}

impl Process {
    pub(crate) fn state(&self) -> ProcessState {
        self.state.lock().clone()
    }

    /// Returns whether the node can serve clients, by its own clock.
    fn readiness(&self) -> Result<(), String> {
        let _by_its_clock = self.runtime.enter();
        self.broker.cluster_readiness()
    }

    /// Lets a millisecond pass for the process.
    pub(crate) fn turn(&mut self) {
        if self.stands_for > 0 {
            self.stands_for -= 1;
            self.leap += 1;
            return;
        }
        let leap = std::mem::take(&mut self.leap);
        self.runtime.block_on(async move {
            if leap > 0 {
                tokio::time::advance(Duration::from_millis(leap)).await;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        });
    }

    /// Begins a session.
    pub(crate) fn begin(&mut self, begin: impl FnOnce(Broker) -> Session) {
        let session = begin(self.broker.clone());
        self.sessions.push(session.handle.clone());
        self.runtime.spawn(session.run());
    }

    /// Begins to stop the process in order, as on SIGTERM.
    pub(crate) fn stop(&self) {
        let (broker, state) = (self.broker.clone(), self.state.clone());
        self.runtime.spawn(async move {
            broker.hand_over(HAND_OVER_MAX).await;
            broker.close_storage().await;
            broker.stop();
            *state.lock() = ProcessState::Stopped;
        });
    }

    /// Asks the process to remove a member from the cluster. Returns what will hold whether it is removed.
    pub(crate) fn remove_member(&self, member: Host) -> Arc<Mutex<Option<bool>>> {
        let (broker, outcome) = (self.broker.clone(), Arc::<Mutex<Option<bool>>>::default());
        let told = outcome.clone();
        self.runtime.spawn(async move {
            let removed = match broker.remove_member(&wires::address(member)).await {
                Ok(()) | Err(ClusterError::NotFound(_)) => true,
                Err(_) => false,
            };
            *told.lock() = Some(removed);
        });
        outcome
    }

    /// Does something in the runtime of the process.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(work);
    }

    pub(crate) fn stand_disk(&self, stands: bool) {
        self.disk_stands.store(stands, Relaxed);
    }
}

async fn open(
    broker: &Broker,
    cluster: ClusterOptions,
    wires: Arc<SimWires>,
    mut storage: StorageOptions,
) -> Result<(), OpenError> {
    broker.open_links(cluster, wires, &mut storage)?;
    broker.open_storage(storage).await?;
    broker.begin_cluster().await
}

/// The longest time that a process which is stopped takes to hand its groups over.
const HAND_OVER_MAX: Duration = Duration::from_secs(10);

//! The nodes of a simulated cluster, the network between them and their clients, one millisecond after the other.
use super::faults::ClusterFault;
use super::host::{Process, ProcessState, Removal, SimHost};
use super::leaders::Leaders;
use super::network::Network;
use super::pipe::Host;
use super::record::{Record, SessionId};
use super::replicas::Replicas;
use super::session::{DURABLE, PhaseBoard, Session, SessionHandle};
use crate::names::name;
use crate::random::Random;
use crate::weather;
use leveret_node::Caller;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;

/// All of a simulated cluster.
pub(crate) struct Fleet {
    pub(crate) now: u64,
    pub(crate) hosts: Vec<SimHost>,
    pub(crate) network: Network,
    pub(crate) record: Arc<Mutex<Record>>,
    pub(crate) phase: PhaseBoard,
    pub(crate) story: Vec<String>,
    pub(crate) leaders: Leaders,
    pub(crate) replicas: Replicas,
    random: Random,
    /// What ends or follows at which time.
    due: BTreeMap<u64, Vec<Due>>,
    clients: Vec<SimClient>,
    next_session: SessionId,
    /// The number of calls of the disk of each node that had failed when its process began.
    failed_calls: BTreeMap<Host, u64>,
}

/// What is due at a time.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Due {
    Start(Host),
    Mend(Host, Host),
    Quicken(Host, Host),
    DiskGoes(Host),
    DiskHasRoom(Host),
}

/// A client, which begins a new session when its last one has ended.
struct SimClient {
    session: Option<(Host, SessionId)>,
    /// The time from which on it may begin the next one.
    next_at: u64,
}

impl Fleet {
    pub(crate) fn new(seed: u64, nodes: usize, clients: usize) -> Self {
        let mut random = Random::new(seed ^ 0xf1ee7);
        let hosts = (0..nodes).map(|host| SimHost::new(host, random.next())).collect();
        Self {
            now: 0,
            hosts,
            network: Network::new(random.next()),
            record: Arc::default(),
            phase: PhaseBoard::default(),
            story: Vec::new(),
            leaders: Leaders::default(),
            replicas: Replicas::default(),
            random,
            due: BTreeMap::new(),
            clients: (0..clients).map(|_| SimClient { session: None, next_at: u64::MAX }).collect(),
            next_session: 0,
            failed_calls: BTreeMap::new(),
        }
    }

    pub(crate) fn note(&mut self, line: String) {
        self.story.push(format!("{:>7} {line}", self.now));
    }

    /// Has something happen after some milliseconds.
    pub(crate) fn later(&mut self, ms: u64, due: Due) {
        self.due.entry(self.now + ms.max(1)).or_default().push(due);
    }

    /// Lets all clients begin sessions from now on.
    pub(crate) fn let_clients_in(&mut self) {
        self.clients.iter_mut().for_each(|client| client.next_at = 0);
    }

    /// Starts the process of a node, unless there is one.
    ///
    /// # Errors
    /// The error of the runtime.
    pub(crate) fn start(&mut self, host: Host) -> Result<(), String> {
        if self.hosts[host].process.is_some() || !self.hosts[host].is_member() {
            return Ok(());
        }
        self.note(format!("node {host} starts"));
        self.failed_calls.insert(host, self.hosts[host].disk.troubles_met());
        self.hosts[host].start(&self.network, &mut self.random)
    }

    /// Ends the process of a node in the middle of its work.
    pub(crate) fn end(&mut self, host: Host, power_fails: bool) {
        if self.hosts[host].process.is_none() {
            return;
        }
        let how = if power_fails { "loses its power" } else { "ends" };
        self.note(format!("node {host} {how}"));
        let sessions = self.hosts[host].end(&self.network, power_fails);
        self.leaders.ended(host);
        for session in sessions {
            self.end_session(&session);
        }
    }

    fn end_session(&mut self, session: &SessionHandle) {
        self.take_lines(session);
        self.record.lock().end_session(session.number);
        let again = self.now + 20 + self.random.below(400);
        for client in &mut self.clients {
            if client.session.is_some_and(|(_, number)| number == session.number) {
                (client.session, client.next_at) = (None, again);
            }
        }
    }

    fn take_lines(&mut self, session: &SessionHandle) {
        let lines = session.clients.with(|state| std::mem::take(&mut state.trace));
        lines.into_iter().for_each(|line| self.note(format!("session {}: {line}", session.number)));
    }

    /// Lets a millisecond pass.
    ///
    /// # Errors
    /// The first broken promise.
    pub(crate) fn pass(&mut self) -> Result<(), String> {
        self.now += 1;
        self.record.lock().now = self.now;
        for due in self.due.remove(&self.now).unwrap_or_default() {
            self.happen(due)?;
        }
        self.network.pass();
        self.begin_sessions();
        for host in 0..self.hosts.len() {
            let Some(process) = &mut self.hosts[host].process else { continue };
            process.turn();
            let (state, sessions) = (process.state(), process.sessions.clone());
            sessions.iter().for_each(|session| self.take_lines(session));
            self.look_after(host, state)?;
            if self.leaders.look(&self.hosts[host], self.now)? {
                self.record.lock().calm.led_otherwise(self.now);
            }
        }
        if self.now.is_multiple_of(LOOK_EVERY) {
            self.remove_members();
        }
        if self.now.is_multiple_of(REPLICAS_EVERY) {
            self.replicas.look(&self.hosts)?;
        }
        match self.record.lock().broken() {
            Some(broken) => Err(broken),
            None => Ok(()),
        }
    }

    fn happen(&mut self, due: Due) -> Result<(), String> {
        if !matches!(due, Due::Start(_)) {
            self.note(format!("{due:?}"));
        }
        match due {
            Due::Start(host) => return self.start(host),
            Due::Mend(from, to) => self.network.mend(from, to),
            Due::Quicken(from, to) => self.network.slow(from, to, 0),
            Due::DiskGoes(host) => {
                if let Some(process) = &self.hosts[host].process {
                    process.stand_disk(false);
                }
            }
            Due::DiskHasRoom(host) => weather::clear(&self.hosts[host].disk),
        }
        Ok(())
    }

    /// Ends a process that ends itself.
    ///
    /// # Errors
    /// It had no reason to.
    fn look_after(&mut self, host: Host, state: ProcessState) -> Result<(), String> {
        let reason = match state {
            ProcessState::Opening | ProcessState::Open => return Ok(()),
            ProcessState::Stopped => None,
            ProcessState::Refused(reason) | ProcessState::Failed(reason) => Some(reason),
        };
        if let Some(reason) = reason {
            self.note(format!("node {host} gives up: {reason}"));
            let failed_calls = self.failed_calls.get(&host).copied().unwrap_or(0);
            if self.hosts[host].disk.troubles_met() == failed_calls {
                return Err(format!("node {host} ended itself although its disk has not failed: {reason}"));
            }
            let now = self.now;
            self.record.lock().calm.disturb(now, now);
        }
        self.end(host, false);
        weather::clear(&self.hosts[host].disk);
        let pause = 100 + self.random.below(1_000);
        self.later(pause, Due::Start(host));
        Ok(())
    }

    fn begin_sessions(&mut self) {
        for at in 0..self.clients.len() {
            let SimClient { session, next_at } = self.clients[at];
            if session.is_some() || next_at > self.now {
                continue;
            }
            let serving: Vec<Host> = self
                .hosts
                .iter()
                .filter(|host| host.serving().is_some() && host.is_ready().is_ok())
                .map(|host| host.host)
                .collect();
            if serving.is_empty() {
                continue;
            }
            let host = *self.random.pick(&serving);
            self.next_session += 1;
            self.note(format!("client {at} begins session {} with node {host}", self.next_session));
            let handle = SessionHandle::new(self.next_session, &self.record);
            let (random, record, phase) = (Random::new(self.random.next()), self.record.clone(), self.phase.clone());
            if let Some(process) = &mut self.hosts[host].process {
                process.begin(|broker| Session { handle, broker, record, random, phase, client: at });
                self.clients[at].session = Some((host, self.next_session));
            }
        }
    }

    /// Does to the cluster what a fault does.
    ///
    /// # Errors
    /// The error of a runtime.
    pub(crate) fn strike(&mut self, fault: ClusterFault) -> Result<(), String> {
        if fault.nodes_least() > self.hosts.len() {
            return Ok(()); // the plan was shortened
        }
        self.note(format!("{fault:?}"));
        let now = self.now;
        self.record.lock().calm.disturb(now, now + fault.ms());
        match fault {
            ClusterFault::Kill(of) => self.end_for(of.node, false, of.ms),
            ClusterFault::PowerLoss(of) => self.end_for(of.node, true, of.ms),
            ClusterFault::AllLosePower(of) => {
                let nodes = self.hosts.len();
                for at in 0..nodes {
                    let pause = if at == 0 { of.ms } else { 1 + self.random.below(2 * of.ms) };
                    self.end_for((of.node + at) % nodes, true, pause);
                }
            }
            ClusterFault::Isolate(of) => {
                for other in (0..self.hosts.len()).filter(|other| *other != of.node) {
                    self.cut(of.node, other, of.ms);
                    self.cut(other, of.node, of.ms);
                }
            }
            ClusterFault::CutOneWay(of) => self.cut(of.from, of.to, of.ms),
            ClusterFault::CutBothWays(of) => {
                self.cut(of.from, of.to, of.ms);
                self.cut(of.to, of.from, of.ms);
            }
            ClusterFault::Reset(of) => self.network.reset(of.from, of.to, false),
            ClusterFault::HalfReset(of) => self.network.reset(of.from, of.to, true),
            ClusterFault::SlowLink(of) => {
                let longer = 5 + self.random.below(150);
                self.network.slow(of.from, of.to, longer);
                self.later(of.ms, Due::Quicken(of.from, of.to));
            }
            ClusterFault::HoldConnection(of) => self.network.hold(of.from, of.to, of.ms),
            ClusterFault::AddNode => return self.add_member(),
            ClusterFault::RemoveNode(of) => self.hosts[of.node].removal = Removal::Wanted(now),
            ClusterFault::LoseDisk(of) => {
                self.end_for(of.node, true, of.ms);
                self.hosts[of.node].disk = SimHost::new(of.node, self.random.next()).disk;
            }
            other => self.strike_process(other),
        }
        Ok(())
    }

    /// Does to a process, if it runs, what a fault does.
    fn strike_process(&mut self, fault: ClusterFault) {
        let Some(host) = fault.node() else { return };
        let (ms, disk) = (fault.ms(), self.hosts[host].disk.clone());
        let Some(process) = &mut self.hosts[host].process else { return };
        match fault {
            ClusterFault::Stop(_) => process.stop(),
            ClusterFault::Stand(_) => process.stands_for = ms,
            ClusterFault::Leap(_) => process.leap += ms,
            ClusterFault::DiskStands(_) => {
                process.stand_disk(true);
                self.later(ms, Due::DiskGoes(host));
            }
            ClusterFault::WriteFails(_) => disk.expect(weather::write_trouble(&mut self.random)),
            ClusterFault::DiskFull(_) => {
                disk.leave_free(self.random.below(4 << 20));
                self.later(ms, Due::DiskHasRoom(host));
            }
            _ => {}
        }
    }

    fn add_member(&mut self) -> Result<(), String> {
        let (host, seed) = (self.hosts.len(), self.random.next());
        let join = self.hosts.iter().filter(|host| host.is_member()).map(|host| host.host).collect();
        self.hosts.push(SimHost { join, ..SimHost::new(host, seed) });
        self.start(host)
    }

    /// Takes the next step of removing each member that is to be removed.
    fn remove_members(&mut self) {
        for host in 0..self.hosts.len() {
            match self.hosts[host].removal.clone() {
                Removal::Wanted(at) if at <= self.now => {
                    let others = self.hosts.iter().filter(|other| other.host != host && other.is_member());
                    let serving: Vec<&Process> = others.filter_map(SimHost::serving).collect();
                    if !serving.is_empty() {
                        let process = *self.random.pick(&serving);
                        self.hosts[host].removal = Removal::Asked(process.remove_member(host));
                    }
                }
                Removal::Asked(outcome) => match *outcome.lock() {
                    Some(true) => {
                        self.note(format!("node {host} is no member any more"));
                        self.hosts[host].removal = Removal::Done;
                        self.end(host, false);
                    }
                    Some(false) => self.hosts[host].removal = Removal::Wanted(self.now + 500),
                    // The process that was asked may have ended.
                    None if Arc::strong_count(&outcome) <= 2 => self.hosts[host].removal = Removal::Wanted(self.now),
                    None => {}
                },
                _ => {}
            }
        }
    }

    fn end_for(&mut self, host: Host, power_fails: bool, ms: u64) {
        self.end(host, power_fails);
        self.later(ms, Due::Start(host));
    }

    fn cut(&mut self, from: Host, to: Host, ms: u64) {
        self.network.cut(from, to);
        self.later(ms, Due::Mend(from, to));
    }

    /// Ends all faults, and starts what does not run.
    ///
    /// # Errors
    /// The error of a runtime.
    pub(crate) fn end_faults(&mut self) -> Result<(), String> {
        self.note("all faults end".to_owned());
        self.due.clear();
        self.network.mend_all();
        for host in 0..self.hosts.len() {
            weather::clear(&self.hosts[host].disk);
            if let Some(process) = &mut self.hosts[host].process {
                process.stand_disk(false);
                process.stands_for = 0;
            }
            self.start(host)?;
        }
        Ok(())
    }

    /// Notes how far each node is in each group, and what each of its queues holds.
    fn note_views(&mut self) {
        let unsettled = self.record.lock().unsettled();
        unsettled.into_iter().for_each(|line| self.note(line));
        for host in 0..self.hosts.len() {
            let Some(process) = &self.hosts[host].process else { continue };
            let broker = process.broker.clone();
            let view = broker.cluster_view();
            for group in view.iter().flat_map(|view| &view.groups) {
                self.note(format!("node {host}: {group:x?}"));
            }
            for slot in 0..DURABLE as usize {
                let Ok(queue) = broker.find_queue(&Caller::system(), "/", &name(slot)) else { continue };
                let (depth, epoch) = queue.look(|queue| (queue.depth(), queue.epoch()));
                let (leads, is_front) = queue.look(|queue| (queue.is_leading(), queue.is_front()));
                self.note(format!(
                    "node {host}: {} leads {leads}, front {is_front}, epoch {epoch}, {depth:?}",
                    queue.name
                ));
            }
        }
    }

    /// Lets time pass until `done` returns `None`, for `ms` at most.
    ///
    /// # Errors
    /// The first broken promise, or what was missing last.
    pub(crate) fn until(
        &mut self,
        what: &str,
        ms: u64,
        mut done: impl FnMut(&mut Self) -> Option<String>,
    ) -> Result<(), String> {
        let end = self.now + ms;
        loop {
            let Some(missing) = done(self) else { return Ok(()) };
            if self.now >= end {
                self.note_views();
                return Err(format!("{what}, which takes longer than {ms} ms without faults: {missing}"));
            }
            for _ in 0..LOOK_EVERY {
                self.pass()?;
            }
        }
    }

    /// Returns the nodes that belong to the cluster.
    pub(crate) fn members(&self) -> impl Iterator<Item = &SimHost> {
        self.hosts.iter().filter(|host| host.is_member())
    }

    /// Returns what a node lacks to serve clients, or which node is still to be removed; `None` if all can.
    pub(crate) fn unready(&self) -> Option<String> {
        self.members().find_map(|host| Some(format!("node {}: {}", host.host, host.lacks()?)))
    }
}

/// Time between two comparisons of the replicas.
const REPLICAS_EVERY: u64 = 25;
const LOOK_EVERY: u64 = 20;

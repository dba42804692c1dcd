//! The network between the simulated nodes: connections are queues of packets in memory, and the seed decides how long each
//! packet takes. Time passes one millisecond at a time, in [`Network::pass`].
//!
//! It behaves like TCP between machines. The bytes of a connection arrive in order, but two connections have different
//! latencies, so what is sent on one may overtake what was sent on the other. A direction that is cut lets nothing through:
//! what was sent waits, and arrives when the cut has ended. If the process of a node ends, its connections are closed and new
//! ones are refused. If its machine is off, nothing answers at all, and after the machine is back its old connections are
//! reset at the next packet.
use super::pipe::{Arrival, Host, Moved, PipeEnd, SimPipe};
use crate::random::Random;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::task::Waker;

/// The handle to the network; cheap to clone.
#[derive(Clone)]
pub(crate) struct Network(Arc<Mutex<NetworkState>>);

pub(crate) struct NetworkState {
    now: u64,
    random: Random,
    machines: BTreeMap<Host, Machine>,
    dials: BTreeMap<u64, Dial>,
    /// The connections: one pipe from the node that dialled, then one to it.
    connections: BTreeMap<u64, [SimPipe; 2]>,
    /// The directions, from one node to another, in which nothing gets through.
    cuts: BTreeSet<(Host, Host)>,
    /// The directions in which each packet takes that many milliseconds longer.
    slow: BTreeMap<(Host, Host), u64>,
    next: u64,
}

/// The machine of a node.
#[derive(Default)]
pub(crate) struct Machine {
    /// False while the machine has no power.
    is_on: bool,
    /// True while a process accepts connections.
    listens: bool,
    /// The connections that wait to be accepted.
    pub(crate) accepted: VecDeque<u64>,
    pub(crate) acceptor: Option<Waker>,
}

/// An attempt to connect.
struct Dial {
    from: Host,
    to: Host,
    progress: DialProgress,
    waker: Option<Waker>,
}

/// How far an attempt to connect is.
enum DialProgress {
    /// The request arrives at this time.
    Asking(u64),
    /// The answer arrives at this time: a connection, or `None` if it was refused.
    Answering(u64, Option<u64>),
    /// The answer has arrived.
    Answered(Option<u64>),
}

impl Network {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(NetworkState {
            now: 0,
            random: Random::new(seed),
            machines: BTreeMap::new(),
            dials: BTreeMap::new(),
            connections: BTreeMap::new(),
            cuts: BTreeSet::new(),
            slow: BTreeMap::new(),
            next: 0,
        })))
    }

    pub(crate) fn with<T>(&self, work: impl FnOnce(&mut NetworkState) -> T) -> T {
        work(&mut self.0.lock())
    }

    /// Lets a millisecond pass: whatever is due arrives.
    pub(crate) fn pass(&self) {
        let woken = self.with(NetworkState::pass);
        woken.into_iter().for_each(Waker::wake); // outside the lock
    }

    /// Switches the machine of a node on or off.
    pub(crate) fn power(&self, host: Host, is_on: bool) {
        self.with(|state| {
            state.machines.entry(host).or_default().is_on = is_on;
            if !is_on {
                state.forget(host);
            }
        });
    }

    /// Has the process of a node accept connections from now on.
    pub(crate) fn listen(&self, host: Host) {
        self.with(|state| state.machines.entry(host).or_default().listens = true);
    }

    /// Has new connections to a node refused: its process has ended.
    pub(crate) fn end_process(&self, host: Host) {
        self.with(|state| state.forget(host));
    }

    /// Cuts a direction between two nodes.
    pub(crate) fn cut(&self, from: Host, to: Host) {
        self.with(|state| state.cuts.insert((from, to)));
    }

    /// Ends a cut.
    pub(crate) fn mend(&self, from: Host, to: Host) {
        self.with(|state| state.cuts.remove(&(from, to)));
    }

    /// Has each packet in a direction take that many milliseconds longer; 0 ends that.
    pub(crate) fn slow(&self, from: Host, to: Host, longer: u64) {
        self.with(|state| state.slow.insert((from, to), longer));
    }

    /// Ends all cuts and slow links.
    pub(crate) fn mend_all(&self) {
        self.with(|state| {
            state.cuts.clear();
            state.slow.clear();
        });
    }

    /// Resets all connections between two nodes. If `half`, only the dialling end of each notices: the other stays open until
    /// it sends something, while the nodes connect again.
    pub(crate) fn reset(&self, one: Host, two: Host, half: bool) {
        let woken = self.with(|state| {
            let mut woken = Vec::new();
            let between = state.connections.values_mut().filter(|pipes| pipes[0].is_between(one, two));
            for [there, back] in between {
                back.reset(&mut woken);
                there.stop_writing(&mut woken);
                if !half {
                    there.reset(&mut woken);
                    back.stop_writing(&mut woken);
                }
            }
            woken
        });
        woken.into_iter().for_each(Waker::wake);
    }

    /// Holds back what is sent from one node to another on one of their connections, chosen by the seed, for some time.
    pub(crate) fn hold(&self, from: Host, to: Host, time: u64) {
        self.with(|state| {
            let NetworkState { now, random, connections, .. } = state;
            let mut pipes: Vec<_> = connections.values_mut().flatten().filter(|pipe| pipe.leads(from, to)).collect();
            if !pipes.is_empty() {
                let at = random.below(pipes.len() as u64) as usize;
                pipes[at].hold_until(*now + time);
            }
        });
    }
}

impl NetworkState {
    /// Begins an attempt to connect, and returns its number.
    pub(crate) fn dial(&mut self, from: Host, to: Host) -> u64 {
        self.next += 1;
        let at = self.now + self.latency(from, to);
        self.dials.insert(self.next, Dial { from, to, progress: DialProgress::Asking(at), waker: None });
        self.next
    }

    /// Returns the machine of a node.
    pub(crate) fn machine(&mut self, host: Host) -> &mut Machine {
        self.machines.entry(host).or_default()
    }

    fn usual_latency(&mut self) -> u64 {
        if self.random.once_in(20) { 1 + self.random.below(12) } else { 1 + self.random.below(2) }
    }

    fn latency(&mut self, from: Host, to: Host) -> u64 {
        self.usual_latency() + self.slow.get(&(from, to)).copied().unwrap_or(0)
    }

    fn pass(&mut self) -> Vec<Waker> {
        self.now += 1;
        let mut woken = Vec::new();
        for number in self.dials.keys().copied().collect::<Vec<_>>() {
            self.pass_dial(number, &mut woken);
        }
        let Self { now, connections, cuts, slow, machines, .. } = self;
        for pipes in connections.values_mut() {
            for at in 0..2 {
                let pipe = &mut pipes[at];
                let (from, to) = (pipe.from, pipe.to);
                if cuts.contains(&(from, to)) || !machines.get(&to).is_some_and(|machine| machine.is_on) {
                    continue;
                }
                let longer = slow.get(&(from, to)).copied().unwrap_or(0);
                if pipe.deliver(now.saturating_sub(longer), *now, &mut woken) == Arrival::Refused {
                    pipes[1 - at].send_end(*now, PipeEnd::Reset);
                }
            }
        }
        self.connections.retain(|_, pipes| !pipes.iter().all(SimPipe::is_over));
        woken
    }

    fn pass_dial(&mut self, number: u64, woken: &mut Vec<Waker>) {
        let Some(Dial { from, to, progress, .. }) = self.dials.get(&number) else { return };
        let (from, to, now) = (*from, *to, self.now);
        let next = match progress {
            DialProgress::Asking(at) if *at <= now && !self.cuts.contains(&(from, to)) => {
                let machine = self.machines.entry(to).or_default();
                if !machine.is_on {
                    return; // nobody answers
                }
                let answer = if machine.listens { Some(self.connect(from, to, woken)) } else { None };
                DialProgress::Answering(now + self.latency(to, from), answer)
            }
            DialProgress::Answering(at, answer) if *at <= now && !self.cuts.contains(&(to, from)) => {
                DialProgress::Answered(*answer)
            }
            _ => return,
        };
        if let Some(dial) = self.dials.get_mut(&number) {
            if matches!(next, DialProgress::Answered(_)) {
                woken.extend(dial.waker.take());
            }
            dial.progress = next;
        }
    }

    fn connect(&mut self, from: Host, to: Host, woken: &mut Vec<Waker>) -> u64 {
        self.next += 1;
        let pipes = [(from, to), (to, from)].map(|(from, to)| SimPipe::new(from, to, self.usual_latency()));
        self.connections.insert(self.next, pipes);
        let machine = self.machines.entry(to).or_default();
        machine.accepted.push_back(self.next);
        woken.extend(machine.acceptor.take());
        self.next
    }

    fn forget(&mut self, host: Host) {
        let machine = self.machines.entry(host).or_default();
        machine.listens = false;
        machine.acceptor = None;
        let accepted = std::mem::take(&mut machine.accepted);
        accepted.into_iter().for_each(|connection| self.leave(connection, 1));
    }

    /// Ends an attempt to connect of which nobody waits for the outcome any more.
    pub(crate) fn end_dial(&mut self, number: u64) {
        let Some(dial) = self.dials.remove(&number) else { return };
        if let DialProgress::Answering(_, Some(connection)) | DialProgress::Answered(Some(connection)) = dial.progress {
            self.leave(connection, 0);
        }
    }

    /// Takes the outcome of an attempt to connect; `None` if there is none yet.
    pub(crate) fn take_dialled(&mut self, number: u64, waker: &Waker) -> Option<io::Result<u64>> {
        let dial = self.dials.get_mut(&number)?;
        let DialProgress::Answered(answer) = dial.progress else {
            dial.waker = Some(waker.clone());
            return None;
        };
        self.dials.remove(&number);
        Some(answer.ok_or_else(|| io::ErrorKind::ConnectionRefused.into()))
    }

    /// Closes the end of a connection that writes to this pipe and reads from the other.
    fn leave(&mut self, connection: u64, pipe: usize) {
        self.stop_writing(connection, pipe);
        self.stop_reading(connection, 1 - pipe);
    }

    pub(crate) fn stop_writing(&mut self, connection: u64, pipe: usize) {
        let Self { now, machines, connections, .. } = self;
        let Some(pipe) = connections.get_mut(&connection).map(|pipes| &mut pipes[pipe]) else { return };
        let is_on = machines.get(&pipe.from).is_some_and(|machine| machine.is_on);
        if !pipe.stop_writing(&mut Vec::new()) && is_on {
            pipe.send_end(*now, PipeEnd::Closed);
        }
    }

    pub(crate) fn stop_reading(&mut self, connection: u64, pipe: usize) {
        if let Some(pipes) = self.connections.get_mut(&connection) {
            pipes[pipe].stop_reading();
        }
    }

    /// Reads what has arrived.
    pub(crate) fn read(&mut self, connection: u64, pipe: usize, into: &mut [u8], waker: &Waker) -> Moved {
        let Some(pipes) = self.connections.get_mut(&connection) else {
            return Some(Err(io::ErrorKind::ConnectionReset.into()));
        };
        pipes[pipe].read(into, waker)
    }

    /// Writes bytes, or some of them.
    pub(crate) fn write(&mut self, connection: u64, pipe: usize, bytes: &[u8], waker: &Waker) -> Moved {
        let Some(pipes) = self.connections.get_mut(&connection).filter(|pipes| !pipes[1 - pipe].is_reset()) else {
            return Some(Err(io::ErrorKind::ConnectionReset.into()));
        };
        pipes[pipe].write(self.now, bytes, waker)
    }
}

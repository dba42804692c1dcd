//! A deterministic simulation of a whole cluster: several nodes, the network between them, their disks and their clients
//! follow from a seed, on one thread.
//!
//! The nodes are the real ones, as in the simulation of one node. Each process has a runtime and a clock of its own (`host`),
//! and the runtimes run in turns, a millisecond each (`fleet`). Packets arrive between the turns (`network`, with `pipe`, and
//! `wires` for the links of a node). `faults` says what may strike and makes the plan, which follows from the seed alone: so
//! a plan can be shortened while it still breaks a promise (`play`), and what is left is the story of the failure.
//! `setup` declares the queues, `session` is what clients do, `record` what they published, were promised and saw; `calm` knows
//! when faults had an effect. `replicas` compares the states of the nodes, `leaders` who leads.
mod calm;
mod faults;
mod fleet;
mod host;
mod leaders;
mod network;
mod pipe;
mod play;
mod record;
mod replicas;
mod session;
mod setup;
mod wires;

pub use faults::{ClusterFault, FAULT_KINDS, FaultKind, LinkFault, NodeFault, Strike};
pub use play::{Broken, ClusterReport, ClusterScenario, play, shorten};

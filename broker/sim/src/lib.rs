//! A deterministic simulation of the node: time, disk and clients follow from a seed, and faults strike during and between
//! the node's lives.
//!
//! A life is the time from a start of the node to its end; all lives of a simulation use one disk. The node is the real
//! one, down to Raft and the journal, on one thread with a clock that jumps ahead when no task has work. The disk is the
//! `FaultyDisk` of the journal. The seed also decides when the journal is written and when work proceeds that the node does
//! on other threads. What clients see is compared with what they were promised: `invariants` has one promise per file. The
//! same seed gives the same trace and the same bytes on disk.
//!
//! `scenario` defines what may happen and the report; `lives` runs one life after the other; `world` is what lasts from one
//! life to the next; `weather` holds the disturbances during a life; `life` opens the node and plays a life, `steps` and
//! `requests` are what clients do in it, and `finish` ends it; `rot` changes bytes between lives; `writer` replaces the
//! node's threads; `clients` has channels and consumers; `names` has the queues, the bindings and the exchange that clients
//! use, and `brief` the requests for that exchange; `checker` records what is known of each message; `random` makes numbers
//! from the seed.
mod brief;
mod checker;
mod clients;
mod cluster;
mod finish;
mod invariants;
mod life;
mod lives;
mod names;
mod random;
mod requests;
mod rot;
mod scenario;
mod steps;
mod watcher;
mod weather;
mod world;
mod writer;

pub use cluster::{
    Broken, ClusterFault, ClusterReport, ClusterScenario, FAULT_KINDS, FaultKind, LinkFault, NodeFault, Strike, play,
    shorten,
};
pub use lives::run;
pub use scenario::{FAULTS, Fault, Report, Scenario, WEATHER, Weather};

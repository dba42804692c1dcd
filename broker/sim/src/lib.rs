//! The node in a simulation: seeded time, seeded disk, seeded clients; crashes and faults between and during its lives.
//!
//! The node is the real one, down to Raft and the journal, on one thread with a clock that jumps ahead when nobody has work.
//! Its disk is journal's faulty one; the journal is written, and what runs beside the node goes on, when the seed says so. What
//! clients see is compared with what was promised: `invariants` has one promise a file. The same seed gives the same trace, to
//! the byte on disk.
//!
//! `scenario` (what may happen, and what came of it), `world` (lives and what ends them), `weather` (what a life has to live
//! through), `life` (opened, played), `steps` and `requests` (what clients do in it), `finish` (how it ends), `rot` (bytes that
//! change between lives), `writer` (in place of the node's threads), `clients` (channels and consumers), `names` and `brief` (what they use),
//! `checker` (what is known of each message), `random`.
mod brief;
mod checker;
mod clients;
mod finish;
mod invariants;
mod life;
mod names;
mod random;
mod requests;
mod rot;
mod scenario;
mod steps;
mod weather;
mod world;
mod writer;

pub use scenario::{FAULTS, Fault, Report, Scenario, WEATHER, Weather};
pub use world::run;

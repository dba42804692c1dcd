//! A node in a simulation: seeded time, seeded disk, seeded clients; crashes and faults between and during its lives.
//!
//! The node is the real one, down to Raft and the journal, on one thread with a clock that jumps ahead when nobody has work.
//! Its disk is journal's faulty one; the journal is written when the seed says so. What clients see is compared with what
//! was promised (`checker`): every confirmed message is delivered, still queued, or explained; none appears from nowhere; order
//! holds per publisher and queue; a restart finds what was there. The same seed gives the same trace, to the byte on disk.
//!
//! `scenario` (what may happen, and what came of it), `world` (lives and what ends them), `life` (one life: open, play, drain) and
//! `steps` (what clients do in it), `clients` (publishers and consumers), `checker`, `random`.
mod checker;
mod clients;
mod life;
mod random;
mod scenario;
mod steps;
mod world;
mod writer;

pub use scenario::{FAULTS, Fault, Report, Scenario};
pub use world::run;

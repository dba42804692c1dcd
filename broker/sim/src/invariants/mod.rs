//! The promises that hold whatever happens, one per file.
mod agreement;
mod confirmed;
mod delivery;
mod ends;
mod order;
mod panics;
mod progress;
mod restart;

pub(crate) use ends::{Circumstances, is_out_of_space};
pub(crate) use panics::watched;

//! The state of a shard beside its queues, which follows from the shard's log alone and is therefore the same on every
//! node.
mod batches;

pub use batches::{AppliedBatches, BatchId, ROWS};

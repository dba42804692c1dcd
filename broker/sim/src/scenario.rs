//! What may happen in a simulation, and what came of it.

/// What happens to a life of the node, at its end or on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The node is stopped in order.
    Stop,
    /// The process ends at any moment; the system's cache stays.
    Kill,
    /// The power goes between two steps: what was not synced is lost or torn.
    PowerLoss,
    /// The power goes during some write, also while the node starts.
    PowerLossAtWrite,
    /// A sync fails.
    SyncFails,
    /// The disk is full for a while; then the power goes.
    DiskFull,
    /// After a stop in order a bit of a file is another.
    BitFlip,
}

/// All of them.
pub const FAULTS: [Fault; 7] = [
    Fault::Stop,
    Fault::Kill,
    Fault::PowerLoss,
    Fault::PowerLossAtWrite,
    Fault::SyncFails,
    Fault::DiskFull,
    Fault::BitFlip,
];

/// A simulation.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Lives of the node before the last one, in which the queues are drained.
    pub lives: u64,
    /// Steps of a life at most.
    pub steps: u64,
    /// What may happen; one a life.
    pub faults: Vec<Fault>,
    /// Consumers take and settle; without, queues grow.
    pub consume: bool,
}

impl Default for Scenario {
    fn default() -> Self {
        Self { lives: 6, steps: 200, faults: FAULTS.to_vec(), consume: true }
    }
}

/// What happened.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// What happened, line by line.
    pub trace: Vec<String>,
    /// Messages handed to a queue.
    pub attempted: u64,
    /// Of these, confirmed.
    pub confirmed: u64,
    /// Deliveries.
    pub delivered: u64,
    /// Faults, in order.
    pub faults: Vec<Fault>,
    /// Starts refused for a flipped bit.
    pub refused: u64,
    /// Files of the archive made.
    pub relocated: u64,
}

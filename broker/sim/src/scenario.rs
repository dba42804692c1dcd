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
    /// After a stop in order a part of a file is zeroes, or gone, or all of it is gone.
    Rot,
    /// Right after a confirmation the node is stopped in order, and a bit of what was written last is another.
    RotInTail,
    /// The process ends when all is confirmed and nothing goes on; then a bit of what was written last is another.
    RotAfterKill,
}

/// All of them.
pub const FAULTS: [Fault; 10] = [
    Fault::Stop,
    Fault::Kill,
    Fault::PowerLoss,
    Fault::PowerLossAtWrite,
    Fault::SyncFails,
    Fault::DiskFull,
    Fault::BitFlip,
    Fault::Rot,
    Fault::RotInTail,
    Fault::RotAfterKill,
];

/// What the node has to live through on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weather {
    /// Reads, and whatever else runs beside the node, take their time while everything else goes on; syncs do.
    SlowDisk,
    /// No file is opened or made for a while (EMFILE).
    TooManyFiles,
    /// Reads fail for a while (EIO).
    ReadsFail,
    /// A call that changes something fails (EIO, ENOSPC).
    WritesFail,
    /// The volume fills up to the last byte and empties again, also before and during a start.
    FullVolume,
    /// The clock leaps ahead, as if the machine had been suspended.
    ClockLeaps,
    /// Clients lose patience in the middle of a request.
    Cancelled,
    /// Several clients change the same queue at a time.
    Races,
    /// An exchange goes with its last binding, and comes again.
    Cascades,
}

/// All of it.
pub const WEATHER: [Weather; 9] = [
    Weather::SlowDisk,
    Weather::TooManyFiles,
    Weather::ReadsFail,
    Weather::WritesFail,
    Weather::FullVolume,
    Weather::ClockLeaps,
    Weather::Cancelled,
    Weather::Races,
    Weather::Cascades,
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
    /// What may happen on the way; some of it each life.
    pub weather: Vec<Weather>,
    /// From this life on consumers take and settle; in the lives before queues grow.
    pub consume_from: u64,
}

impl Default for Scenario {
    fn default() -> Self {
        Self { lives: 6, steps: 200, faults: FAULTS.to_vec(), weather: WEATHER.to_vec(), consume_from: 0 }
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
    /// Weather of the lives, in order.
    pub weather: Vec<Weather>,
    /// Calls to the disk that failed as they were told to.
    pub failed_calls: u64,
    /// Starts refused for rot.
    pub refused: u64,
    /// Files of the archive made.
    pub relocated: u64,
    /// Requests that were cancelled before they were answered.
    pub cancelled: u64,
    /// Times that a copy of the disk was opened and looked through.
    pub audits: u64,
}

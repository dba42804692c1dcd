//! The faults and the weather that a simulation may have, and the report of a simulation.

/// A fault that strikes a life of the node; most end it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The node is stopped in order.
    Stop,
    /// The process is killed at any moment; the cache of the operating system survives.
    Kill,
    /// The power fails between two steps: writes that were not synced are lost or torn.
    PowerLoss,
    /// The power fails during a write, perhaps while the node starts.
    PowerLossAtWrite,
    /// A sync fails.
    SyncFails,
    /// The disk is full for a while; then the power fails.
    DiskFull,
    /// After a stop in order a bit of a file flips.
    BitFlip,
    /// After a stop in order a bit of a file flips, a part of it is zeroed or cut off, or all of it is lost.
    Rot,
    /// The node is stopped in order right after a confirmation; then a bit of the last write to the log flips.
    RotInTail,
    /// The process is killed when every publish is confirmed and the node is idle; then a bit of the last write to the log
    /// flips.
    RotAfterKill,
}

/// All faults.
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

/// A disturbance during a life, which the node has to survive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weather {
    /// Work that the node does on other threads waits long for the disk while the rest of the node goes on, and the
    /// journal's writes and syncs stall often.
    SlowDisk,
    /// No file can be opened or created for a while (EMFILE).
    TooManyFiles,
    /// Reads fail for a while (EIO).
    ReadsFail,
    /// A call that changes the disk fails (EIO, ENOSPC).
    WritesFail,
    /// The volume fills up, perhaps to the last byte, and empties again, perhaps before or during a start.
    FullVolume,
    /// The clock leaps ahead, as if the machine had been suspended.
    ClockLeaps,
    /// Clients cancel requests that are under way.
    Cancelled,
    /// Several clients change the same queue at the same time.
    Races,
    /// An auto-delete exchange is deleted with its last binding, and declared again.
    Cascades,
}

/// All kinds of weather.
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

/// The parameters of a simulation.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The number of lives before the last one, in which the queues are drained.
    pub lives: u64,
    /// The most steps in a life; the seed chooses between 1 and this number.
    pub steps: u64,
    /// The faults that may strike; the seed chooses one per life. Must not be empty.
    pub faults: Vec<Fault>,
    /// The weather that there may be; the seed chooses some of it per life.
    pub weather: Vec<Weather>,
    /// The first life, counted from 0, in which clients consume and send requests. In the lives before they only publish.
    pub consume_from: u64,
}

impl Default for Scenario {
    fn default() -> Self {
        Self { lives: 6, steps: 200, faults: FAULTS.to_vec(), weather: WEATHER.to_vec(), consume_from: 0 }
    }
}

/// The report of a simulation.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// All events, one per line.
    pub trace: Vec<String>,
    /// The number of messages published to a queue, counted once per queue.
    pub attempted: u64,
    /// The number of these that were confirmed.
    pub confirmed: u64,
    /// The number of deliveries.
    pub delivered: u64,
    /// The faults of the lives, in order.
    pub faults: Vec<Fault>,
    /// The weather of the lives, in order.
    pub weather: Vec<Weather>,
    /// The number of disk calls that the weather made fail.
    pub failed_calls: u64,
    /// The number of starts that were refused because of rot.
    pub refused: u64,
    /// The number of files in the archive, counted at the end of each life and added up.
    pub relocated: u64,
    /// The number of requests that clients cancelled before they were answered.
    pub cancelled: u64,
    /// The number of audits, in which the node is started on a copy of the disk and every message is delivered.
    pub audits: u64,
}

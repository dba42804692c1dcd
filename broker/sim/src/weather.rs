//! The weather of a life: the disturbances and the steps before which they come.
use crate::random::Random;
use crate::scenario::{Scenario, Weather};
use leveret_journal::faulty::{Call, DiskTrouble, Errno, FaultyDisk};
use std::time::Duration;

/// A disturbance.
enum Event {
    /// Some of the coming calls of the disk fail.
    Expect(DiskTrouble),
    /// From now on that many bytes of the volume are free.
    Free(u64),
    /// From now on calls of the disk take up to that long.
    Slow(Duration),
    /// The clock leaps ahead by that much.
    Leap(Duration),
}

/// The disturbances of a life, each with the step before which it comes; `None` is before the node starts.
#[derive(Default)]
pub(crate) struct Forecast(Vec<(Option<u64>, Event)>);

/// Chooses some of the weather that a scenario allows.
pub(crate) fn of_life(random: &mut Random, scenario: &Scenario) -> Vec<Weather> {
    scenario.weather.iter().copied().filter(|_| random.once_in(4)).collect()
}

impl Forecast {
    pub(crate) fn new(random: &mut Random, weather: &[Weather], steps: u64) -> Self {
        let mut events = Vec::new();
        for weather in weather {
            let times = 1 + random.below(3);
            for _ in 0..times {
                let step = (!random.once_in(4)).then(|| random.below(steps));
                events.extend(event(random, *weather).map(|event| (step, event)));
            }
        }
        Self(events)
    }

    /// Applies the disturbances that come before that step; `None` is before the start of the node. Hands `trace` a line
    /// about each.
    pub(crate) async fn strike(&mut self, step: Option<u64>, disk: &FaultyDisk, trace: impl Fn(String)) {
        let (now, later): (Vec<_>, Vec<_>) = std::mem::take(&mut self.0).into_iter().partition(|(at, _)| *at == step);
        self.0 = later;
        for (_, event) in now {
            match event {
                Event::Expect(trouble) => {
                    trace(format!("{trouble:?}"));
                    disk.expect(trouble);
                }
                Event::Free(bytes) => {
                    trace(format!("{bytes} bytes are free"));
                    disk.leave_free(bytes);
                }
                Event::Slow(time) => {
                    trace(format!("calls take up to {time:?}"));
                    disk.set_slow(time);
                }
                Event::Leap(time) => {
                    trace(format!("the clock leaps {time:?}"));
                    tokio::time::advance(time).await;
                }
            }
        }
    }
}

/// Returns a trouble in which one of the coming calls that change the disk fails.
pub(crate) fn write_trouble(random: &mut Random) -> DiskTrouble {
    let (after, error) = (random.below(30), *random.pick(&[Errno::Io, Errno::NoSpace]));
    DiskTrouble { calls: CHANGING.to_vec(), error, after, times: 1 }
}

fn event(random: &mut Random, weather: Weather) -> Option<Event> {
    let mut trouble = |calls: &[Call], errors: &[Errno], times: u64| {
        let most = *random.pick(&[3, 30, 300]);
        let error = *random.pick(errors);
        let (after, times) = (random.below(most), 1 + random.below(times));
        Some(Event::Expect(DiskTrouble { calls: calls.to_vec(), error, after, times }))
    };
    match weather {
        Weather::TooManyFiles => trouble(&Call::OPENING, &[Errno::TooManyFiles], 30),
        Weather::ReadsFail => trouble(&[Call::Read], &[Errno::Io], 10),
        Weather::WritesFail => trouble(&CHANGING, &[Errno::Io, Errno::NoSpace], 2),
        Weather::SlowDisk => Some(Event::Slow(Duration::from_millis(*random.pick(&[3, 30, 200])))),
        Weather::FullVolume => Some(Event::Free(*random.pick(&FREE))),
        Weather::ClockLeaps => Some(Event::Leap(Duration::from_secs(*random.pick(&[1, 20, 70, 120])))),
        Weather::Cancelled | Weather::Races | Weather::Cascades => None,
    }
}

/// Ends all disturbances of the disk.
pub(crate) fn clear(disk: &FaultyDisk) {
    disk.clear();
    disk.set_full(false);
    disk.leave_free(PLENTY);
}

/// The calls that change the disk.
const CHANGING: [Call; 6] = [Call::Create, Call::Rename, Call::Remove, Call::Write, Call::Sync, Call::SyncFolder];
/// The numbers of free bytes that a full volume may be left with.
const FREE: [u64; 8] = [0, 1, 100, 5_000, 1 << 20, 3 << 20, 34 << 20, PLENTY];
const PLENTY: u64 = 1 << 39;

//! What a life has to live through on the way, and when.
use crate::life::Life;
use crate::random::Random;
use crate::scenario::{Scenario, Weather};
use leveret_journal::faulty::{Call, Errno, FaultyDisk, Trouble};
use std::time::Duration;

/// Something that changes.
enum Event {
    Expect(Trouble),
    /// That many bytes of the volume are free from now on.
    Free(u64),
    Slow(Duration),
    Leap(Duration),
}

/// What comes at which step; what comes before the first one comes before the node starts.
#[derive(Default)]
pub(crate) struct Forecast(Vec<(Option<u64>, Event)>);

/// Some of the weather that a scenario allows.
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
}

fn event(random: &mut Random, weather: Weather) -> Option<Event> {
    let mut trouble = |calls: &[Call], errors: &[Errno], times: u64| {
        let most = *random.pick(&[3, 30, 300]);
        let error = *random.pick(errors);
        let (after, times) = (random.below(most), 1 + random.below(times));
        Some(Event::Expect(Trouble { calls: calls.to_vec(), error, after, times }))
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

impl Life<'_> {
    /// Lets happen what comes at that step.
    pub(crate) async fn weather_at(&mut self, step: Option<u64>) {
        let (now, later) = std::mem::take(&mut self.forecast.0).into_iter().partition(|(at, _)| *at == step);
        self.forecast.0 = later;
        let now: Vec<(Option<u64>, Event)> = now;
        for (_, event) in now {
            match event {
                Event::Expect(trouble) => {
                    self.trace(format!("{trouble:?}"));
                    self.world.disk.expect(trouble);
                }
                Event::Free(bytes) => {
                    self.trace(format!("{bytes} bytes are free"));
                    self.world.disk.leave_free(bytes);
                }
                Event::Slow(time) => {
                    self.trace(format!("calls take up to {time:?}"));
                    self.world.disk.set_slow(time);
                }
                Event::Leap(time) => {
                    self.trace(format!("the clock leaps {time:?}"));
                    tokio::time::advance(time).await;
                }
            }
        }
    }
}

/// The sky is clear again.
pub(crate) fn clear(disk: &FaultyDisk) {
    disk.clear();
    disk.set_full(false);
    disk.leave_free(PLENTY);
}

/// Calls that change something.
const CHANGING: [Call; 6] = [Call::Create, Call::Rename, Call::Remove, Call::Write, Call::Sync, Call::SyncFolder];
/// Bytes that a volume is left with.
const FREE: [u64; 8] = [0, 1, 100, 5_000, 1 << 20, 3 << 20, 34 << 20, PLENTY];
const PLENTY: u64 = 1 << 39;

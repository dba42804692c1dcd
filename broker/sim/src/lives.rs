//! The lives of a node, one after the other on the same disk, each ended by a fault.
use crate::checker::Checker;
use crate::invariants::{Circumstances, is_out_of_space, watched};
use crate::life::{End, Life, Plan, Purpose};
use crate::random::Random;
use crate::scenario::{Fault, Report, Scenario, Weather};
use crate::weather;
use crate::world::World;
use leveret_journal::Disk;
use leveret_journal::faulty::FaultyDisk;

/// Plays a scenario with the numbers that follow from `seed`, and returns a report.
///
/// # Errors
/// The first broken promise, with the seed, the faults, the weather and the last lines of the trace: 60, or as many as the
/// environment variable `LEVERET_SIM_LINES` says.
pub fn run(seed: u64, scenario: &Scenario) -> Result<Report, String> {
    let mut world = World {
        disk: FaultyDisk::new(seed ^ 0xd15c),
        random: Random::new(seed),
        checker: Checker::default(),
        report: Report::default(),
        before: None,
        number: 0,
        opened: false,
    };
    let played = world.play(scenario);
    let World { mut report, checker, .. } = world;
    let Checker { attempted, confirmed, delivered, .. } = checker;
    (report.attempted, report.confirmed, report.delivered) = (attempted, confirmed, delivered);
    played.map(|()| report.clone()).map_err(|broken| {
        let lines = std::env::var("LEVERET_SIM_LINES").ok().and_then(|lines| lines.parse().ok()).unwrap_or(LINES);
        let from = report.trace.len().saturating_sub(lines);
        let Report { faults, weather, trace, .. } = report;
        format!("seed {seed}: {broken}\nfaults: {faults:?}\nweather: {weather:?}\n{}", trace[from..].join("\n"))
    })
}

impl World {
    fn play(&mut self, scenario: &Scenario) -> Result<(), String> {
        for life in 0..scenario.lives {
            let fault = *self.random.pick(&scenario.faults);
            let weather = weather::of_life(&mut self.random, scenario);
            self.report.faults.push(fault);
            self.report.weather.extend(&weather);
            self.note(format!("life {life}: {fault:?}, {weather:?}"));
            let steps = 1 + self.random.below(scenario.steps);
            match fault {
                // A small number strikes during the start, a large one in the middle of the life.
                Fault::PowerLossAtWrite => {
                    let n = self.some_number();
                    self.disk.power_off_at_write(n);
                }
                Fault::SyncFails => {
                    let n = self.some_number();
                    self.disk.fail_at_sync(n);
                }
                _ => {}
            }
            let (failed_calls, free, opened) = (self.disk.troubles_met(), self.free(), self.opened);
            let purpose = Purpose::Play { steps, consume: life >= scenario.consume_from };
            let end = self.live(Plan { fault, weather: weather.clone(), purpose })?;
            let call_failed = self.disk.troubles_met() > failed_calls;
            self.end(&Circumstances { fault, weather: &weather, call_failed, free, opened }, &end)?;
            if matches!(fault, Fault::BitFlip | Fault::Rot | Fault::RotInTail | Fault::RotAfterKill)
                && !matches!(end, End::Refused(_) | End::Failed(_))
            {
                self.rot(fault)?;
            } else if self.opened && self.random.once_in(6) {
                self.audit()?;
            }
        }
        self.note("last life".to_owned());
        if !scenario.weather.contains(&Weather::FullVolume) {
            weather::clear(&self.disk);
        }
        let free = self.free();
        match self.live(Plan { fault: Fault::Stop, weather: Vec::new(), purpose: Purpose::Drain })? {
            End::Drained => Ok(()),
            End::Refused(reason) if !self.opened && is_out_of_space(&reason) => Ok(()),
            end => Err(format!("the last life, without a fault and with {free} bytes free, ended with {end:?}")),
        }
    }

    fn some_number(&mut self) -> u64 {
        let most = *self.random.pick(&[20, 200, 1500]);
        self.random.below(most)
    }

    /// Checks how a life ended, and does to the disk what its fault does.
    ///
    /// # Errors
    /// If the life had no reason to end like that.
    fn end(&mut self, circumstances: &Circumstances<'_>, end: &End) -> Result<(), String> {
        self.note(format!("ended with {end:?}"));
        if let Some(wrong) = circumstances.wrong(end) {
            return Err(wrong);
        }
        self.disk.clear();
        self.disk.set_full(false);
        match circumstances.fault {
            Fault::PowerLoss | Fault::PowerLossAtWrite | Fault::DiskFull => self.disk.crash(),
            Fault::SyncFails if self.random.once_in(2) => self.disk.crash(),
            _ => self.disk.end_process(),
        }
        self.disk = self.disk.clone();
        self.report.relocated += self.disk.list("archive").map_or(0, |files| files.len() as u64);
        self.report.failed_calls = self.disk.troubles_met();
        self.note(format!("disk {:08x}", self.disk.checksum()));
        Ok(())
    }

    /// Plays one life in a runtime of its own.
    ///
    /// # Errors
    /// The first broken promise; a panic of any task is one.
    pub(crate) fn live(&mut self, plan: Plan) -> Result<End, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        watched(move || {
            let end = runtime.block_on(async { Life::begin(self).live(plan).await });
            drop(runtime);
            end
        })
    }
}

/// The number of lines of the trace that a broken promise is reported with.
const LINES: usize = 60;

//! The lives of a node, one after the other on the same disk, and what ends each.
use crate::checker::Checker;
use crate::life::{End, Life, Plan, Purpose};
use crate::random::Random;
use crate::scenario::{Fault, Report, Scenario};
use leveret_journal::Disk;
use leveret_journal::faulty::FaultyDisk;

/// Plays a scenario. What a promise was broken by is the error, with the last lines of the trace (`LEVERET_SIM_LINES`).
///
/// # Errors
/// The promise that was broken.
pub fn run(seed: u64, scenario: &Scenario) -> Result<Report, String> {
    let mut world = World {
        disk: FaultyDisk::new(seed ^ 0xd15c),
        random: Random::new(seed),
        checker: Some(Checker::new(&crate::life::delivery_limits())),
        report: Report::default(),
        before: None,
        number: 0,
        declared: Vec::new(),
    };
    let played = world.play(scenario);
    let World { mut report, checker, .. } = world;
    if let Some(checker) = checker {
        (report.attempted, report.confirmed) = checker.counts();
        report.delivered = checker.delivered;
    }
    played.map(|()| report.clone()).map_err(|broken| {
        let lines = std::env::var("LEVERET_SIM_LINES").ok().and_then(|lines| lines.parse().ok()).unwrap_or(LINES);
        let from = report.trace.len().saturating_sub(lines);
        format!("seed {seed}: {broken}\nfaults: {:?}\n{}", report.faults, report.trace[from..].join("\n"))
    })
}

pub(crate) struct World {
    pub(crate) disk: FaultyDisk,
    pub(crate) random: Random,
    pub(crate) checker: Option<Checker>,
    pub(crate) report: Report,
    /// Digest and messages of each queue when the node was last stopped in order.
    pub(crate) before: Option<Vec<(u64, u64)>>,
    /// The next message's.
    pub(crate) number: u64,
    /// Queues and bindings that were declared and confirmed.
    pub(crate) declared: Vec<bool>,
}

impl World {
    fn play(&mut self, scenario: &Scenario) -> Result<(), String> {
        for life in 0..scenario.lives {
            let fault = *self.random.pick(&scenario.faults);
            self.report.faults.push(fault);
            self.note(format!("life {life}: {fault:?}"));
            let steps = 1 + self.random.below(scenario.steps);
            let plan = Plan { fault, purpose: Purpose::Play { steps, consume: scenario.consume } };
            match fault {
                // Small numbers hit a start, large ones the middle of the life.
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
            let end = self.live(plan)?;
            self.end(fault, end)?;
            if fault == Fault::BitFlip {
                self.flip()?;
            }
        }
        self.note("last life".to_owned());
        match self.live(Plan { fault: Fault::Stop, purpose: Purpose::Drain })? {
            End::Drained => Ok(()),
            end => Err(format!("the last life, without a fault, ended with {end:?}")),
        }
    }

    fn some_number(&mut self) -> u64 {
        let most = *self.random.pick(&[20, 200, 1500]);
        self.random.below(most)
    }

    /// Ends a life as its fault asks for.
    fn end(&mut self, fault: Fault, end: End) -> Result<(), String> {
        self.note(format!("ended with {end:?}"));
        match (fault, &end) {
            (_, End::Refused(_) | End::Failed(_)) if !matches!(fault, Fault::PowerLossAtWrite | Fault::SyncFails) => {
                return Err(format!("a life with {fault:?} ended with {end:?}"));
            }
            _ => {}
        }
        self.disk.set_full(false);
        match fault {
            Fault::Stop | Fault::BitFlip | Fault::Kill => self.disk.end_process(),
            Fault::SyncFails if self.random.once_in(2) => self.disk.end_process(),
            Fault::PowerLoss | Fault::PowerLossAtWrite | Fault::SyncFails | Fault::DiskFull => self.disk.crash(),
        }
        self.disk = self.disk.clone();
        self.report.relocated += self.disk.list("archive").map_or(0, |files| files.len() as u64);
        self.note(format!("disk {:08x}", self.disk.checksum()));
        Ok(())
    }

    /// Flips a bit of some file. A start that refuses has to name a file; one that does not has to have all messages but
    /// those whose bytes cannot be read. What follows goes on from the disk without the flip.
    fn flip(&mut self) -> Result<(), String> {
        let error = |error: std::io::Error| error.to_string();
        let mut files = Vec::new();
        for folder in ["wal", "groups", "archive"] {
            let names = self.disk.list(folder).map_err(error)?;
            files.extend(names.into_iter().map(|name| format!("{folder}/{name}")));
        }
        if files.is_empty() {
            return Ok(());
        }
        let name = self.random.pick(&files).clone();
        let len = self.disk.open(&name).and_then(|file| file.len()).map_err(error)?;
        if len == 0 {
            return Ok(());
        }
        let offset = self.random.below(len);
        let (disk, before) = (self.disk.clone(), self.before.clone());
        self.disk = disk.fork();
        self.disk.flip(&name, offset);
        self.note(format!("bit flipped in {name} at {offset}"));
        let end = self.live(Plan { fault: Fault::BitFlip, purpose: Purpose::Look { flipped: name.clone() } })?;
        self.note(format!("ended with {end:?}"));
        match &end {
            End::Refused(reason) if ["wal/", "groups/", "archive/"].iter().any(|folder| reason.contains(folder)) => {
                self.report.refused += 1;
            }
            End::Stopped => {}
            end => return Err(format!("with a bit flipped in {name} at {offset} a life ended with {end:?}")),
        }
        (self.disk, self.before) = (disk, before);
        Ok(())
    }

    fn live(&mut self, plan: Plan) -> Result<End, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        let end = runtime.block_on(async { Life::begin(self).live(plan).await });
        drop(runtime);
        end
    }

    pub(crate) fn note(&mut self, line: String) {
        self.report.trace.push(line);
    }
}

const LINES: usize = 60;

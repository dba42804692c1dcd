//! The simulation of a cluster with many seeds and every kind of fault.
use leveret_sim::{Broken, ClusterFault, ClusterReport, ClusterScenario, FAULT_KINDS, FaultKind, play, shorten};
use parking_lot::Mutex;
use std::collections::BTreeMap;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

/// The number of seeds that are played, unless `LEVERET_SIM_SEEDS` gives another one. `LEVERET_SIM_SEED` is the first seed,
/// `LEVERET_SIM_WITHOUT` names kinds of faults to leave out, separated by commas, and `LEVERET_SIM_NODES` is the number of nodes
/// of all clusters.
const SEEDS: u64 = 24;
/// Seeds that once broke a promise, when members were not changed in the middle.
const ONCE_BROKEN: [u64; 11] = [57, 68, 77, 83, 90, 113, 117, 132, 141, 142, 153];
/// The longest time that a seed may take.
const SEED_MAX: Duration = Duration::from_secs(900);

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn scenario(seed: u64) -> ClusterScenario {
    let without = std::env::var("LEVERET_SIM_WITHOUT").unwrap_or_default();
    let without: Vec<&str> = without.split(',').collect();
    let nodes = variable("LEVERET_SIM_NODES").map_or([3, 3, 1, 3, 5][seed as usize % 5], |nodes| nodes as usize);
    let mut scenario = ClusterScenario { nodes, ..ClusterScenario::default() };
    scenario.kinds.retain(|kind| !without.contains(&&*format!("{kind:?}")));
    scenario
}

/// Prints what the nodes log, as the environment variable `RUST_LOG` says.
fn show_log() {
    if std::env::var_os("RUST_LOG").is_some() {
        let log = tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env());
        log.with_ansi(false).without_time().with_writer(std::io::stderr).init();
    }
}

/// Ends the process if the seed takes so long that a task of a node has to be running in circles: no simulated time passes then.
fn play_in_time(seed: u64, scenario: &ClusterScenario) -> Result<ClusterReport, Box<Broken>> {
    let (played, ended) = std::sync::mpsc::channel::<()>();
    std::thread::spawn(move || {
        if ended.recv_timeout(SEED_MAX) == Err(RecvTimeoutError::Timeout) {
            eprintln!("seed {seed}: a node does not come to rest");
            std::process::abort();
        }
    });
    let outcome = play(seed, scenario);
    drop(played);
    outcome
}

/// Plays seeds on as many threads as there are processors. Returns the reports, and the broken promises in the order of
/// their seeds.
fn play_all(first: u64, seeds: u64) -> (Vec<ClusterReport>, BTreeMap<u64, Box<Broken>>) {
    let (next, kept, broken) = (AtomicU64::new(first), Mutex::new(Vec::new()), Mutex::new(BTreeMap::new()));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Relaxed);
                    if seed >= first + seeds {
                        return;
                    }
                    match play_in_time(seed, &scenario(seed)) {
                        Ok(report) => kept.lock().push(report),
                        Err(failed) => {
                            eprintln!("seed {seed}: {}", failed.promise);
                            broken.lock().insert(seed, failed);
                        }
                    }
                }
            });
        }
    });
    (kept.into_inner(), broken.into_inner())
}

fn kind(fault: &ClusterFault) -> String {
    let text = format!("{fault:?}");
    text.split('(').next().unwrap_or_default().to_owned()
}

#[test]
fn promises_hold_in_a_cluster() {
    show_log();
    let first = variable("LEVERET_SIM_SEED").unwrap_or(1);
    let seeds = variable("LEVERET_SIM_SEEDS").unwrap_or(SEEDS);
    let (reports, mut broken) = play_all(first, seeds);
    let sum = |of: fn(&ClusterReport) -> u64| reports.iter().map(of).sum::<u64>();
    let (confirmed, attempted) = (sum(|report| report.confirmed), sum(|report| report.attempted));
    let mut faults = BTreeMap::<String, u64>::new();
    for strike in reports.iter().flat_map(|report| &report.strikes) {
        *faults.entry(kind(&strike.fault)).or_default() += 1;
    }
    eprintln!(
        "simulation of clusters: {} of {seeds} seeds from {first} kept their promises in {} simulated seconds; {confirmed} of \
         {attempted} messages confirmed, {} deliveries, 0 lost; {} changes of leaders, {} comparisons of replicas; {faults:?}",
        reports.len(),
        sum(|report| report.ms) / 1000,
        sum(|report| report.delivered),
        sum(|report| report.leaders),
        sum(|report| report.compared),
    );
    if let Some((seed, failed)) = broken.pop_first() {
        // Whoever wants many lines of the story wants those of the whole plan.
        let whole = variable("LEVERET_SIM_LINES").is_some();
        let story = if whole { failed } else { shorten(failed, &scenario(seed)) };
        panic!("{} seeds broke a promise; the first: {story}", broken.len() + 1);
    }
    if seeds >= SEEDS {
        // A cluster that begins with one node is enlarged, even if no members are added otherwise.
        assert!(faults.len() >= FAULT_KINDS.len() && confirmed > 10_000, "some fault never struck: {faults:?}");
    }
}

#[test]
fn seeds_that_once_broke_a_promise_keep_it() {
    for seed in ONCE_BROKEN {
        let mut scenario = scenario(seed);
        scenario.kinds.retain(|kind| *kind != FaultKind::Members);
        if let Err(broken) = play_in_time(seed, &scenario) {
            panic!("{broken}");
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_story() {
    let story = |seed| match play(seed, &scenario(seed)) {
        Ok(report) => (report.story, report.digest),
        Err(broken) => (broken.report.story, broken.report.digest),
    };
    let first = variable("LEVERET_SIM_SEED").unwrap_or(1);
    for seed in first..first + variable("LEVERET_SIM_SEEDS").unwrap_or(SEEDS).min(3) {
        let (one, two) = (story(seed), story(seed));
        for (line, (one, two)) in one.0.iter().zip(&two.0).enumerate() {
            assert_eq!(one, two, "seed {seed}, line {line}");
        }
        assert_eq!((one.0.len(), one.1), (two.0.len(), two.1), "seed {seed}");
    }
}

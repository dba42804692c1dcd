//! The simulation of one node with many seeds, every fault and all weather.
use leveret_sim::{FAULTS, Fault, Report, Scenario, WEATHER, Weather, run};
use std::collections::BTreeMap;

/// The number of seeds that are played, unless `LEVERET_SIM_SEEDS` gives another one. `LEVERET_SIM_SEED` is the first seed,
/// and `LEVERET_SIM_WITHOUT` names faults and weather to leave out, separated by commas.
const SEEDS: u64 = 150;
/// A life beyond the last one: nothing is consumed, so queues grow.
const NEVER: u64 = 100;

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn play(seed: u64, scenario: &Scenario) -> Report {
    run(seed, scenario).unwrap_or_else(|broken| panic!("{broken}"))
}

/// Returns the scenario with all faults and weather but those to leave out.
fn all() -> Scenario {
    let without = std::env::var("LEVERET_SIM_WITHOUT").unwrap_or_default();
    let without: Vec<&str> = without.split(',').collect();
    let mut scenario = Scenario::default();
    scenario.faults.retain(|fault| !without.contains(&&*format!("{fault:?}")));
    scenario.weather.retain(|weather| !without.contains(&&*format!("{weather:?}")));
    scenario
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    // A broken promise fails the test below; here its trace only has to be the same.
    let trace = |seed| match run(seed, &all()) {
        Ok(report) => report.trace,
        Err(broken) => broken.lines().map(str::to_owned).collect(),
    };
    for seed in 1..6 {
        let (one, two) = (trace(seed), trace(seed));
        for (line, (one, two)) in one.iter().zip(&two).enumerate() {
            assert_eq!(one, two, "seed {seed}, line {line}");
        }
        assert_eq!(one.len(), two.len(), "seed {seed}");
        assert_ne!(one, trace(seed + 100));
    }
}

#[test]
fn promises_hold_whatever_happens() {
    let (mut faults, mut weathers) = (BTreeMap::<Fault, u64>::new(), BTreeMap::<Weather, u64>::new());
    let (mut total, mut broken) = (Report::default(), Vec::new());
    let first = variable("LEVERET_SIM_SEED").unwrap_or(1);
    let seeds = variable("LEVERET_SIM_SEEDS").unwrap_or(SEEDS);
    for seed in first..first + seeds {
        let consume_from = [0, 3, 0, NEVER][seed as usize % 4];
        let report = match run(seed, &Scenario { consume_from, ..all() }) {
            Ok(report) => report,
            Err(text) => {
                eprintln!("{}", text.lines().next().unwrap_or_default());
                broken.push(text);
                continue;
            }
        };
        for fault in report.faults {
            *faults.entry(fault).or_default() += 1;
        }
        for weather in report.weather {
            *weathers.entry(weather).or_default() += 1;
        }
        total.attempted += report.attempted;
        total.confirmed += report.confirmed;
        total.delivered += report.delivered;
        total.refused += report.refused;
        total.relocated += report.relocated;
        total.failed_calls += report.failed_calls;
        total.cancelled += report.cancelled;
        total.audits += report.audits;
    }
    let Report { attempted, confirmed, delivered, refused, relocated, failed_calls, cancelled, audits, .. } = total;
    eprintln!(
        "simulation: {} of {seeds} seeds from {first} kept their promises; {confirmed} of {attempted} messages confirmed, \
         {delivered} deliveries, 0 lost; {relocated} files of the archive, {failed_calls} failed calls, {cancelled} requests \
         cancelled, {audits} audits, {refused} starts refused because of rot; {faults:?}; {weathers:?}",
        seeds as usize - broken.len()
    );
    if let Some(first) = broken.first() {
        panic!("{} seeds broke a promise; the first: {first}", broken.len());
    }
    if seeds >= SEEDS {
        let all_of_it = faults.len() == FAULTS.len() && weathers.len() == WEATHER.len();
        let happened = [refused, relocated, failed_calls, cancelled, audits].iter().all(|&times| times > 0);
        assert!(all_of_it && happened && confirmed > 10_000, "some fault, weather or event never occurred");
    }
}

#[test]
fn promises_hold_with_each_fault_alone_and_without_weather() {
    for (seed, fault) in (1..).zip(FAULTS) {
        play(seed, &Scenario { faults: vec![fault], weather: Vec::new(), lives: 3, ..Scenario::default() });
    }
}

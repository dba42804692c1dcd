//! Many seeds, every fault.
use leveret_sim::{Fault, Report, Scenario, run};
use std::collections::BTreeMap;

/// Seeds that are played; `LEVERET_SIM_SEEDS` says otherwise, `LEVERET_SIM_SEED` where to begin.
const SEEDS: u64 = 150;

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn play(seed: u64, scenario: &Scenario) -> Report {
    run(seed, scenario).unwrap_or_else(|broken| panic!("{broken}"))
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 1..6 {
        let (one, two) = (play(seed, &Scenario::default()), play(seed, &Scenario::default()));
        for (line, (one, two)) in one.trace.iter().zip(&two.trace).enumerate() {
            assert_eq!(one, two, "seed {seed}, line {line}");
        }
        assert_eq!(one.trace.len(), two.trace.len(), "seed {seed}");
        assert_ne!(one.trace, play(seed + 100, &Scenario::default()).trace);
    }
}

#[test]
fn promises_hold_whatever_happens() {
    let (mut faults, mut total) = (BTreeMap::<Fault, u64>::new(), Report::default());
    let first = variable("LEVERET_SIM_SEED").unwrap_or(1);
    let seeds = variable("LEVERET_SIM_SEEDS").unwrap_or(SEEDS);
    for seed in first..first + seeds {
        let scenario = Scenario { consume: seed % 4 > 0, ..Scenario::default() };
        let report = play(seed, &scenario);
        for fault in report.faults {
            *faults.entry(fault).or_default() += 1;
        }
        total.attempted += report.attempted;
        total.confirmed += report.confirmed;
        total.delivered += report.delivered;
        total.refused += report.refused;
        total.relocated += report.relocated;
    }
    let Report { attempted, confirmed, delivered, refused, relocated, .. } = total;
    eprintln!(
        "simulation: {seeds} seeds from {first}, {confirmed} of {attempted} messages confirmed, {delivered} deliveries, \
         0 lost; {relocated} files of the archive, {refused} starts refused for a flipped bit; {faults:?}"
    );
    if seeds >= SEEDS {
        assert!(faults.len() == 7 && refused > 0 && relocated > 0 && confirmed > 10_000, "all of it happened");
    }
}

//! Mutation tests of the cluster: each switches on a defect of the broker, which the simulation of a cluster has to find. They
//! are one test function, as the switches are for the whole process.
use leveret_sim::{ClusterScenario, FaultKind, play};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

/// Plays seeds with the defects switched on until one breaks a promise that holds without them, and returns the promise.
fn found(defect: &str, switches: &[&AtomicBool], kinds: &[FaultKind]) -> String {
    found_in(defect, switches, &ClusterScenario { kinds: kinds.to_vec(), ..ClusterScenario::default() })
}

fn found_in(defect: &str, switches: &[&AtomicBool], scenario: &ClusterScenario) -> String {
    let broken = (1..=SEEDS_MAX).find_map(|seed| {
        switches.iter().for_each(|switch| switch.store(true, SeqCst));
        let broken = play(seed, scenario).err();
        switches.iter().for_each(|switch| switch.store(false, SeqCst));
        broken.filter(|_| play(seed, scenario).is_ok())
    });
    let Some(broken) = broken else { panic!("no seed finds that {defect}") };
    eprintln!("{defect}: seed {} finds that {}", broken.seed, broken.promise);
    broken.promise
}

#[test]
#[ignore = "takes minutes: `make mutants`"]
fn the_simulation_of_a_cluster_finds_each_defect() {
    let ends = [FaultKind::Kill, FaultKind::PowerLoss, FaultKind::DiskStands, FaultKind::AllLosePower];
    let powers = [FaultKind::AllLosePower, FaultKind::PowerLoss];
    let links = [FaultKind::Isolate, FaultKind::CutOneWay, FaultKind::CutBothWays, FaultKind::Reset, FaultKind::Kill];

    found("a leader that restarts leads on", &[&leveret_replication::mutants::LEADER_RESTORED], &ends);
    found(
        "messages are confirmed and applied before the sync",
        &[&leveret_journal::mutants::CONFIRM_BEFORE_SYNC],
        &powers,
    );
    found("a stale leader confirms", &[&leveret_node::mutants::STALE_LEADER_CONFIRMS], &links);
    let retries = [&leveret_node::mutants::RETRY_TAKEN, &leveret_engine::mutants::RETRY_APPLIED];
    found("a batch that is sent again is applied again", &retries, &links);
    // Leaders are spread again long after a node was stopped, when no fault has an effect any more.
    let spread = ClusterScenario { kinds: vec![FaultKind::Stop], ms: 40_000, ..ClusterScenario::default() };
    let late = "a late return makes a message ready twice";
    found_in(late, &[&leveret_engine::mutants::RETURN_WITHOUT_EPOCH], &spread);
    let votes =
        [FaultKind::DiskStands, FaultKind::PowerLoss, FaultKind::CutBothWays, FaultKind::CutOneWay, FaultKind::Kill];
    found("a vote counts before the sync", &[&leveret_replication::mutants::VOTE_UNSYNCED], &votes);
}

/// The seeds within which a defect has to be found.
const SEEDS_MAX: u64 = 100;

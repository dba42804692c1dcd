//! Mutation tests: each switches on a defect of the broker, which the simulation has to find. They are one test function,
//! as the switches are for the whole process.
use leveret_sim::{Fault, Scenario, run};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

/// Plays seeds with the defects switched on until one breaks a promise, and returns its seed and the promise.
fn found(switches: &[&AtomicBool], scenario: &Scenario) -> String {
    assert!((1..4).all(|seed| run(seed, scenario).is_ok()), "without the defect no promise is broken");
    switches.iter().for_each(|switch| switch.store(true, SeqCst));
    let broken = (1..200).find_map(|seed| run(seed, scenario).err());
    switches.iter().for_each(|switch| switch.store(false, SeqCst));
    let broken = broken.unwrap_or_else(|| panic!("no seed finds the defect with faults {:?}", scenario.faults));
    broken.lines().next().unwrap_or_default().to_owned()
}

#[test]
fn the_simulation_finds_each_defect() {
    let scenario = |fault, consume_from| Scenario {
        faults: vec![fault],
        weather: Vec::new(),
        consume_from,
        ..Scenario::default()
    };

    let text = found(&[&leveret_journal::mutants::CONFIRM_BEFORE_SYNC], &scenario(Fault::PowerLoss, 0));
    eprintln!("messages are confirmed before the sync: {text}");
    // A change of the definitions that was answered is lost, or a message that was confirmed is.
    assert!(text.contains("confirmed") || text.contains("before the start"), "{text}");

    let text = found(&[&leveret_node::mutants::RELOCATION_FORGETS], &scenario(Fault::Stop, NEVER));
    eprintln!("a relocation forgets a message: {text}");
    assert!(text.contains("still") || text.contains("lost") || text.contains("is missing"), "{text}");

    let text = found(&[&leveret_node::mutants::RELOCATION_UNNOTED], &scenario(Fault::Kill, NEVER));
    eprintln!("no snapshot knows of a relocation: {text}");
    let texts = ["not in the log", "is missing", "lack", "lost"];
    assert!(texts.iter().any(|expected| text.contains(expected)), "{text}");

    // The digest of an index reveals a missing run before the queue is served. If the digest is ignored, a message is lost.
    let forgets = &leveret_engine::mutants::SNAPSHOT_FORGETS;
    let text = found(&[forgets], &scenario(Fault::Stop, NEVER));
    eprintln!("a snapshot's index lacks a run: {text}");
    assert!(text.contains("digest"), "{text}");
    let text = found(&[forgets, &leveret_engine::mutants::DIGEST_IGNORED], &scenario(Fault::Kill, NEVER));
    eprintln!("the same, and the digest is ignored: {text}");
    assert!(!text.contains("digest of a queue") && text.contains("messages"), "{text}");
}

/// A life beyond the last one: nothing is consumed, so queues grow.
const NEVER: u64 = 100;

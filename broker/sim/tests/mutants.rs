//! Rules broken on purpose, one at a time: the simulation has to notice each. In one test, since a switch is for the whole
//! process.
use leveret_sim::{Fault, Scenario, run};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

/// What a broken rule was noticed by, and the seed; plays seeds until one notices.
fn noticed(switches: &[&AtomicBool], scenario: &Scenario) -> String {
    assert!((1..4).all(|seed| run(seed, scenario).is_ok()), "nothing is wrong with the rules kept");
    switches.iter().for_each(|switch| switch.store(true, SeqCst));
    let broken = (1..200).find_map(|seed| run(seed, scenario).err());
    switches.iter().for_each(|switch| switch.store(false, SeqCst));
    let broken = broken.unwrap_or_else(|| panic!("nothing notices with faults {:?}", scenario.faults));
    broken.lines().next().unwrap_or_default().to_owned()
}

#[test]
fn broken_rules_are_noticed() {
    let scenario = |fault, consume_from| Scenario {
        faults: vec![fault],
        weather: Vec::new(),
        consume_from,
        ..Scenario::default()
    };

    let text = noticed(&[&leveret_journal::mutants::CONFIRM_BEFORE_SYNC], &scenario(Fault::PowerLoss, 0));
    eprintln!("confirmed before the sync: {text}");
    assert!(text.contains("confirmed"), "{text}");

    let text = noticed(&[&leveret_node::mutants::RELOCATION_FORGETS], &scenario(Fault::Stop, NEVER));
    eprintln!("a relocation that forgets a message: {text}");
    assert!(text.contains("still") || text.contains("lost") || text.contains("is missing"), "{text}");

    let text = noticed(&[&leveret_node::mutants::RELOCATION_UNNOTED], &scenario(Fault::Kill, NEVER));
    eprintln!("a relocation that no snapshot knows of: {text}");
    let texts = ["not in the log", "is missing", "lack", "lost"];
    assert!(texts.iter().any(|expected| text.contains(expected)), "{text}");

    // An index that lacks a run is noticed by its digest, before anything is served; without the digest a message is lost.
    let forgets = &leveret_engine::mutants::SNAPSHOT_FORGETS;
    let text = noticed(&[forgets], &scenario(Fault::Stop, NEVER));
    eprintln!("an index that lacks a run: {text}");
    assert!(text.contains("digest"), "{text}");
    let text = noticed(&[forgets, &leveret_engine::mutants::DIGEST_IGNORED], &scenario(Fault::Kill, NEVER));
    eprintln!("the same, and the digest ignored: {text}");
    assert!(!text.contains("digest of a queue") && text.contains("messages"), "{text}");
}

/// A life that there is none of: queues grow.
const NEVER: u64 = 100;

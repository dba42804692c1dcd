//! Checks of the source tree: length and first line of files, dependencies between crates, banned crates, equality of
//! copies, links in documents; in `structure`, fields, parameters, doc comments and formats; in `names`, names of types; in
//! `circles`, files that use each other.
mod circles;
mod names;
mod structure;

use leveret_e2e::programs::root;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Returns the files with one of these endings that git tracks or that are new and not ignored.
fn files(endings: &[&str]) -> Vec<PathBuf> {
    let listed = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .expect("git lists the files");
    let text = String::from_utf8(listed.stdout).expect("file names are UTF-8");
    let has_ending = |name: &&str| endings.iter().any(|ending| name.ends_with(ending));
    let mut files: Vec<_> = text.lines().filter(has_ending).map(PathBuf::from).collect();
    files.retain(|file| root().join(file).is_file());
    assert!(!files.is_empty(), "no file ends in {endings:?}: is this a checkout?");
    files
}

fn read(file: &Path) -> String {
    std::fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn parse(file: &Path) -> syn::File {
    syn::parse_file(&read(file)).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// Returns whether a file is a part of the programs, as opposed to tests and tools for tests.
fn is_production(file: &Path) -> bool {
    let (name, is_tool) = (file.to_string_lossy(), file.starts_with("e2e") || file.starts_with("broker/sim"));
    name.contains("/src/") && !name.contains("tests") && !is_tool
}

fn fail_on(problems: Vec<String>) {
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

/// The most lines of a file, without its module of tests.
const LINES_MAX: usize = 500;

#[test]
fn files_are_short_and_begin_with_a_description() {
    let mut problems = Vec::new();
    for file in files(&[".rs"]) {
        let text = read(&file);
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let (lines, is_test) = (code.lines().count(), file.to_string_lossy().contains("tests"));
        if lines > LINES_MAX && !is_test {
            problems.push(format!("{}: {lines} lines, more than {LINES_MAX}", file.display()));
        }
        if !text.starts_with("//! ") && !text.starts_with("#![no_main]") {
            problems.push(format!("{}: does not begin with //! and a sentence that says what it is", file.display()));
        }
    }
    fail_on(problems);
}

#[test]
fn no_file_has_a_mark_for_unfinished_work() {
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X:")];
    let mut problems = Vec::new();
    for file in files(&[".rs", ".sh", ".py", ".go", ".js", ".yaml", ".tpl", ".md", ".toml"]) {
        for (number, line) in read(&file).lines().enumerate() {
            if marks.iter().any(|mark| line.contains(mark)) {
                problems.push(format!("{}:{}: {}", file.display(), number + 1, line.trim()));
            }
        }
    }
    fail_on(problems);
}

fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO")).args(arguments).current_dir(root()).output().expect("cargo runs");
    assert!(output.status.success(), "cargo {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("cargo prints UTF-8")
}

/// The crates of this workspace, each with those it may depend on.
const ARROWS: [(&str, &[&str]); 14] = [
    ("leveret-model", &[]),
    ("leveret-journal", &[]),
    ("leveret-engine", &["leveret-model"]),
    ("leveret-replication", &["leveret-journal"]),
    ("leveret-node", &["leveret-replication", "leveret-engine", "leveret-journal", "leveret-model"]),
    ("leveret-sim", &["leveret-node", "leveret-engine", "leveret-replication", "leveret-journal", "leveret-model"]),
    ("leveret-listener", &["leveret-node"]),
    ("leveret-amqp091", &["leveret-listener", "leveret-node", "leveret-model"]),
    ("leveret-management", &["leveret-listener", "leveret-node", "leveret-model"]),
    (
        "leveret",
        &[
            "leveret-model",
            "leveret-node",
            "leveret-listener",
            "leveret-amqp091",
            "leveret-management",
            "leveret-client",
        ],
    ),
    ("leveret-api", &[]),
    ("leveret-client", &[]),
    ("leveret-operator", &["leveret-api", "leveret-client"]),
    ("leveret-e2e", &["leveret-api", "leveret-client"]),
];

#[test]
fn crates_depend_only_on_the_listed_ones() {
    let metadata: Value =
        serde_json::from_str(&cargo(&["metadata", "--format-version", "1", "--no-deps"])).expect("JSON");
    let arrows = BTreeMap::from(ARROWS);
    let mut problems = Vec::new();
    for package in metadata["packages"].as_array().expect("packages") {
        let name = package["name"].as_str().unwrap_or_default();
        let Some(allowed) = arrows.get(name) else {
            problems.push(format!("{name}: a crate without an entry in ARROWS"));
            continue;
        };
        let dependencies = package["dependencies"].as_array().expect("dependencies");
        let ours = dependencies.iter().filter_map(|one| one["name"].as_str()).filter(|one| one.starts_with("leveret"));
        for other in ours.filter(|other| !allowed.contains(other)) {
            problems.push(format!("{name} depends on {other}"));
        }
    }
    fail_on(problems);
}

#[test]
fn engine_and_model_do_no_io_and_use_no_clock_or_randomness() {
    let mut problems = Vec::new();
    for file in
        files(&[".rs"]).iter().filter(|file| file.starts_with("broker/engine") || file.starts_with("broker/model"))
    {
        for (number, line) in read(file).lines().enumerate() {
            let impure = ["async ", "tokio", "std::time", "std::fs", "std::net", "std::thread", "rand::", "Instant"];
            if let Some(found) = impure.iter().find(|found| line.contains(**found)) {
                problems.push(format!("{}:{}: {found}", file.display(), number + 1));
            }
        }
    }
    fail_on(problems);
}

#[test]
fn banned_crates_are_not_in_the_programs() {
    let mut problems = Vec::new();
    for package in ["leveret", "leveret-operator"] {
        let edges = ["--edges", "normal,build", "--prefix", "none", "--format", "{p}"];
        let tree = cargo(&[&["tree", "--package", package], &edges[..]].concat());
        let names: BTreeSet<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
        let banned = ["openssl", "native-tls", "ring", "rsa"].into_iter().filter(|one| names.contains(one));
        problems.extend(banned.map(|one| format!("{package} is built with {one}")));
    }
    let manifest = read(Path::new("Cargo.toml"));
    for one in ["serde_yaml", "bincode", "dashmap", "once_cell", "lazy_static", "chrono"] {
        if manifest.lines().any(|line| line.starts_with(&format!("{one} ="))) {
            problems.push(format!("the workspace depends on {one}"));
        }
    }
    fail_on(problems);
}

#[test]
fn copies_equal_their_originals() {
    let mut problems = Vec::new();
    for (original, copy) in
        [("crds", "charts/leveret/files/crds"), ("config/dashboards", "charts/leveret/files/dashboards")]
    {
        let names = |folder: &str| -> BTreeSet<_> {
            let entries = std::fs::read_dir(root().join(folder)).expect(folder);
            entries.filter_map(|entry| Some(entry.ok()?.file_name())).collect()
        };
        if names(original) != names(copy) {
            problems.push(format!("{copy} has other files than {original}: cp {original}/* {copy}/"));
            continue;
        }
        for name in names(original) {
            if read(&Path::new(original).join(&name)) != read(&Path::new(copy).join(&name)) {
                problems.push(format!("{copy}/{0} is stale: cp {original}/{0} {copy}/", name.display()));
            }
        }
    }
    fail_on(problems);
}

#[test]
fn relative_links_in_documents_lead_to_files() {
    let mut problems = Vec::new();
    for file in files(&[".md"]) {
        let text = read(&file);
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#', ' ']).next());
        for target in targets.filter(|target| !target.is_empty() && !target.contains("://")) {
            let place = root().join(&file).parent().map(|folder| folder.join(target)).unwrap_or_default();
            if !place.try_exists().unwrap_or(false) {
                problems.push(format!("{}: the link leads to {target}, which does not exist", file.display()));
            }
        }
    }
    fail_on(problems);
}

//! Checks of the sources' structure: structs have few fields, parameters are not tuples, and doc comments do not begin with a
//! word that stands for a missing noun.
use super::{fail_on, files, is_production, parse, read};
use std::path::Path;
use syn::visit::{self, Visit};
use syn::{Fields, FnArg, Type};

/// The most fields of a struct.
const FIELDS_MAX: usize = 15;
/// Doc comments do not begin with these words: the noun that they stand for is missing.
const BEGINNINGS: [&str; 4] = ["Of ", "Its ", "Those ", "Who "];

/// Collects the problems of one file.
struct Findings<'f> {
    file: &'f Path,
    problems: Vec<String>,
}

impl Findings<'_> {
    fn add(&mut self, problem: &str) {
        self.problems.push(format!("{}: {problem}", self.file.display()));
    }
}

impl<'ast> Visit<'ast> for Findings<'_> {
    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        if let Fields::Named(fields) = &item.fields
            && fields.named.len() > FIELDS_MAX
        {
            self.add(&format!("struct {} has {} fields, more than {FIELDS_MAX}", item.ident, fields.named.len()));
        }
        visit::visit_item_struct(self, item);
    }

    fn visit_signature(&mut self, signature: &'ast syn::Signature) {
        for input in &signature.inputs {
            let FnArg::Typed(parameter) = input else { continue };
            let value = match &*parameter.ty {
                Type::Reference(reference) => &*reference.elem,
                other => other,
            };
            if matches!(value, Type::Tuple(tuple) if tuple.elems.len() > 1) {
                self.add(&format!("fn {} takes a tuple: give it a type with a name", signature.ident));
            }
        }
        visit::visit_signature(self, signature);
    }
}

#[test]
fn structs_have_few_fields_and_parameters_are_not_tuples() {
    let mut problems = Vec::new();
    for file in files(&[".rs"]).iter().filter(|file| is_production(file)) {
        let parsed = parse(file);
        let mut findings = Findings { file, problems: Vec::new() };
        findings.visit_file(&parsed);
        problems.append(&mut findings.problems);
    }
    fail_on(problems);
}

#[test]
fn doc_comments_begin_with_a_noun_or_a_verb() {
    let mut problems = Vec::new();
    for file in files(&[".rs"]) {
        let text = read(&file);
        let mut is_continued = false;
        for (number, line) in text.lines().enumerate() {
            let line = line.trim_start();
            let doc = line.strip_prefix("/// ").or(line.strip_prefix("//! "));
            if let Some(doc) = doc.filter(|_| !is_continued)
                && BEGINNINGS.iter().any(|beginning| doc.starts_with(beginning))
            {
                problems.push(problem(&file, number, doc));
            }
            is_continued = doc.is_some();
        }
    }
    fail_on(problems);
}

#[test]
fn formats_are_described_with_the_version_that_is_written() {
    let mut found = 0;
    let mut problems = Vec::new();
    for file in files(&[".rs"]).iter().filter(|file| is_production(file)) {
        let text = read(file);
        let head: Vec<_> = text.lines().map_while(|line| line.strip_prefix("//!")).map(str::trim).collect();
        let head = head.join(" ");
        for line in text.lines().filter(|line| line.contains("const ") && line.contains("VERSION: u")) {
            let Some(version) = line.rsplit_once(" = ").and_then(|(_, end)| end.strip_suffix(';')) else { continue };
            found += 1;
            let described = [format!("version u8 = {version}"), format!("version {version}")];
            if !described.iter().any(|text| head.contains(text)) {
                problems
                    .push(format!("{}: its head does not describe version {version} of the format", file.display()));
            }
        }
    }
    assert!(found > 5, "only {found} formats have a version");
    fail_on(problems);
}

fn problem(file: &Path, number: usize, doc: &str) -> String {
    format!("{}:{}: {doc}", file.display(), number + 1)
}

//! Checks that no files of a crate use each other in a circle: each can then be read knowing only those below it.
//!
//! The files that only hold modules together (`lib.rs`, `main.rs`, `mod.rs`) do not count, nor do tests.
use super::{fail_on, files, parse};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use syn::UseTree;
use syn::visit::{self, Visit};

/// A path of modules in a crate, without the crate's name.
type Module = Vec<String>;

/// Returns the folder of the crate that a source file belongs to and the path of its module; `None` if the file is not part
/// of a crate's sources.
fn module(file: &Path) -> Option<(String, Module)> {
    let name = file.to_str()?;
    let (folder, inside) = name.split_once("/src/")?;
    let path: Module = inside.strip_suffix(".rs")?.split('/').map(str::to_owned).collect();
    let holds_together = matches!(path.last()?.as_str(), "lib" | "main" | "mod");
    (!holds_together && !inside.contains("tests")).then(|| (folder.to_owned(), path))
}

/// Collects the paths that a file uses and that begin with `crate` or `super`.
struct Paths<'m> {
    module: &'m Module,
    found: BTreeSet<Module>,
}

impl Paths<'_> {
    /// Adds a path as seen from the root of the crate.
    fn add(&mut self, segments: &[String]) {
        let supers = segments.iter().take_while(|segment| *segment == "super").count();
        let from_root = match segments.first().map(String::as_str) {
            Some("crate") => segments[1..].to_vec(),
            Some("super") => {
                let base = &self.module[..self.module.len().saturating_sub(supers)];
                [base, &segments[supers..]].concat()
            }
            _ => return,
        };
        self.found.insert(from_root);
    }

    fn add_tree(&mut self, tree: &UseTree, before: &mut Vec<String>) {
        match tree {
            UseTree::Path(path) => {
                before.push(path.ident.to_string());
                self.add_tree(&path.tree, before);
                before.pop();
            }
            UseTree::Name(name) => self.add(&[&before[..], &[name.ident.to_string()]].concat()),
            UseTree::Rename(name) => self.add(&[&before[..], &[name.ident.to_string()]].concat()),
            UseTree::Glob(_) => self.add(before),
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.add_tree(tree, before)),
        }
    }
}

impl<'ast> Visit<'ast> for Paths<'_> {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if item.ident != "tests" {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.add_tree(&item.tree, &mut Vec::new());
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<_> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.add(&segments);
        visit::visit_path(self, path);
    }
}

/// Returns the modules among `known` that `paths` lead to, without `own`.
fn targets(paths: &BTreeSet<Module>, known: &BTreeMap<Module, syn::File>, own: &Module) -> BTreeSet<Module> {
    let longest =
        |path: &Module| (1..=path.len()).rev().map(|len| path[..len].to_vec()).find(|one| known.contains_key(one));
    paths.iter().filter_map(longest).filter(|found| found != own).collect()
}

/// Leaves only the modules that lie on a circle, or on a way from one circle to another.
fn keep_circles(edges: &mut BTreeMap<Module, BTreeSet<Module>>) {
    loop {
        let before = edges.len();
        let used: BTreeSet<Module> = edges.values().flatten().cloned().collect();
        edges.retain(|module, uses| !uses.is_empty() && used.contains(module));
        let left: BTreeSet<Module> = edges.keys().cloned().collect();
        edges.values_mut().for_each(|uses| uses.retain(|module| left.contains(module)));
        if edges.len() == before {
            return;
        }
    }
}

#[test]
fn files_of_a_crate_do_not_use_each_other_in_a_circle() {
    let mut crates: BTreeMap<String, BTreeMap<Module, syn::File>> = BTreeMap::new();
    for file in files(&[".rs"]) {
        if let Some((folder, module)) = module(&file) {
            crates.entry(folder).or_default().insert(module, parse(&file));
        }
    }
    let mut problems = Vec::new();
    for (folder, known) in &crates {
        let mut edges = BTreeMap::new();
        for (own, parsed) in known {
            let mut paths = Paths { module: own, found: BTreeSet::new() };
            paths.visit_file(parsed);
            edges.insert(own.clone(), targets(&paths.found, known, own));
        }
        keep_circles(&mut edges);
        for (own, uses) in edges {
            let uses: Vec<_> = uses.iter().map(|path| path.join("::")).collect();
            problems.push(format!("{folder}: {} uses {}", own.join("::"), uses.join(", ")));
        }
    }
    fail_on(problems);
}

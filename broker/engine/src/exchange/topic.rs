//! `topic`: patterns of words between dots; `*` stands for one word, `#` for any number of them, also none.
//!
//! Patterns form a trie of words. Routing walks it once a way that matches; a pattern with many `#` would make ways
//! multiply, so their number is limited, and the same node is not walked twice from the same word.
use super::remove_one;
use leveret_model::refusal::Refusal;
use std::collections::{BTreeMap, HashSet};

pub(crate) struct Topic<T> {
    /// The first is the root.
    nodes: Vec<Node<T>>,
    free: Vec<usize>,
}

struct Node<T> {
    words: BTreeMap<Box<[u8]>, usize>,
    one: Option<usize>,
    any: Option<usize>,
    /// The node is that of a `#`: it takes further words itself.
    is_any: bool,
    targets: Vec<T>,
}

impl<T> Node<T> {
    fn new(is_any: bool) -> Self {
        Self { words: BTreeMap::new(), one: None, any: None, is_any, targets: Vec::new() }
    }

    fn is_unused(&self) -> bool {
        self.words.is_empty() && self.one.is_none() && self.any.is_none() && self.targets.is_empty()
    }
}

impl<T> Default for Topic<T> {
    fn default() -> Self {
        Self { nodes: vec![Node::new(false)], free: Vec::new() }
    }
}

impl<T: Copy + PartialEq> Topic<T> {
    pub(super) fn bind(&mut self, pattern: &[u8], target: T) {
        let mut at = 0;
        for word in words(pattern) {
            at = match self.child(at, word) {
                Some(child) => child,
                None => self.add_child(at, word),
            };
        }
        self.nodes[at].targets.push(target);
    }

    pub(super) fn unbind(&mut self, pattern: &[u8], target: T) {
        let mut way = vec![0];
        for word in words(pattern) {
            let Some(child) = self.child(way[way.len() - 1], word) else { return };
            way.push(child);
        }
        remove_one(&mut self.nodes[way[way.len() - 1]].targets, &target);
        let words: Vec<&[u8]> = words(pattern).collect();
        while way.len() > 1 && self.nodes[way[way.len() - 1]].is_unused() {
            let gone = way.pop().unwrap_or_default();
            let parent = &mut self.nodes[way[way.len() - 1]];
            match words[way.len() - 1] {
                b"*" => parent.one = None,
                b"#" => parent.any = None,
                word => drop(parent.words.remove(word)),
            }
            self.free.push(gone);
        }
    }

    fn child(&self, at: usize, word: &[u8]) -> Option<usize> {
        match word {
            b"*" => self.nodes[at].one,
            b"#" => self.nodes[at].any,
            word => self.nodes[at].words.get(word).copied(),
        }
    }

    fn add_child(&mut self, at: usize, word: &[u8]) -> usize {
        let node = Node::new(word == b"#");
        let child = match self.free.pop() {
            Some(free) => {
                self.nodes[free] = node;
                free
            }
            None => {
                self.nodes.push(node);
                self.nodes.len() - 1
            }
        };
        let parent = &mut self.nodes[at];
        match word {
            b"*" => parent.one = Some(child),
            b"#" => parent.any = Some(child),
            word => drop(parent.words.insert(word.into(), child)),
        }
        child
    }

    pub(super) fn route(&self, key: &[u8], found: &mut dyn FnMut(T)) {
        let words: Vec<&[u8]> = words(key).collect();
        let mut been = HashSet::new();
        self.walk(0, &words, &mut been, found);
    }

    fn walk(&self, at: usize, rest: &[&[u8]], been: &mut HashSet<(usize, usize)>, found: &mut dyn FnMut(T)) {
        let node = &self.nodes[at];
        // Only behind a `#` can a node be reached twice with the same words left.
        if node.is_any && !been.insert((at, rest.len())) {
            return;
        }
        if let Some(any) = node.any {
            self.walk(any, rest, been, found);
        }
        let Some((word, rest)) = rest.split_first() else {
            node.targets.iter().for_each(|&target| found(target));
            return;
        };
        if node.is_any {
            self.walk(at, rest, been, found);
        }
        if let Some(one) = node.one {
            self.walk(one, rest, been, found);
        }
        if let Some(&child) = node.words.get(*word) {
            self.walk(child, rest, been, found);
        }
    }
}

/// The words between dots; an empty key has none.
fn words(key: &[u8]) -> impl Iterator<Item = &[u8]> {
    key.split(|&byte| byte == b'.').filter(|_| !key.is_empty())
}

/// Checks a pattern before it is bound.
///
/// # Errors
/// 406 for more `#` than routing can be asked to follow.
pub(crate) fn check(pattern: &[u8]) -> Result<(), Refusal> {
    let any = words(pattern).filter(|word| *word == b"#").count();
    if any > ANY_MAX {
        let pattern = String::from_utf8_lossy(pattern);
        return Err(Refusal::precondition(format!("binding key '{pattern}' has {any} words '#', more than {ANY_MAX}")));
    }
    Ok(())
}

/// Words `#` in one pattern.
const ANY_MAX: usize = 8;

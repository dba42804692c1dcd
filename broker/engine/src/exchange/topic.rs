//! `topic`: patterns of words between dots. `*` stands for one word, `#` for any number of words, including none.
//!
//! Patterns form a trie of words. A node is visited at most once per key, with the set of all places in the key at which
//! the pattern up to this node may end. The set is an array of bits, so patterns with many `#` cost no more than others,
//! and routing visits at most the nodes of the trie. The walk keeps its own stack: no recursion depends on bytes that
//! clients send.
use super::positions::Positions;
use super::steps::{Steps, TooManySteps, VISIT};
use super::targets::Targets;
use smallvec::SmallVec;
use std::collections::{BTreeMap, HashMap};

pub(crate) struct Topic<T> {
    /// The nodes of the trie; the first one is the root.
    nodes: Vec<TrieNode<T>>,
    free: Vec<u32>,
    words: Words,
}

struct TrieNode<T> {
    /// The child for `*`, or `NO_NODE`.
    one: u32,
    /// The child for `#`, or `NO_NODE`.
    any: u32,
    /// The children for other words, by the number of the word.
    words: Children,
    targets: Targets<T>,
}

enum Children {
    None,
    One { word: u32, node: u32 },
    Many(BTreeMap<u32, u32>),
}

/// The words of all patterns, numbered, so that words are compared as numbers.
#[derive(Default)]
struct Words {
    known: HashMap<Box<[u8]>, Word, foldhash::fast::RandomState>,
    free: Vec<u32>,
}

struct Word {
    number: u32,
    /// The number of edges of the trie that have the word.
    uses: u32,
}

impl<T> TrieNode<T> {
    fn new() -> Self {
        Self { one: NO_NODE, any: NO_NODE, words: Children::None, targets: Targets::None }
    }
}

impl<T: Copy + Ord> TrieNode<T> {
    fn is_unused(&self) -> bool {
        let childless = self.one == NO_NODE && self.any == NO_NODE && matches!(self.words, Children::None);
        childless && self.targets.is_empty()
    }
}

impl<T> Default for Topic<T> {
    fn default() -> Self {
        Self { nodes: vec![TrieNode::new()], free: Vec::new(), words: Words::default() }
    }
}

impl<T: Copy + Ord> Topic<T> {
    pub(super) fn bind(&mut self, pattern: &[u8], target: T) {
        let mut at = 0;
        for word in pattern_words(pattern) {
            at = match self.child(at, word) {
                Some(child) => child,
                None => self.add_child(at, word),
            };
        }
        self.nodes[at as usize].targets.add(target);
    }

    pub(super) fn unbind(&mut self, pattern: &[u8], target: T) {
        let mut way = vec![0];
        let mut at = 0;
        for word in pattern_words(pattern) {
            let Some(child) = self.child(at, word) else { return };
            way.push(child);
            at = child;
        }
        self.nodes[at as usize].targets.remove(target);
        let words: Vec<&[u8]> = pattern_words(pattern).collect();
        for depth in (1..way.len()).rev() {
            if !self.nodes[way[depth] as usize].is_unused() {
                break;
            }
            self.remove_child(way[depth - 1], words[depth - 1]);
            self.free.push(way[depth]);
        }
    }

    fn child(&self, at: u32, word: &[u8]) -> Option<u32> {
        let node = &self.nodes[at as usize];
        match word {
            b"*" => Some(node.one).filter(|&child| child != NO_NODE),
            b"#" => Some(node.any).filter(|&child| child != NO_NODE),
            word => node.words.get(self.words.known.get(word)?.number),
        }
    }

    fn add_child(&mut self, at: u32, word: &[u8]) -> u32 {
        let child = match self.free.pop() {
            Some(free) => {
                self.nodes[free as usize] = TrieNode::new();
                free
            }
            None => {
                self.nodes.push(TrieNode::new());
                (self.nodes.len() - 1) as u32
            }
        };
        let parent = &mut self.nodes[at as usize];
        match word {
            b"*" => parent.one = child,
            b"#" => parent.any = child,
            word => parent.words.insert(self.words.take(word), child),
        }
        child
    }

    fn remove_child(&mut self, at: u32, word: &[u8]) {
        let parent = &mut self.nodes[at as usize];
        match word {
            b"*" => parent.one = NO_NODE,
            b"#" => parent.any = NO_NODE,
            word => {
                if let Some(number) = self.words.give_back(word) {
                    parent.words.remove(number);
                }
            }
        }
    }

    pub(super) fn route(&self, key: &[u8], steps: &mut Steps, found: &mut dyn FnMut(T)) -> Result<(), TooManySteps> {
        let count = words(key).count();
        match count {
            0..64 => self.walk::<1>(key, count, steps, found),
            // A key has up to 255 dots, so 256 words.
            _ => self.walk::<5>(key, count.min(5 * 64 - 1), steps, found),
        }
    }

    /// Walks the trie and calls `found` with the targets of all patterns that match. `count` is the number of words of
    /// the key.
    fn walk<const N: usize>(
        &self,
        key: &[u8],
        count: usize,
        steps: &mut Steps,
        found: &mut dyn FnMut(T),
    ) -> Result<(), TooManySteps> {
        let mut known = SmallVec::new();
        if !self.words.known.is_empty() {
            steps.spend(VISIT * count)?;
            known = self.known_words::<N>(key, count);
        }
        let within = Positions::up_to(count);
        let mut waiting: SmallVec<[(u32, Positions<N>); 16]> = SmallVec::new();
        waiting.push((0, Positions::at(0)));
        while let Some((at, here)) = waiting.pop() {
            steps.spend(VISIT)?;
            let node = &self.nodes[at as usize];
            if here.contains(count) {
                steps.spend(node.targets.len())?;
                node.targets.each(found);
            }
            if node.any != NO_NODE {
                waiting.push((node.any, here.onward().and(&within)));
            }
            let next = here.next().and(&within);
            if node.one != NO_NODE && !next.is_empty() {
                waiting.push((node.one, next));
            }
            let mut go = |child: u32, known: &KnownWord<N>| {
                let next = next.and(&known.ends);
                if !next.is_empty() {
                    waiting.push((child, next));
                }
            };
            match &node.words {
                Children::None => {}
                Children::One { word, node: child } => {
                    if let Some(known) = find(&known, *word) {
                        go(*child, known);
                    }
                }
                Children::Many(children) if children.len() < known.len() => {
                    steps.spend(children.len())?;
                    for (word, child) in children {
                        if let Some(known) = find(&known, *word) {
                            go(*child, known);
                        }
                    }
                }
                Children::Many(children) => {
                    steps.spend(known.len())?;
                    for known in &known {
                        if let Some(&child) = children.get(&known.word) {
                            go(child, known);
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Returns the words of a key that occur in any pattern, in the order of their numbers.
    fn known_words<const N: usize>(&self, key: &[u8], count: usize) -> SmallVec<[KnownWord<N>; 8]> {
        let mut found: SmallVec<[KnownWord<N>; 8]> = SmallVec::new();
        for (at, word) in words(key).take(count).enumerate() {
            if let Some(word) = self.words.known.get(word) {
                found.push(KnownWord { word: word.number, ends: Positions::at(at + 1) });
            }
        }
        found.sort_unstable_by_key(|known| known.word);
        found.dedup_by(|second, first| {
            let same = second.word == first.word;
            if same {
                first.ends = first.ends.or(&second.ends);
            }
            same
        });
        found
    }
}

/// A word of a key, and the places after its occurrences.
struct KnownWord<const N: usize> {
    word: u32,
    ends: Positions<N>,
}

fn find<const N: usize>(known: &[KnownWord<N>], word: u32) -> Option<&KnownWord<N>> {
    known.binary_search_by_key(&word, |known| known.word).ok().map(|at| &known[at])
}

impl Children {
    fn get(&self, wanted: u32) -> Option<u32> {
        match self {
            Self::None => None,
            Self::One { word, node } => (*word == wanted).then_some(*node),
            Self::Many(children) => children.get(&wanted).copied(),
        }
    }

    fn insert(&mut self, word: u32, node: u32) {
        match self {
            Self::None => *self = Self::One { word, node },
            Self::One { word: other, node: its } => *self = Self::Many(BTreeMap::from([(*other, *its), (word, node)])),
            Self::Many(children) => drop(children.insert(word, node)),
        }
    }

    fn remove(&mut self, word: u32) {
        match self {
            Self::One { word: only, .. } if *only == word => *self = Self::None,
            Self::Many(children) => {
                children.remove(&word);
                if children.is_empty() {
                    *self = Self::None;
                }
            }
            _ => {}
        }
    }
}

impl Words {
    /// Counts one more use of a word. Returns the number of the word.
    fn take(&mut self, word: &[u8]) -> u32 {
        if let Some(known) = self.known.get_mut(word) {
            known.uses += 1;
            return known.number;
        }
        let number = self.free.pop().unwrap_or(self.known.len() as u32);
        self.known.insert(word.into(), Word { number, uses: 1 });
        number
    }

    /// Counts one use of a word less. Returns the number that the word had, or `None` if it is not known.
    fn give_back(&mut self, word: &[u8]) -> Option<u32> {
        let known = self.known.get_mut(word)?;
        let number = known.number;
        known.uses -= 1;
        if known.uses == 0 {
            self.known.remove(word);
            self.free.push(number);
        }
        Some(number)
    }
}

/// Returns the words between the dots; an empty key has none.
fn words(key: &[u8]) -> impl Iterator<Item = &[u8]> {
    key.split(|&byte| byte == b'.').filter(|_| !key.is_empty())
}

/// Returns the words of a pattern. Several `#` in a row are returned as one, which has the same meaning.
fn pattern_words(pattern: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut after_any = false;
    words(pattern).filter(move |word| {
        let any = *word == b"#";
        !(std::mem::replace(&mut after_any, any) && any)
    })
}

/// Returns the most nodes that a pattern may add to the trie.
pub(crate) fn nodes_of(pattern: &[u8]) -> usize {
    pattern_words(pattern).count()
}

const NO_NODE: u32 = u32::MAX;
/// The memory of a node and its edge, in bytes.
pub(crate) const NODE_BYTES: usize = 80;

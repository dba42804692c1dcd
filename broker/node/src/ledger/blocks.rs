//! The entries of a ledger by delivery tag, in blocks: memory depends on the number of outstanding deliveries only, however
//! far apart their tags are.
//!
//! A delivery goes into the newest block. A full block joins the older ones, in a tree by first tag, and is freed with its
//! last entry; a block that has lost three quarters of its entries is packed. Tags without an entry take no memory.
use std::collections::BTreeMap;

#[derive(Default)]
pub(super) struct Blocks {
    newest: Block,
    older: BTreeMap<u64, Block>,
    /// The memory of the older blocks in bytes.
    bytes: u64,
}

/// One delivery: the place of its message in the queue, and the account that it belongs to.
#[derive(Clone, Copy)]
pub(super) struct Outstanding {
    pub(super) sequence: u64,
    pub(super) offset: u32,
    /// The number of the account, or [`TAKEN`].
    pub(super) subscriber: u32,
}

#[derive(Default)]
struct Block {
    first_tag: u64,
    /// For each entry, the difference of its tag and `first_tag`; ascending.
    steps: Vec<u16>,
    entries: Vec<Outstanding>,
    /// All entries before this index were taken.
    taken_below: usize,
    /// The number of entries that were not taken.
    left: usize,
}

impl Blocks {
    /// Enters a delivery. Its tag must be higher than all tags entered before.
    #[inline]
    pub(super) fn push(&mut self, tag: u64, entry: Outstanding) {
        let newest = &mut self.newest;
        if newest.left == 0 {
            newest.begin(tag);
        } else if newest.entries.len() >= ENTRIES_MAX || tag - newest.first_tag > u64::from(u16::MAX) {
            self.set_aside(tag);
        }
        let newest = &mut self.newest;
        newest.steps.push((tag - newest.first_tag) as u16);
        newest.entries.push(entry);
        newest.left += 1;
    }

    /// Moves the newest block to the older ones and begins the next block with `tag`.
    fn set_aside(&mut self, tag: u64) {
        let next = Block { first_tag: tag, ..Block::default() };
        let mut block = std::mem::replace(&mut self.newest, next);
        self.newest.entries.reserve(block.entries.len());
        self.newest.steps.reserve(block.entries.len());
        block.pack();
        block.entries.shrink_to_fit();
        block.steps.shrink_to_fit();
        self.bytes += block.bytes();
        self.older.insert(block.first_tag, block);
    }

    /// Takes the entry of a tag; `None` if it is not outstanding.
    #[inline]
    pub(super) fn take(&mut self, tag: u64) -> Option<Outstanding> {
        if self.newest.left > 0 && tag >= self.newest.first_tag { self.newest.take(tag) } else { self.take_older(tag) }
    }

    fn take_older(&mut self, tag: u64) -> Option<Outstanding> {
        let (&first_tag, block) = self.older.range_mut(..=tag).next_back()?;
        let before = block.bytes();
        let entry = block.take(tag)?;
        block.pack();
        self.bytes = self.bytes - before + block.bytes();
        if block.left == 0 {
            self.bytes -= block.bytes();
            self.older.remove(&first_tag);
        }
        Some(entry)
    }

    /// Takes entries up to and including the tag `last`, in the order of their tags. No further block is begun once the
    /// blocks begun so far had `most` entries. Returns whether there may be more.
    pub(super) fn take_up_to(&mut self, last: u64, most: usize, taken: &mut impl FnMut(u64, Outstanding)) -> bool {
        let mut begun = 0;
        while let Some(mut oldest) = self.older.first_entry() {
            if begun >= most {
                return true;
            }
            let block = oldest.get_mut();
            begun += block.left;
            let before = block.bytes();
            block.take_up_to(last, taken);
            block.pack();
            self.bytes = self.bytes - before + block.bytes();
            if block.left > 0 {
                return false; // the remaining entries have higher tags
            }
            self.bytes -= block.bytes();
            oldest.remove();
        }
        self.newest.take_up_to(last, taken);
        false
    }

    /// Returns whether the entry of a tag is outstanding.
    pub(super) fn contains(&self, tag: u64) -> bool {
        let older = || self.older.range(..=tag).next_back().map(|(_, block)| block);
        let newest = Some(&self.newest).filter(|newest| newest.left > 0 && tag >= newest.first_tag);
        newest.or_else(older).is_some_and(|block| block.index_of(tag).is_some())
    }

    /// Returns the memory of all blocks but the newest, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Block {
    fn begin(&mut self, tag: u64) {
        self.steps.clear();
        self.entries.clear();
        (self.first_tag, self.taken_below) = (tag, 0);
    }

    /// Returns the index of the entry of a tag; `None` if it is not outstanding.
    #[inline]
    fn index_of(&self, tag: u64) -> Option<usize> {
        let step = u16::try_from(tag.checked_sub(self.first_tag)?).ok()?;
        let index = match self.steps.get(usize::from(step)) {
            Some(&found) if found == step => usize::from(step),
            _ => self.steps.binary_search(&step).ok()?,
        };
        (self.entries[index].subscriber != TAKEN).then_some(index)
    }

    #[inline]
    fn take(&mut self, tag: u64) -> Option<Outstanding> {
        let index = self.index_of(tag)?;
        let entry = self.entries[index];
        self.entries[index].subscriber = TAKEN;
        self.left -= 1;
        Some(entry)
    }

    fn take_up_to(&mut self, last: u64, taken: &mut impl FnMut(u64, Outstanding)) {
        let Some(step) = last.checked_sub(self.first_tag) else { return };
        while let Some(entry) = self.entries.get_mut(self.taken_below)
            && u64::from(self.steps[self.taken_below]) <= step
        {
            if entry.subscriber != TAKEN {
                taken(self.first_tag + u64::from(self.steps[self.taken_below]), *entry);
                entry.subscriber = TAKEN;
                self.left -= 1;
            }
            self.taken_below += 1;
        }
    }

    /// Drops the entries that were taken once they are at least three quarters of all.
    fn pack(&mut self) {
        if self.left * 4 > self.entries.len() {
            return;
        }
        let (mut steps, mut entries) = (Vec::with_capacity(self.left), Vec::with_capacity(self.left));
        for (step, entry) in self.steps.iter().zip(&self.entries).filter(|(_, entry)| entry.subscriber != TAKEN) {
            steps.push(*step);
            entries.push(*entry);
        }
        (self.steps, self.entries, self.taken_below) = (steps, entries, 0);
    }

    fn bytes(&self) -> u64 {
        let lists = self.entries.capacity() * size_of::<Outstanding>() + self.steps.capacity() * size_of::<u16>();
        (lists + size_of::<(u64, Self)>()) as u64
    }
}

/// Takes the place of the account's number in an entry that was taken.
pub(super) const TAKEN: u32 = u32::MAX;
/// The largest number of entries of a block.
const ENTRIES_MAX: usize = 512;

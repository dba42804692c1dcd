//! A list whose items are numbered in the order in which they were added. Any item may be removed, and only the remaining
//! items take memory.
//!
//! Items lie in chunks of 64 numbers. While no chunk before an item's chunk has been removed, the item is found by an
//! index, otherwise by a binary search over the chunks. Invariant: only the last chunk may be empty; it is kept for the
//! next items.
use std::collections::VecDeque;
use std::ops::Range;

pub(super) struct Numbered<T> {
    chunks: VecDeque<Chunk<T>>,
    /// The number that the next item gets.
    next: u64,
    len: usize,
    /// The number of items that the chunks have room for.
    room: usize,
}

/// The position of an item in the list, valid until an item is removed.
#[derive(Clone, Copy, Default)]
pub(super) struct Spot {
    chunk: usize,
    rank: usize,
}

struct Chunk<T> {
    /// The number of the chunk's first slot, divided by [`SLOTS`].
    key: u64,
    /// One bit for each slot, set if the slot has an item.
    present: u64,
    items: VecDeque<T>,
}

impl<T> Default for Numbered<T> {
    fn default() -> Self {
        Self { chunks: VecDeque::new(), next: 0, len: 0, room: 0 }
    }
}

impl<T> Numbered<T> {
    /// Appends an item and returns its number.
    pub(super) fn push(&mut self, item: T) -> u64 {
        let (number, key) = (self.next, self.next / SLOTS);
        match self.chunks.back_mut() {
            Some(last) if last.key == key => {}
            Some(last) if last.present == 0 => last.key = key,
            _ => self.chunks.push_back(Chunk { key, present: 0, items: VecDeque::new() }),
        }
        let at = self.chunks.len() - 1;
        let chunk = &mut self.chunks[at];
        let room = chunk.items.capacity();
        chunk.items.push_back(item);
        chunk.present |= bit(number);
        self.room = self.room + chunk.items.capacity() - room;
        self.len += 1;
        self.next += 1;
        number
    }

    /// Removes item `number` and returns it, or `None` if it is not there.
    pub(super) fn remove(&mut self, number: u64) -> Option<T> {
        let at = self.chunk_at(number / SLOTS)?;
        let is_last = at + 1 == self.chunks.len();
        let chunk = &mut self.chunks[at];
        let item = chunk.items.remove(chunk.rank(number)?);
        chunk.present &= !bit(number);
        self.len -= 1;
        if is_last {
            return item;
        }
        if chunk.present == 0 {
            self.room -= chunk.items.capacity();
            self.chunks.remove(at);
            self.shrink();
        } else {
            self.room -= chunk.shrink();
        }
        item
    }

    /// Removes all items numbered in `range`, in order, and hands each to `taken`.
    pub(super) fn remove_range(&mut self, range: Range<u64>, mut taken: impl FnMut(T)) {
        match range.end.saturating_sub(range.start) {
            0 => return,
            1 => return self.remove(range.start).into_iter().for_each(taken),
            _ => {}
        }
        let begin = self.chunks.partition_point(|chunk| (chunk.key + 1) * SLOTS <= range.start);
        let mut empty = begin..begin;
        for at in begin..self.chunks.len() {
            let chunk = &mut self.chunks[at];
            let from = chunk.key * SLOTS;
            if from >= range.end {
                break;
            }
            let slots = range.start.saturating_sub(from)..(range.end - from).min(SLOTS);
            let going = chunk.present & bits(slots);
            let rank = chunk.rank_of(going);
            chunk.items.drain(rank..rank + going.count_ones() as usize).for_each(&mut taken);
            chunk.present &= !going;
            self.len -= going.count_ones() as usize;
            if chunk.present != 0 {
                self.room -= chunk.shrink();
            } else if at + 1 < self.chunks.len() {
                empty = if empty.is_empty() { at..at + 1 } else { empty.start..at + 1 };
            }
        }
        for chunk in self.chunks.drain(empty) {
            self.room -= chunk.items.capacity();
        }
        self.shrink();
    }

    /// Frees memory that the list of chunks does not need any more.
    fn shrink(&mut self) {
        if self.chunks.capacity() > CHUNKS_KEPT && self.chunks.len() * 4 < self.chunks.capacity() {
            self.chunks.shrink_to(self.chunks.len() * 2);
        }
    }

    #[inline]
    pub(super) fn get(&self, number: u64) -> Option<&T> {
        let chunk = &self.chunks[self.chunk_at(number / SLOTS)?];
        chunk.items.get(chunk.rank(number)?)
    }

    /// Returns the spot of item `number`, which is valid until an item is removed.
    pub(super) fn spot(&self, number: u64) -> Option<Spot> {
        let chunk = self.chunk_at(number / SLOTS)?;
        Some(Spot { chunk, rank: self.chunks[chunk].rank(number)? })
    }

    /// Returns the item at a spot. This is faster than finding the item by its number.
    #[inline]
    pub(super) fn at_spot(&self, spot: Spot) -> Option<&T> {
        self.chunks.get(spot.chunk)?.items.get(spot.rank)
    }

    #[inline]
    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut T> {
        let at = self.chunk_at(number / SLOTS)?;
        let chunk = &mut self.chunks[at];
        let rank = chunk.rank(number)?;
        chunk.items.get_mut(rank)
    }

    /// Returns the oldest item and its number.
    #[inline]
    pub(super) fn front(&self) -> Option<(u64, &T)> {
        let chunk = self.chunks.front()?;
        let item = chunk.items.front()?;
        Some((chunk.key * SLOTS + u64::from(chunk.present.trailing_zeros()), item))
    }

    /// Returns the item that was added last, if it is still there.
    #[inline]
    pub(super) fn last_mut(&mut self) -> Option<&mut T> {
        let (number, chunk) = (self.next.checked_sub(1)?, self.chunks.back_mut()?);
        let is_there = chunk.key == number / SLOTS && chunk.present & bit(number) != 0;
        if is_there { chunk.items.back_mut() } else { None }
    }

    /// Returns the first item numbered `number` or higher, and its number.
    #[inline]
    pub(super) fn at_or_after(&self, number: u64) -> Option<(u64, &T)> {
        match self.get(number) {
            Some(item) => Some((number, item)),
            None => self.starting_at(number).next(),
        }
    }

    /// Returns the items numbered `number` or higher, in order.
    pub(super) fn starting_at(&self, number: u64) -> impl Iterator<Item = (u64, &T)> {
        let key = number / SLOTS;
        let at = self.chunk_at(key).unwrap_or_else(|| self.chunks.partition_point(|chunk| chunk.key < key));
        self.chunks.range(at..).flat_map(Chunk::numbered).skip_while(move |(other, _)| *other < number)
    }

    /// Returns the first item for which `reached` holds, and its number. `reached` has to hold for all items that follow
    /// it as well.
    pub(super) fn first_where(&self, reached: impl Fn(&T) -> bool) -> Option<(u64, &T)> {
        let before = |chunk: &Chunk<T>| chunk.items.back().is_some_and(|last| !reached(last));
        let chunk = self.chunks.get(self.chunks.partition_point(before))?;
        let rank = chunk.items.partition_point(|item| !reached(item));
        Some((chunk.number(rank), chunk.items.get(rank)?))
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Returns the number that the next item gets.
    #[inline]
    pub(super) fn end(&self) -> u64 {
        self.next
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.room * size_of::<T>() + self.chunks.capacity() * size_of::<Chunk<T>>()
    }

    /// Returns an empty list that goes on with the numbers of this one.
    pub(super) fn successor(&self) -> Self {
        Self { next: self.next, ..Self::default() }
    }

    /// Frees the memory that an empty list keeps.
    pub(super) fn trim(&mut self) {
        if self.len == 0 {
            *self = self.successor();
        }
    }

    #[inline]
    fn chunk_at(&self, key: u64) -> Option<usize> {
        let guess = key.checked_sub(self.chunks.front()?.key)? as usize;
        match self.chunks.get(guess) {
            Some(chunk) if chunk.key == key => Some(guess),
            _ => self.chunks.binary_search_by_key(&key, |chunk| chunk.key).ok(),
        }
    }
}

impl<T> Chunk<T> {
    /// Returns the index in `items` of the item with this number, which belongs to this chunk.
    #[inline]
    fn rank(&self, number: u64) -> Option<usize> {
        let bit = bit(number);
        (self.present & bit != 0).then(|| (self.present & (bit - 1)).count_ones() as usize)
    }

    /// Frees memory that the chunk does not need any more. Returns the number of items that this memory had room for.
    #[inline]
    fn shrink(&mut self) -> usize {
        let room = self.items.capacity();
        if self.items.len() * 4 <= room {
            self.items.shrink_to(self.items.len() * 2);
        }
        room - self.items.capacity()
    }

    /// Returns the number of items in the slots before the first of `slots`.
    fn rank_of(&self, slots: u64) -> usize {
        if slots == 0 { 0 } else { (self.present & ((1 << slots.trailing_zeros()) - 1)).count_ones() as usize }
    }

    /// Returns the number of the item with this index.
    fn number(&self, rank: usize) -> u64 {
        let rest = (0..rank).fold(self.present, |rest, _| rest & rest.wrapping_sub(1));
        self.key * SLOTS + u64::from(rest.trailing_zeros())
    }

    fn numbered(&self) -> impl Iterator<Item = (u64, &T)> {
        let mut rest = self.present;
        let numbers = std::iter::from_fn(move || {
            let slot = (rest != 0).then(|| rest.trailing_zeros())?;
            rest &= rest - 1;
            Some(self.key * SLOTS + u64::from(slot))
        });
        numbers.zip(&self.items)
    }
}

#[inline]
fn bit(number: u64) -> u64 {
    1 << (number % SLOTS)
}

/// Returns the bits of these slots of a chunk.
fn bits(slots: Range<u64>) -> u64 {
    let below = |end: u64| if end >= SLOTS { u64::MAX } else { (1 << end) - 1 };
    below(slots.end) & !below(slots.start.min(slots.end))
}

/// The number of slots in a chunk: the bits of `present`.
const SLOTS: u64 = 64;
/// The list of chunks does not shrink below this capacity.
const CHUNKS_KEPT: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[test]
    fn removed_items_take_no_memory_while_an_older_one_stays() {
        let mut list = Numbered::default();
        for number in 0..1_000_000u64 {
            assert_eq!(list.push(number), number);
            if number > 0 {
                assert_eq!(list.remove(number), Some(number));
            }
        }
        assert_eq!((list.len(), list.front(), list.at_or_after(1)), (1, Some((0, &0)), None));
        assert!(list.memory_bytes() < 16 << 10, "{}", list.memory_bytes());
        list.remove(0);
        list.trim();
        assert_eq!((list.memory_bytes(), list.push(7)), (0, 1_000_000));
    }

    #[test]
    fn a_few_remaining_items_take_little_memory() {
        let mut list = Numbered::default();
        for number in 0..1_000_000u64 {
            list.push(number);
        }
        for number in (0..1_000_000).filter(|number| number % 500 != 0) {
            list.remove(number);
        }
        assert_eq!(list.len(), 2_000);
        assert!(list.memory_bytes() < 2_000 * 200, "{}", list.memory_bytes());
    }

    proptest! {
        #[test]
        fn a_numbered_list_behaves_like_a_map(steps in prop::collection::vec((0..6u8, any::<u64>()), 1..600)) {
            let (mut list, mut model) = (Numbered::default(), BTreeMap::new());
            for (step, pick) in steps {
                let number = pick % (list.end() + 3);
                match step {
                    0..=2 => { model.insert(list.push(pick), pick); }
                    3 => prop_assert_eq!(list.remove(number), model.remove(&number)),
                    4 if pick % 7 == 0 => {
                        let range = number..number + pick / 7 % 300;
                        let mut taken = Vec::new();
                        list.remove_range(range.clone(), |item| taken.push(item));
                        prop_assert_eq!(taken, model.extract_if(range, |_, _| true).map(|(_, item)| item).collect::<Vec<_>>());
                    }
                    _ => if model.is_empty() { list.trim() },
                }
                prop_assert_eq!(list.get(number), model.get(&number));
                prop_assert_eq!(list.get_mut(number), model.get_mut(&number));
                prop_assert_eq!(list.spot(number).and_then(|spot| list.at_spot(spot)), model.get(&number));
                let rest: Vec<_> = list.starting_at(number).map(|(number, item)| (number, *item)).collect();
                let expected: Vec<_> = model.range(number..).map(|(&number, &item)| (number, item)).collect();
                prop_assert_eq!(list.at_or_after(number).map(|(number, item)| (number, *item)), expected.first().copied());
                prop_assert_eq!(rest, expected);
                prop_assert_eq!(list.front(), model.first_key_value().map(|(&number, item)| (number, item)));
                prop_assert_eq!(list.len(), model.len());
                let last = list.end().checked_sub(1);
                prop_assert_eq!(list.last_mut().copied(), last.and_then(|last| model.get(&last).copied()));
                let items: Vec<_> = list.starting_at(0).map(|(_, item)| item).collect();
                prop_assert_eq!(items, model.values().collect::<Vec<_>>());
            }
        }

        #[test]
        fn first_where_finds_the_first_such_item(gone in prop::collection::vec(0..300u64, 0..400), from in 0..320u64) {
            let mut list = Numbered::default();
            for number in 0..300u64 {
                list.push(number);
            }
            for &number in &gone {
                list.remove(number);
            }
            let expected = (from..300).find(|number| !gone.contains(number));
            prop_assert_eq!(list.first_where(|item| *item >= from).map(|(number, _)| number), expected);
        }
    }
}

//! Sequences as disjoint, ordered ranges: the messages of a queue that are settled while an older message is not.
use std::collections::BTreeMap;
use std::ops::Range;

/// The start and end of each range; adjacent ranges are merged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    /// Adds a range, which may overlap ranges that are there.
    pub(super) fn insert(&mut self, range: Range<u64>) {
        let (mut start, mut end) = (range.start, range.end);
        if start >= end {
            return;
        }
        if let Some((&before, &before_end)) = self.0.range(..=start).next_back()
            && before_end >= start
        {
            if before_end >= end {
                return;
            }
            start = before;
        }
        while let Some((&next, &next_end)) = self.0.range(start..=end).next() {
            end = end.max(next_end);
            self.0.remove(&next);
        }
        self.0.insert(start, end);
    }

    /// Returns the parts of `range` that are in none of the ranges, in order.
    pub(super) fn gaps(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let mut gaps = Vec::new();
        let mut at = range.start;
        if let Some((_, &end)) = self.0.range(..=at).next_back() {
            at = at.max(end);
        }
        for (&start, &end) in self.0.range(at..) {
            if start >= range.end {
                break;
            }
            if at < start {
                gaps.push(at..start);
            }
            at = end;
        }
        if at < range.end {
            gaps.push(at..range.end);
        }
        gaps
    }

    pub(super) fn contains(&self, sequence: u64) -> bool {
        self.0.range(..=sequence).next_back().is_some_and(|(_, &end)| end > sequence)
    }

    /// Removes all sequences below `sequence`.
    pub(super) fn remove_below(&mut self, sequence: u64) {
        while let Some(first) = self.0.first_entry()
            && *first.key() < sequence
        {
            let end = *first.get();
            if end > sequence {
                first.remove();
                self.0.insert(sequence, end);
            } else {
                first.remove();
            }
        }
    }

    /// Returns the ranges that begin at `start` or after it.
    pub(super) fn starting_at(&self, start: u64) -> impl Iterator<Item = Range<u64>> {
        self.0.range(start..).map(|(&start, &end)| start..end)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ranges_behave_like_a_list_of_booleans(steps in prop::collection::vec((0u64..60, 0u64..12, any::<bool>()), 1..40)) {
            let (mut ranges, mut plain) = (Ranges::default(), [false; 80]);
            for (start, length, forget) in steps {
                if forget {
                    ranges.remove_below(start / 4);
                    plain[..start as usize / 4].fill(false);
                } else {
                    ranges.insert(start..start + length);
                    plain[start as usize..(start + length) as usize].fill(true);
                }
                let gaps: Vec<u64> = ranges.gaps(3..70).into_iter().flatten().collect();
                let expected: Vec<u64> = (3..70).filter(|&at| !plain[at as usize]).collect();
                prop_assert_eq!(gaps, expected);
                for at in 0..80 {
                    prop_assert_eq!(ranges.contains(at), plain[at as usize]);
                }
            }
        }
    }
}

//! Sets of places between the words of a routing key: place 0 is before the first word, place n is after the n-th word.

/// A set of places below `64 * N`, as bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Positions<const N: usize>([u64; N]);

impl<const N: usize> Positions<N> {
    /// The empty set.
    pub(super) const NONE: Self = Self([0; N]);

    /// Returns the set of this one place.
    pub(super) fn at(place: usize) -> Self {
        let mut places = Self::NONE;
        places.insert(place);
        places
    }

    /// Returns the set of all places from the first to this one.
    pub(super) fn up_to(place: usize) -> Self {
        let mut places = Self::NONE;
        (0..=place).for_each(|place| places.insert(place));
        places
    }

    pub(super) fn insert(&mut self, place: usize) {
        self.0[place / 64] |= 1 << (place % 64);
    }

    #[inline]
    pub(super) fn contains(&self, place: usize) -> bool {
        self.0[place / 64] >> (place % 64) & 1 == 1
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(|&word| word == 0)
    }

    #[inline]
    pub(super) fn and(&self, other: &Self) -> Self {
        Self(std::array::from_fn(|at| self.0[at] & other.0[at]))
    }

    #[inline]
    pub(super) fn or(&self, other: &Self) -> Self {
        Self(std::array::from_fn(|at| self.0[at] | other.0[at]))
    }

    /// Returns the set in which each place has moved past the next word.
    #[inline]
    pub(super) fn next(&self) -> Self {
        Self(std::array::from_fn(|at| {
            let carried = if at == 0 { 0 } else { self.0[at - 1] >> 63 };
            self.0[at] << 1 | carried
        }))
    }

    /// Returns the first place of the set and all places after it.
    #[inline]
    pub(super) fn onward(&self) -> Self {
        let mut begun = false;
        Self(std::array::from_fn(|at| match self.0[at] {
            _ if begun => u64::MAX,
            0 => 0,
            word => {
                begun = true;
                (word & word.wrapping_neg()).wrapping_neg()
            }
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_move_and_spread_across_words() {
        let mut places = Positions::<5>::at(63);
        places.insert(200);
        assert!(places.contains(63) && places.contains(200) && !places.contains(64));
        let next = places.next();
        assert!(next.contains(64) && next.contains(201) && !next.contains(63));
        let onward = places.onward();
        assert!((63..320).all(|place| onward.contains(place)) && !onward.contains(62));
        assert!(Positions::<5>::NONE.onward().is_empty());
        assert_eq!(onward.and(&Positions::up_to(63)), Positions::at(63));
        assert_eq!(next.and(&onward).or(&places), next.or(&places));
    }
}

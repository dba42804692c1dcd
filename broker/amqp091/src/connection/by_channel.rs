//! What there is by channel number, in pages: a client may open channel 65535 and no other, and pays for a page then.

/// Values by number; a number costs nothing until a value is put near it.
pub(crate) struct ByChannel<T>(Vec<Vec<Option<T>>>);

impl<T> ByChannel<T> {
    pub(crate) fn new() -> Self {
        Self(Vec::new())
    }

    /// The place of a number, if there was ever a value near it.
    #[inline]
    pub(crate) fn get(&self, number: usize) -> Option<&Option<T>> {
        self.0.get(number / PAGE)?.get(number % PAGE)
    }

    /// The place of a number, if there was ever a value near it.
    #[inline]
    pub(crate) fn get_mut(&mut self, number: usize) -> Option<&mut Option<T>> {
        self.0.get_mut(number / PAGE)?.get_mut(number % PAGE)
    }

    /// The place of a number, made if need be.
    pub(crate) fn place(&mut self, number: usize) -> &mut Option<T> {
        let (page, at) = (number / PAGE, number % PAGE);
        if self.0.len() <= page {
            self.0.resize_with(page + 1, Vec::new);
        }
        let page = &mut self.0[page];
        if page.len() <= at {
            page.resize_with(at + 1, || None);
        }
        &mut page[at]
    }

    /// The values, by rising number.
    pub(crate) fn values(&self) -> impl Iterator<Item = &T> {
        self.0.iter().flatten().flatten()
    }
}

/// Places in a page.
const PAGE: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_high_number_costs_a_page_and_not_all_below_it() {
        let mut by_channel = ByChannel::new();
        for number in [65_535, 1, 300] {
            *by_channel.place(number) = Some(number);
        }
        assert_eq!(by_channel.values().copied().collect::<Vec<_>>(), [1, 300, 65_535]);
        assert!(by_channel.0.iter().map(Vec::capacity).sum::<usize>() <= 3 * PAGE);
        assert_eq!(
            (by_channel.get(300), by_channel.get(299), by_channel.get(9999)),
            (Some(&Some(300)), Some(&None), None)
        );
        *by_channel.get_mut(300).unwrap() = None;
        assert_eq!(by_channel.values().count(), 2);
    }
}

//! A map from channel numbers to values, in pages: a client that opens channel 65535 and no other uses one page.

/// Values by channel number. A number takes no memory until a value is put near it.
pub(crate) struct ByChannel<T> {
    /// The first page. Most clients have low channel numbers only, and these are found without looking up a page.
    first: Vec<Option<T>>,
    /// All pages; page 0 stays empty.
    pages: Vec<Vec<Option<T>>>,
}

impl<T> ByChannel<T> {
    pub(crate) fn new() -> Self {
        Self { first: Vec::new(), pages: Vec::new() }
    }

    /// Returns the place of a number, if there was ever a value near it.
    #[inline]
    pub(crate) fn get(&self, number: usize) -> Option<&Option<T>> {
        match self.first.get(number) {
            None => self.pages.get(number / PAGE)?.get(number % PAGE),
            found => found,
        }
    }

    /// Returns the place of a number, if there was ever a value near it.
    #[inline]
    pub(crate) fn get_mut(&mut self, number: usize) -> Option<&mut Option<T>> {
        match self.first.get_mut(number) {
            None => self.pages.get_mut(number / PAGE)?.get_mut(number % PAGE),
            found => found,
        }
    }

    /// Returns the place of a number, and makes it if there is none.
    pub(crate) fn place(&mut self, number: usize) -> &mut Option<T> {
        let at = number % PAGE;
        let page = match number / PAGE {
            0 => &mut self.first,
            page => {
                if self.pages.len() <= page {
                    self.pages.resize_with(page + 1, Vec::new);
                }
                &mut self.pages[page]
            }
        };
        if page.len() <= at {
            page.resize_with(at + 1, || None);
        }
        &mut page[at]
    }

    /// Removes and returns the value of a number. A page that becomes empty is freed.
    pub(crate) fn take(&mut self, number: usize) -> Option<T> {
        let taken = self.get_mut(number)?.take()?;
        if let Some(page) = self.pages.get_mut(number / PAGE)
            && page.iter().all(Option::is_none)
        {
            *page = Vec::new();
        }
        Some(taken)
    }

    /// Returns the values in ascending order of their numbers.
    pub(crate) fn values(&self) -> impl Iterator<Item = &T> {
        self.first.iter().chain(self.pages.iter().flatten()).flatten()
    }
}

/// The number of places in a page.
const PAGE: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_high_channel_number_costs_one_page() {
        let mut by_channel = ByChannel::new();
        for number in [65_535, 1, 300] {
            *by_channel.place(number) = Some(number);
        }
        assert_eq!(by_channel.values().copied().collect::<Vec<_>>(), [1, 300, 65_535]);
        assert!(by_channel.pages.iter().map(Vec::capacity).sum::<usize>() <= 2 * PAGE);
        assert_eq!(
            (by_channel.get(300), by_channel.get(299), by_channel.get(9999)),
            (Some(&Some(300)), Some(&None), None)
        );
        assert_eq!((by_channel.take(300), by_channel.take(300)), (Some(300), None));
        assert_eq!(by_channel.values().count(), 2);
    }

    #[test]
    fn channel_numbers_used_one_after_the_other_leave_no_pages() {
        let mut by_channel = ByChannel::new();
        for number in (255..65_536).step_by(256) {
            *by_channel.place(number) = Some(number);
            assert_eq!(by_channel.take(number), Some(number));
        }
        assert_eq!(by_channel.pages.iter().map(Vec::capacity).sum::<usize>(), 0);
        for number in [600, 700] {
            *by_channel.place(number) = Some(number);
        }
        assert_eq!(by_channel.take(600), Some(600));
        assert_eq!(by_channel.get(700), Some(&Some(700)), "a page that is needed stays");
    }
}

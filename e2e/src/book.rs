//! What clients saw of their messages, and what has to be true of it: everything confirmed was delivered, and nothing twice
//! without a mark.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::{self, Display, Formatter};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// The name of a message, with which its body begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MessageStamp {
    pub publisher: u64,
    pub number: u64,
}

impl Display for MessageStamp {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        write!(out, "{} {}", self.publisher, self.number)
    }
}

impl FromStr for MessageStamp {
    type Err = anyhow::Error;

    /// Reads the first two words of a text.
    fn from_str(text: &str) -> Result<Self> {
        let mut words = text.split_whitespace();
        let mut number = || words.next().with_context(|| format!("no stamp: {text}"));
        Ok(Self { publisher: number()?.parse()?, number: number()?.parse()? })
    }
}

/// What the clients saw.
#[derive(Default)]
pub struct Book {
    confirmed: HashSet<MessageStamp>,
    /// The number of deliveries of each message that were marked as redelivered, and of those that were not.
    delivered: HashMap<MessageStamp, [u64; 2]>,
    pace: BTreeMap<u64, Pace>,
}

/// The confirms of one publisher.
#[derive(Default)]
struct Pace {
    confirms: usize,
    /// When the last one came.
    last: Option<Duration>,
    /// The longest time between two of them.
    longest: Duration,
}

impl Book {
    /// Notes that a message was confirmed, `at` after some beginning.
    pub fn confirmed(&mut self, stamp: MessageStamp, at: Duration) {
        self.confirmed.insert(stamp);
        let pace = self.pace.entry(stamp.publisher).or_default();
        pace.confirms += 1;
        pace.longest = pace.longest.max(at.saturating_sub(pace.last.unwrap_or(at)));
        pace.last = Some(at);
    }

    /// Notes that a message was delivered, marked as redelivered or not.
    pub fn delivered(&mut self, stamp: MessageStamp, redelivered: bool) {
        self.delivered.entry(stamp).or_default()[usize::from(!redelivered)] += 1;
    }

    /// Returns the number of confirms that each publisher has got so far.
    pub fn confirms(&self) -> BTreeMap<u64, usize> {
        self.pace.iter().map(|(publisher, pace)| (*publisher, pace.confirms)).collect()
    }

    /// Checks that each of these publishers has got `more` confirms since [`confirms`](Self::confirms) returned `before`.
    ///
    /// # Errors
    /// If one has not.
    pub fn goes_on(&self, publishers: u64, before: &BTreeMap<u64, usize>, more: usize) -> Result<()> {
        let now = self.confirms();
        let count = |all: &BTreeMap<u64, usize>, publisher| all.get(&publisher).copied().unwrap_or(0);
        let has_more = |publisher| count(&now, publisher) >= count(before, publisher) + more;
        ensure!((0..publishers).all(has_more), "after {before:?} confirms there are only {now:?}");
        Ok(())
    }

    /// Returns the longest time in which a publisher got no confirm.
    pub fn longest_gap(&self) -> Duration {
        self.pace.values().map(|pace| pace.longest).max().unwrap_or_default()
    }

    /// Forgets the gaps before the last confirm of each publisher.
    pub fn forget_gaps(&mut self) {
        self.pace.values_mut().for_each(|pace| pace.longest = Duration::ZERO);
    }

    /// Checks that everything that was confirmed is delivered.
    ///
    /// # Errors
    /// If something is not, with the first messages that are missing.
    pub fn is_complete(&self) -> Result<()> {
        let missing: Vec<_> = self.confirmed.iter().filter(|stamp| !self.delivered.contains_key(stamp)).collect();
        let first: Vec<String> = missing.iter().take(SHOWN_MAX).map(ToString::to_string).collect();
        ensure!(
            missing.is_empty(),
            "{} of {} confirmed messages are lost: {first:?}",
            missing.len(),
            self.confirmed.len()
        );
        Ok(())
    }

    /// Checks all that has to be true at the end. Returns what happened, in words.
    ///
    /// # Errors
    /// If a confirmed message is not delivered, one is delivered again without a mark, or there are too few to tell.
    pub fn check(&self) -> Result<String> {
        self.is_complete()?;
        let doubled: Vec<_> = self.delivered.iter().filter(|(_, [_, fresh])| *fresh > 1).take(SHOWN_MAX).collect();
        ensure!(doubled.is_empty(), "delivered again without a mark: {doubled:?}");
        let confirmed = self.confirmed.len();
        ensure!(confirmed > CONFIRMED_MIN, "only {confirmed} messages were confirmed");
        let again: u64 = self.delivered.values().map(|[again, _]| again).sum();
        Ok(format!("{confirmed} confirmed, 0 lost, 0 doubled without a mark, {again} redelivered"))
    }
}

/// The most messages that an error names.
const SHOWN_MAX: usize = 20;
/// With fewer messages a test has shown nothing.
const CONFIRMED_MIN: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_is_lost_or_doubled_is_noticed() -> Result<()> {
        let stamp = |number| MessageStamp { publisher: 0, number };
        let full = || {
            let mut book = Book::default();
            for number in 0..2_000 {
                book.confirmed(stamp(number), Duration::from_millis(number));
                book.delivered(stamp(number), false);
            }
            book
        };
        let mut book = full();
        book.delivered(stamp(3), true);
        assert_eq!(book.check()?, "2000 confirmed, 0 lost, 0 doubled without a mark, 1 redelivered");
        let said = |book: &Book| book.check().map_err(|error| error.to_string());
        book.delivered(stamp(3), false);
        assert!(
            said(&book).is_err_and(|text| text.contains("without a mark: [(MessageStamp { publisher: 0, number: 3 }"))
        );
        let mut book = full();
        book.confirmed(stamp(5_000), Duration::from_secs(5));
        assert_eq!(said(&book), Err("1 of 2001 confirmed messages are lost: [\"0 5000\"]".to_owned()));
        assert_eq!(book.longest_gap(), Duration::from_millis(3_001));
        book.forget_gaps();
        book.confirmed(stamp(5_001), Duration::from_millis(5_002));
        assert_eq!(book.longest_gap(), Duration::from_millis(2));
        assert!(book.goes_on(1, &full().confirms(), 2).is_ok());
        assert!(book.goes_on(1, &full().confirms(), 3).is_err(), "there are two more");
        assert!(book.goes_on(2, &full().confirms(), 1).is_err(), "there is no second publisher");
        assert!(said(&Book::default()).is_err());
        assert_eq!("7 9   padding".parse::<MessageStamp>()?, MessageStamp { publisher: 7, number: 9 });
        assert!("7".parse::<MessageStamp>().is_err());
        Ok(())
    }
}

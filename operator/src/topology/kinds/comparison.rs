//! The comparison of a wanted object with the one that is on the broker, and the words for the differences.
use leveret_client::Arguments;

/// The result of comparing a wanted object with the one on the broker.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Comparison {
    /// The broker has no such object.
    Missing,
    /// The object is as wanted; for a queue with its numbers.
    Equal(Option<Numbers>),
    /// The broker has an object of that identity that differs.
    Different {
        /// The fields that differ, in words.
        fields: String,
        /// The way to get the wanted object, if the resource may change the existing one.
        correction: Correction,
    },
}

impl Comparison {
    /// Returns the comparison with an existing object. `differences` are the parts that differ, in words, and
    /// `correction` is called only if there are some.
    pub(super) fn of(
        differences: [Option<String>; 2],
        numbers: Option<Numbers>,
        correction: impl FnOnce() -> Correction,
    ) -> Self {
        let fields: Vec<_> = differences.into_iter().flatten().collect();
        if fields.is_empty() {
            return Self::Equal(numbers);
        }
        Self::Different { fields: fields.join(", "), correction: correction() }
    }
}

/// The way to bring an object that differs back to what is wanted. A kind whose objects can be changed while they exist
/// adds a variant for that here, and `drift::decide` then has to handle it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Correction {
    /// Delete the object and declare it anew: nobody loses anything.
    Replace,
    /// Leave the object as it is, because replacing it would take something from its users. The text says what.
    Wait(String),
}

/// The numbers of a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Numbers {
    /// Messages that wait for a consumer.
    pub(crate) ready: i64,
    /// Messages that were delivered and are not acknowledged yet.
    pub(crate) unacked: i64,
    pub(crate) consumers: i64,
}

/// A field of an object, as it is wanted and as the broker has it.
pub(super) struct Field {
    name: &'static str,
    wanted: String,
    actual: String,
}

impl Field {
    pub(super) fn new(name: &'static str, wanted: impl ToString, actual: impl ToString) -> Self {
        Self { name, wanted: wanted.to_string(), actual: actual.to_string() }
    }
}

/// Returns the fields that differ, in words, or `None` if all are equal.
pub(super) fn differing_fields(fields: &[Field]) -> Option<String> {
    let different = fields.iter().filter(|field| field.wanted != field.actual);
    let named: Vec<_> =
        different.map(|Field { name, wanted, actual }| format!("{name} is {actual} there, not {wanted}")).collect();
    (!named.is_empty()).then(|| named.join(", "))
}

/// Returns the arguments that differ, in words, or `None` if all are equal.
pub(super) fn differing_arguments(wanted: &Arguments, actual: &Arguments) -> Option<String> {
    let changed = wanted.iter().filter(|(name, value)| actual.get(*name) != Some(value)).map(|(name, value)| {
        let actual = actual.get(name).map_or_else(|| "not set".to_owned(), ToString::to_string);
        format!("argument {name} is {actual} there, not {value}")
    });
    let further = actual.iter().filter(|(name, _)| !wanted.contains_key(*name));
    let named: Vec<_> =
        changed.chain(further.map(|(name, value)| format!("argument {name} is {value} there, not unset"))).collect();
    (!named.is_empty()).then(|| named.join(", "))
}

//! `headers`: the arguments of a binding are compared with the headers of a message (RabbitMQ: `x-match`).
use super::steps::{Steps, TooManySteps, VISIT};
use leveret_model::refusal::Refusal;
use leveret_model::table::{FieldTable, FieldValue};
use std::cell::OnceCell;
use std::collections::BTreeMap;

/// The bindings, by their target and the identity of their arguments.
pub(crate) struct Headers<T>(BTreeMap<(T, Box<[u8]>), Alike>);

/// Bindings that differ only in their keys, which this type does not use.
struct Alike {
    arguments: FieldTable,
    bindings: u32,
}

impl<T> Default for Headers<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T: Copy + Ord> Headers<T> {
    pub(super) fn bind(&mut self, arguments: &FieldTable, target: T) {
        let alike = self.0.entry((target, arguments.identity().into()));
        alike.or_insert_with(|| Alike { arguments: arguments.clone(), bindings: 0 }).bindings += 1;
    }

    pub(super) fn unbind(&mut self, arguments: &FieldTable, target: T) {
        let key = (target, arguments.identity().into());
        if let Some(alike) = self.0.get_mut(&key) {
            alike.bindings -= 1;
            if alike.bindings == 0 {
                self.0.remove(&key);
            }
        }
    }

    pub(super) fn route(
        &self,
        headers: &SentHeaders<'_>,
        steps: &mut Steps,
        found: &mut dyn FnMut(T),
    ) -> Result<(), TooManySteps> {
        if self.0.is_empty() {
            return steps.spend(1);
        }
        headers.prepare(steps)?;
        for ((target, _), Alike { arguments, .. }) in &self.0 {
            steps.spend(VISIT * (1 + arguments.len()))?;
            if matches(arguments, headers) {
                found(*target);
            }
        }
        Ok(())
    }
}

/// The headers of a message. One header is looked up per argument of each binding of each exchange that the message
/// visits.
pub(crate) struct SentHeaders<'h> {
    headers: Option<&'h FieldTable>,
    /// If there are many headers, the first value of each name, sorted when the first exchange needs it.
    by_name: OnceCell<BTreeMap<&'h str, &'h FieldValue>>,
}

impl<'h> SentHeaders<'h> {
    pub(crate) fn new(headers: Option<&'h FieldTable>) -> Self {
        Self { headers, by_name: OnceCell::new() }
    }

    /// Sorts the headers if there are many, once per message.
    fn prepare(&self, steps: &mut Steps) -> Result<(), TooManySteps> {
        let Some(headers) = self.headers.filter(|headers| headers.len() > FEW) else { return Ok(()) };
        if self.by_name.get().is_none() {
            steps.spend(VISIT * headers.len())?;
            self.by_name.get_or_init(|| {
                let mut first = BTreeMap::new();
                for (name, value) in headers.iter() {
                    first.entry(name).or_insert(value);
                }
                first
            });
        }
        Ok(())
    }

    fn get(&self, name: &str) -> Option<&FieldValue> {
        match self.by_name.get() {
            Some(first) => first.get(name).copied(),
            None => self.headers?.get(name),
        }
    }
}

/// Returns whether all (or any, as `x-match` says) of a binding's arguments are among the headers. A void argument
/// requires only that the header is present; names that begin with `x-` count only with `all-with-x` and `any-with-x`.
fn matches(arguments: &FieldTable, headers: &SentHeaders<'_>) -> bool {
    let mode = arguments.get(MATCH).and_then(FieldValue::as_str).unwrap_or("all");
    let with_x = mode.ends_with("-with-x");
    let mut asked = arguments.iter().filter(|(name, _)| *name != MATCH && (with_x || !name.starts_with("x-")));
    let has = |(name, wanted): (&str, &FieldValue)| match (headers.get(name), wanted) {
        (None, _) => false,
        (Some(_), FieldValue::Void) => true,
        (Some(value), wanted) => equal(value, wanted),
    };
    if mode.starts_with("any") { asked.any(has) } else { asked.all(has) }
}

/// Returns whether two values are equal. Numbers are compared by value, whatever their types (RabbitMQ: as Erlang's `==`
/// does).
fn equal(value: &FieldValue, wanted: &FieldValue) -> bool {
    match (value.as_integer(), wanted.as_integer()) {
        (Some(value), Some(wanted)) => value == wanted,
        (Some(integer), None) => as_float(wanted).is_some_and(|float| is_integer(float, integer)),
        (None, Some(integer)) => as_float(value).is_some_and(|float| is_integer(float, integer)),
        (None, None) => match (as_float(value), as_float(wanted)) {
            (Some(value), Some(wanted)) => value == wanted,
            _ => value == wanted,
        },
    }
}

fn as_float(value: &FieldValue) -> Option<f64> {
    match value {
        FieldValue::Float(value) => Some(f64::from(*value)),
        FieldValue::Double(value) => Some(*value),
        _ => None,
    }
}

/// Returns whether a float has exactly the value of an integer, also where integers are more precise than floats.
fn is_integer(float: f64, integer: i64) -> bool {
    float.fract() == 0.0 && float as i128 == i128::from(integer)
}

/// Checks the arguments of a binding that is to be made.
///
/// # Errors
/// 406 for an `x-match` that is none of the four values.
pub(crate) fn check(arguments: &FieldTable) -> Result<(), Refusal> {
    let refused = |found: String| {
        let expected = "expected all, any, all-with-x or any-with-x";
        Err(Refusal::precondition(format!("invalid x-match field value {found}; {expected}")))
    };
    match arguments.get(MATCH) {
        None => Ok(()),
        Some(value) => match value.as_str() {
            Some("all" | "any" | "all-with-x" | "any-with-x") => Ok(()),
            _ => refused(value.to_string()),
        },
    }
}

const MATCH: &str = "x-match";
/// Up to this many headers are searched one by one.
const FEW: usize = 8;

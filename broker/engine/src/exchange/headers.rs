//! `headers`: the binding's arguments are compared with the message's headers (RabbitMQ: `x-match`).
use leveret_model::refusal::Refusal;
use leveret_model::table::{FieldTable, FieldValue};

pub(crate) struct Headers<T>(Vec<(FieldTable, T)>);

impl<T> Default for Headers<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Copy + PartialEq> Headers<T> {
    pub(super) fn bind(&mut self, arguments: &FieldTable, target: T) {
        self.0.push((arguments.clone(), target));
    }

    pub(super) fn unbind(&mut self, arguments: &FieldTable, target: T) {
        if let Some(at) = self.0.iter().position(|(other, bound)| other == arguments && *bound == target) {
            self.0.remove(at);
        }
    }

    pub(super) fn route(&self, headers: Option<&FieldTable>, found: &mut dyn FnMut(T)) {
        let none = FieldTable::default();
        let headers = headers.unwrap_or(&none);
        for (arguments, target) in &self.0 {
            if matches(arguments, headers) {
                found(*target);
            }
        }
    }
}

/// Whether all (or any) of a binding's arguments are among the headers. A void argument asks for presence alone; names
/// that begin with `x-` count only with `all-with-x` and `any-with-x`.
fn matches(arguments: &FieldTable, headers: &FieldTable) -> bool {
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

/// Equal values; integers of different widths are compared as numbers.
fn equal(value: &FieldValue, wanted: &FieldValue) -> bool {
    match (value.as_integer(), wanted.as_integer()) {
        (Some(value), Some(wanted)) => value == wanted,
        _ => value == wanted,
    }
}

/// Checks the arguments of a binding before it is made.
///
/// # Errors
/// 406 for an `x-match` that is none of the four.
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

//! The arguments of queues and exchanges, parsed once into settings.
//!
//! Each argument is one [`ArgumentRow`]: its name, how its value is read, and how its setting is shown. Refusing an
//! argument, comparing a declaration with an earlier one, and reading arguments back from the log are loops over the
//! rows, so a new argument is a row, a field of the settings, and the rule that uses the field. The arguments
//! themselves are kept beside the settings as they were declared: they are listed and logged in this form.
//!
//! An argument of a queue or exchange that begins with `x-` would change how the queue or exchange behaves. It is refused
//! unless it has a row, or has no effect in RabbitMQ 4 either.
use super::refusals::Subject;
use leveret_model::refusal::Refusal;
use leveret_model::table::{FieldTable, FieldValue};
use std::borrow::Cow;
use std::fmt;

/// The settings that follow from the arguments of a queue. An argument that was not given is `None`, so that the settings
/// can be merged with those from other sources.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueSettings {
    /// `x-queue-type`
    pub queue_type: QueueType,
    /// `x-delivery-limit` of a quorum queue.
    pub delivery_limit: Option<DeliveryLimit>,
}

/// `x-queue-type`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QueueType {
    /// `classic`, also if the argument is not given.
    #[default]
    Classic,
    /// `quorum`
    Quorum,
}

/// The number of times that a message may be returned to its queue before it is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryLimit {
    /// -1: any number of times.
    Unlimited,
    /// This number of times.
    Times(u32),
}

/// The settings that follow from the arguments of an exchange.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExchangeSettings {
    /// `alternate-exchange`: the exchange for messages that no binding takes.
    pub alternate: Option<Box<str>>,
}

/// One argument.
struct ArgumentRow<S> {
    name: &'static str,
    /// Returns whether the argument exists at all for an object with the settings that were read so far.
    applies: fn(&S) -> bool,
    /// Reads a value into the settings, or returns what is wrong with it.
    parse: fn(&mut S, &FieldValue) -> Result<(), String>,
    /// Returns the setting as a refusal shows it, or `None` if the argument was not given. Equal settings give equal
    /// texts.
    show: fn(&S) -> Option<Cow<'_, str>>,
}

/// The order matters: the type decides which of the other arguments apply.
const QUEUE: [ArgumentRow<QueueSettings>; 2] = [
    ArgumentRow {
        name: "x-queue-type",
        applies: |_| true,
        parse: |settings, value| {
            settings.queue_type = match value.as_str() {
                Some("classic") => QueueType::Classic,
                Some("quorum") => QueueType::Quorum,
                Some(other) => return Err(format!("\"unsupported queue type '{other}'\"")),
                None => return Err(format!("{value} is no string")),
            };
            Ok(())
        },
        show: |settings| Some(settings.queue_type.name().into()),
    },
    ArgumentRow {
        name: "x-delivery-limit",
        applies: |settings| settings.queue_type == QueueType::Quorum,
        parse: |settings, value| {
            settings.delivery_limit = match value.as_integer().map(|limit| (limit, u32::try_from(limit))) {
                Some((-1, _)) => Some(DeliveryLimit::Unlimited),
                Some((_, Ok(times))) => Some(DeliveryLimit::Times(times)),
                _ => return Err(format!("{value} is not a number from -1 on")),
            };
            Ok(())
        },
        show: |settings| match settings.delivery_limit? {
            DeliveryLimit::Unlimited => Some("-1".into()),
            DeliveryLimit::Times(times) => Some(times.to_string().into()),
        },
    },
];

const EXCHANGE: [ArgumentRow<ExchangeSettings>; 1] = [ArgumentRow {
    name: "alternate-exchange",
    applies: |_| true,
    parse: |settings, value| {
        settings.alternate = Some(value.as_str().ok_or_else(|| format!("{value} is no string"))?.into());
        Ok(())
    },
    show: |settings| settings.alternate.as_deref().map(Cow::from),
}];

impl QueueSettings {
    /// Reads the arguments of a declaration.
    ///
    /// # Errors
    /// 406 naming an argument that is not supported or has an invalid value.
    pub(super) fn parse(queue: Subject<'_>, arguments: &FieldTable) -> Result<Self, Refusal> {
        parse(&QUEUE, is_idle, queue, arguments)
    }

    /// Reads arguments that were accepted earlier, as they are in the log.
    pub(super) fn of_accepted(arguments: &FieldTable) -> Self {
        read(&QUEUE, arguments)
    }

    /// Checks that a further declaration has the same settings as `declared`.
    ///
    /// # Errors
    /// 406 naming the first argument that differs from the existing declaration.
    pub(super) fn check_equal(&self, queue: Subject<'_>, declared: &Self) -> Result<(), Refusal> {
        check_equal(&QUEUE, queue, self, declared)
    }

    /// Returns how often a message may be returned before it is dropped; `None` for any number of times. A quorum queue
    /// has a limit of 20 unless its declaration gives another one.
    #[must_use]
    pub fn returns_max(&self) -> Option<u32> {
        match (self.queue_type, self.delivery_limit) {
            (QueueType::Classic, _) | (_, Some(DeliveryLimit::Unlimited)) => None,
            (QueueType::Quorum, Some(DeliveryLimit::Times(times))) => Some(times),
            (QueueType::Quorum, None) => Some(DELIVERY_LIMIT),
        }
    }
}

impl ExchangeSettings {
    /// Reads the arguments of a declaration.
    ///
    /// # Errors
    /// 406 naming an argument that is not supported or has an invalid value.
    pub(super) fn parse(exchange: Subject<'_>, arguments: &FieldTable) -> Result<Self, Refusal> {
        parse(&EXCHANGE, |_| false, exchange, arguments)
    }

    /// Reads arguments that were accepted earlier, as they are in the log.
    pub(super) fn of_accepted(arguments: &FieldTable) -> Self {
        read(&EXCHANGE, arguments)
    }

    /// Checks that a further declaration has the same settings as `declared`.
    ///
    /// # Errors
    /// 406 naming the first argument that differs from the existing declaration.
    pub(super) fn check_equal(&self, exchange: Subject<'_>, declared: &Self) -> Result<(), Refusal> {
        check_equal(&EXCHANGE, exchange, self, declared)
    }
}

impl QueueType {
    /// Returns the name that clients use.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Classic => "classic",
            Self::Quorum => "quorum",
        }
    }
}

impl fmt::Display for QueueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Returns the names of the arguments of a queue that are accepted and change nothing, as in RabbitMQ 4: they chose how
/// classic queues were stored and mirrored.
pub fn idle_arguments(arguments: &FieldTable) -> impl Iterator<Item = &str> {
    arguments.iter().map(|(name, _)| name).filter(|name| is_idle(name))
}

fn is_idle(argument: &str) -> bool {
    matches!(argument, "x-queue-mode" | "x-queue-version") || argument.starts_with("x-ha-")
}

fn parse<S: Default + Clone>(
    rows: &[ArgumentRow<S>],
    is_idle: fn(&str) -> bool,
    subject: Subject<'_>,
    arguments: &FieldTable,
) -> Result<S, Refusal> {
    let settings = read(rows, arguments);
    for (name, value) in arguments.iter() {
        match rows.iter().find(|row| row.name == name && (row.applies)(&settings)) {
            Some(row) => (row.parse)(&mut settings.clone(), value).map_err(|why| subject.invalid(name, why))?,
            None if name.starts_with("x-") && !is_idle(name) => return Err(subject.invalid(name, "not supported")),
            None => {}
        }
    }
    Ok(settings)
}

/// Reads all values that are valid. If an argument is given more than once, the first one counts.
fn read<S: Default>(rows: &[ArgumentRow<S>], arguments: &FieldTable) -> S {
    let mut settings = S::default();
    for row in rows {
        if let Some(value) = arguments.get(row.name).filter(|_| (row.applies)(&settings)) {
            let _ = (row.parse)(&mut settings, value); // values that cannot be read are refused by `parse`
        }
    }
    settings
}

fn check_equal<S>(rows: &[ArgumentRow<S>], subject: Subject<'_>, received: &S, current: &S) -> Result<(), Refusal> {
    for row in rows {
        let (received, current) = ((row.show)(received), (row.show)(current));
        if received != current {
            let shown = |setting: Option<Cow<'_, str>>| setting.unwrap_or("none".into()).into_owned();
            return Err(subject.inequivalent(row.name, shown(received), shown(current)));
        }
    }
    Ok(())
}

/// The delivery limit of a quorum queue whose declaration gives none, as in RabbitMQ 4.
const DELIVERY_LIMIT: u32 = 20;

//! Texts of the refusals that several declarations share, worded as RabbitMQ words them.
use leveret_model::refusal::{Refusal, RefusalKind};
use std::fmt;

/// The queue or exchange that a refusal is about.
#[derive(Clone, Copy)]
pub(super) struct Subject<'a> {
    kind: &'static str,
    vhost: &'a str,
    name: &'a str,
}

impl<'a> Subject<'a> {
    pub(super) fn queue(vhost: &'a str, name: &'a str) -> Self {
        Self { kind: "queue", vhost, name }
    }

    pub(super) fn exchange(vhost: &'a str, name: &'a str) -> Self {
        Self { kind: "exchange", vhost, name }
    }

    /// Returns the 406 for a declaration that differs from the existing one.
    pub(super) fn inequivalent(
        self,
        argument: &str,
        received: impl fmt::Display,
        current: impl fmt::Display,
    ) -> Refusal {
        Refusal::precondition(format!(
            "inequivalent arg '{argument}' for {self}: received '{received}' but current is '{current}'"
        ))
    }

    /// Returns the 406 for an argument with an invalid value.
    pub(super) fn invalid(self, argument: &str, why: impl fmt::Display) -> Refusal {
        Refusal::precondition(format!("invalid arg '{argument}' for {self}: {why}"))
    }

    /// Returns the 405 for a queue that belongs to another connection.
    pub(super) fn locked(self) -> Refusal {
        let text = format!(
            "cannot obtain exclusive access to locked {self}. It could be originally declared on another connection or the \
             exclusive property value does not match that of the original declaration."
        );
        Refusal::new(RefusalKind::ResourceLocked, text)
    }
}

impl fmt::Display for Subject<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} '{}' in vhost '{}'", self.kind, self.name, self.vhost)
    }
}

/// Returns the 403 for a check or a change of the default exchange.
#[must_use]
pub fn on_default_exchange() -> Refusal {
    Refusal::new(RefusalKind::AccessRefused, "operation not permitted on the default exchange".to_owned())
}

//! Events: what happened to an object, for people who look at it.
use super::Context;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType};
use std::borrow::Cow;

/// The contents of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Notice {
    pub(crate) is_warning: bool,
    /// One word for programs.
    pub(crate) reason: Cow<'static, str>,
    /// A sentence for people.
    pub(crate) message: Cow<'static, str>,
}

impl Notice {
    pub(crate) fn normal(reason: impl Into<Cow<'static, str>>, message: impl Into<Cow<'static, str>>) -> Self {
        Self { is_warning: false, reason: reason.into(), message: message.into() }
    }

    pub(crate) fn warning(reason: impl Into<Cow<'static, str>>, message: impl Into<Cow<'static, str>>) -> Self {
        Self { is_warning: true, ..Self::normal(reason, message) }
    }
}

impl Context {
    /// Records an event. An event that cannot be recorded is only logged.
    pub(crate) async fn event(&self, about: &ObjectReference, notice: Notice) {
        let type_ = if notice.is_warning { EventType::Warning } else { EventType::Normal };
        let (reason, action) = (notice.reason.into_owned(), "Reconcile".to_owned());
        let note = Some(notice.message.chars().take(CHARACTERS_MAX).collect());
        let event = Event { type_, reason, note, action, secondary: None };
        // Only warnings are repeated and therefore counted; the recorder keeps a copy of each event for the count.
        let one_time;
        let recorder = if notice.is_warning {
            &self.recorder
        } else {
            one_time = self.one_time_recorder();
            &one_time
        };
        match recorder.publish(&event, about).await {
            // A namespace that is being deleted takes no new events.
            Err(kube::Error::Api(refusal)) if refusal.message.contains("being terminated") => {}
            Err(error) => tracing::warn!("cannot record an event: {error}"),
            Ok(()) => {}
        }
    }
}

/// The longest note of an event, in characters; the API server allows 1024 bytes.
const CHARACTERS_MAX: usize = 1000;

//! Events: what happened to an object, for those who look at it.
use super::Context;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType};

impl Context {
    /// Records an event; that it cannot be recorded is worth a line in the log, no more.
    pub(crate) async fn event(&self, about: &ObjectReference, is_warning: bool, reason: &str, note: String) {
        let type_ = if is_warning { EventType::Warning } else { EventType::Normal };
        let (reason, action) = (reason.to_owned(), "Reconcile".to_owned());
        let note = Some(note.chars().take(1000).collect());
        let event = Event { type_, reason, note, action, secondary: None };
        // Only warnings come again and again, and are counted; the recorder keeps a copy of each for that.
        let once;
        let recorder = if is_warning {
            &self.recorder
        } else {
            once = self.one_time_recorder();
            &once
        };
        match recorder.publish(&event, about).await {
            // In a namespace that goes there is nothing to be recorded any more.
            Err(kube::Error::Api(refusal)) if refusal.message.contains("being terminated") => {}
            Err(error) => tracing::warn!("cannot record an event: {error}"),
            Ok(()) => {}
        }
    }
}

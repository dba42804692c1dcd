//! What any operator needs of Kubernetes; nothing here knows the product.
pub(crate) mod apply;
pub(crate) mod child;
pub(crate) mod conditions;
pub(crate) mod events;
#[cfg(test)]
pub(crate) mod fake;
pub(crate) mod guard;
pub(crate) mod limit;
pub(crate) mod quantity;
pub(crate) mod scope;
pub(crate) mod unreadable;

use crate::pulse::Pulse;
use kube::Client;
use kube::runtime::events::{Recorder, Reporter};

/// How the cluster is spoken to.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) recorder: Recorder,
    reporter: Reporter,
    pub(crate) scope: scope::Scope,
    pub(crate) metrics: crate::metrics::Metrics,
    pub(crate) pulse: Pulse,
}

impl Context {
    pub(crate) fn new(
        client: Client,
        namespaces: Vec<String>,
        instance: &str,
        metrics: crate::metrics::Metrics,
    ) -> Self {
        let reporter = Reporter { controller: MANAGER.to_owned(), instance: Some(instance.to_owned()) };
        let recorder = Recorder::new(client.clone(), reporter.clone());
        Self { client, recorder, reporter, scope: scope::Scope(namespaces), metrics, pulse: Pulse::default() }
    }

    /// A recorder for an event that will not come again.
    fn one_time_recorder(&self) -> Recorder {
        Recorder::new(self.client.clone(), self.reporter.clone())
    }
}

/// Who owns the fields that are written.
pub(crate) const MANAGER: &str = "leveret-operator";

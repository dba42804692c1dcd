//! The parts that any operator needs: nothing here knows the product.
pub(crate) mod apply;
pub(crate) mod child;
pub(crate) mod conditions;
pub(crate) mod events;
#[cfg(test)]
pub(crate) mod fake;
pub(crate) mod guard;
pub(crate) mod limit;
pub(crate) mod place;
pub(crate) mod quantity;
pub(crate) mod scope;
pub(crate) mod unreadable;

use crate::watchdog::Watchdog;
use kube::Client;
use kube::api::{DeleteParams, Preconditions};
use kube::runtime::events::{Recorder, Reporter};

/// The access to the cluster, and the health and metrics of the operator itself.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) recorder: Recorder,
    reporter: Reporter,
    pub(crate) scope: scope::Scope,
    pub(crate) metrics: crate::metrics::Metrics,
    pub(crate) watchdog: Watchdog,
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
        Self { client, recorder, reporter, scope: scope::Scope(namespaces), metrics, watchdog: Watchdog::default() }
    }

    /// Returns a recorder for an event that will not be repeated.
    fn one_time_recorder(&self) -> Recorder {
        Recorder::new(self.client.clone(), self.reporter.clone())
    }
}

/// Returns the parameters that delete an object only if it is still the one with this uid.
pub(crate) fn only(uid: Option<String>) -> DeleteParams {
    DeleteParams { preconditions: Some(Preconditions { uid, ..Preconditions::default() }), ..DeleteParams::default() }
}

/// The field manager of everything that the operator writes.
pub(crate) const MANAGER: &str = "leveret-operator";

//! What all routes share: the broker, and what is kept to answer from.
use crate::Bounds;
use crate::login::Logins;
use crate::rates::Rates;
use axum::extract::FromRef;
use leveret_node::Broker;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct Api(Arc<Shared>);

/// See [`Api`].
pub(crate) struct Shared {
    pub(crate) broker: Broker,
    pub(crate) bounds: Bounds,
    pub(crate) rates: Rates,
    pub(crate) logins: Logins,
    /// Taken while a list is sorted.
    pub(crate) sorting: Arc<Semaphore>,
    /// Taken while a sorted list that is sent whole is read: it is kept until then.
    pub(crate) kept: Arc<Semaphore>,
    /// Taken while a piece of a long answer is made: clients of long answers have a bounded part of this thread.
    pub(crate) making: Arc<Semaphore>,
}

impl Api {
    pub(crate) fn new(broker: Broker, bounds: Bounds) -> Self {
        let (rates, logins) = (Rates::default(), Logins::new(bounds.login_delay));
        let [sorting, kept, making] = [SORTED_MAX, KEPT_MAX, MAKING_MAX].map(|max| Arc::new(Semaphore::new(max)));
        Self(Arc::new(Shared { broker, bounds, rates, logins, sorting, kept, making }))
    }
}

impl std::ops::Deref for Api {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl FromRef<Api> for Broker {
    fn from_ref(api: &Api) -> Self {
        api.broker.clone()
    }
}

/// Lists that are sorted at once.
const SORTED_MAX: usize = 2;
/// Sorted lists kept at once because their clients have not read them: 503 beyond.
const KEPT_MAX: usize = 8;
/// Pieces of long answers made at once.
const MAKING_MAX: usize = 8;

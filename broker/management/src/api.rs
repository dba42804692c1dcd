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
    /// Lists that are sorted are held whole: few at a time.
    pub(crate) sorting: Arc<Semaphore>,
}

impl Api {
    pub(crate) fn new(broker: Broker, bounds: Bounds) -> Self {
        let (rates, logins) = (Rates::default(), Logins::new(bounds.login_delay));
        Self(Arc::new(Shared { broker, bounds, rates, logins, sorting: Arc::new(Semaphore::new(SORTED_MAX)) }))
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

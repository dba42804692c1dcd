//! The state that all routes of one listener share: the broker, the bounds, rates and logins, and the permits that bound
//! expensive work.
use crate::Bounds;
use crate::figures::KnownFigures;
use crate::login::LoginDelays;
use crate::rates::Rates;
use axum::extract::FromRef;
use leveret_node::Broker;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// A handle on the shared state of a listener; cheap to clone.
#[derive(Clone)]
pub(crate) struct Api(Arc<Shared>);

/// The state behind an [`Api`].
pub(crate) struct Shared {
    pub(crate) broker: Broker,
    pub(crate) bounds: Bounds,
    pub(crate) rates: Rates,
    pub(crate) figures: KnownFigures,
    pub(crate) logins: LoginDelays,
    /// Permits for sorting a list. A request holds one while it collects, sorts and begins to answer.
    pub(crate) sort_permits: Arc<Semaphore>,
    /// Permits for keeping a sorted, unpaged list in memory. An answer holds one until its client has read all of it.
    pub(crate) sorted_list_permits: Arc<Semaphore>,
    /// Permits for making a piece of a long answer. They bound the share of this thread that clients of long answers get.
    pub(crate) piece_permits: Arc<Semaphore>,
}

impl Api {
    pub(crate) fn new(broker: Broker, bounds: Bounds) -> Self {
        let (rates, logins) = (Rates::default(), LoginDelays::new(bounds.login_delay));
        let [sort_permits, sorted_list_permits, piece_permits] =
            [SORTS_MAX, SORTED_LISTS_MAX, PIECES_MAX].map(|max| Arc::new(Semaphore::new(max)));
        let figures = KnownFigures::default();
        Self(Arc::new(Shared {
            broker,
            bounds,
            rates,
            figures,
            logins,
            sort_permits,
            sorted_list_permits,
            piece_permits,
        }))
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

/// The most lists that are sorted at the same time; further requests wait.
const SORTS_MAX: usize = 2;
/// The most sorted lists that are kept at the same time for clients that have not read them yet; beyond it 503 is answered.
const SORTED_LISTS_MAX: usize = 8;
/// The most pieces of long answers that are made at the same time.
const PIECES_MAX: usize = 8;

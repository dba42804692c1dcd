//! The topology: declares exchanges, queues and bindings on their brokers, as resources describe them. The core does
//! not depend on Kubernetes and serves `apply DIR` as well.
//!
//! In the order of a pass over one broker (`reconcile`): `resource` (the object that is wanted, and by which resource),
//! `conflict` (which resource owns it), `drift` and `deletion` (what has to be done: pure), `kinds` (one file per kind,
//! the only code that knows a kind), `outcome` (what to report). With Kubernetes: `watch` and `view` enter resources
//! (`cluster_resource`) into the `index`, a `worker` per broker makes passes, `report` and `memory` decide what is
//! written to the resources.
#[cfg(feature = "kubernetes")]
mod cluster_resource;
mod conflict;
mod deletion;
mod drift;
#[cfg(feature = "kubernetes")]
mod index;
pub(crate) mod kinds;
#[cfg(feature = "kubernetes")]
mod memory;
pub(crate) mod outcome;
pub(crate) mod reconcile;
#[cfg(feature = "kubernetes")]
mod report;
pub(crate) mod resource;
#[cfg(test)]
mod tests;
#[cfg(feature = "kubernetes")]
mod view;
#[cfg(feature = "kubernetes")]
pub(crate) mod watch;
#[cfg(feature = "kubernetes")]
mod worker;

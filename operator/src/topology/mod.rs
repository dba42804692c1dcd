//! Exchanges, queues and bindings become objects inside a broker. The core knows no Kubernetes: it serves the operator
//! and `apply DIR` alike.
//!
//! In the order of a pass over one broker: `object` (what is wanted), `conflict` (who may have it), `reconcile` (what is
//! there, what is to be done, doing it), `kinds` (the only code that knows a kind), `deletion`, `outcome` (what to
//! report). `watch` and `worker` bring it to Kubernetes.
mod conflict;
mod deletion;
pub(crate) mod kinds;
pub(crate) mod object;
pub(crate) mod outcome;
pub(crate) mod reconcile;
#[cfg(test)]
mod tests;
#[cfg(feature = "kubernetes")]
pub(crate) mod watch;
#[cfg(feature = "kubernetes")]
mod worker;

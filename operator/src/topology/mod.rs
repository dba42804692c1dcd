//! Exchanges, queues and bindings become objects inside a broker. The core knows no Kubernetes: it serves the operator
//! and `apply DIR` alike.
//!
//! In the order of a pass over one broker (`reconcile`): `object` (what is wanted), `conflict` (who may have it), `drift`
//! and `deletion` (what is to be done: pure), `kinds` (the only code that knows a kind), `outcome` (what to report).
//! `watch`, `index`, `worker` and `memory` bring it to Kubernetes.
mod conflict;
mod deletion;
mod drift;
#[cfg(feature = "kubernetes")]
mod index;
pub(crate) mod kinds;
#[cfg(feature = "kubernetes")]
mod memory;
pub(crate) mod object;
pub(crate) mod outcome;
pub(crate) mod reconcile;
#[cfg(test)]
mod tests;
#[cfg(feature = "kubernetes")]
pub(crate) mod watch;
#[cfg(feature = "kubernetes")]
mod worker;

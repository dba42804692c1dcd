//! Leader election over a `Lease` (coordination.k8s.io/v1): only one of several operators works at a time.
//!
//! The holder renews the lease. The others check four times per second whether it has expired or was given up. Each
//! uses its own clock only: a lease has expired if the observer has not seen it change for its whole duration, so that
//! clocks of different machines are never compared. A holder gives the lease up on exit, and another operator takes
//! over at once. A holder cannot give the lease up if its rights were removed before it ended. Therefore a holder also
//! counts as ended when its pod is gone and it has missed a renewal.
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// A candidate for a lease.
pub(crate) struct Election {
    api: Api<Lease>,
    /// The pods of the operators; an identity is the name of a pod.
    pods: Api<Pod>,
    /// The name of the lease: operators that share it are replicas of each other.
    name: String,
    identity: String,
    /// The last change of the lease that was observed.
    observed: Option<LeaseVersion>,
}

/// A version of the lease.
struct LeaseVersion {
    version: Option<String>,
    /// When this operator first saw the version.
    since: Instant,
}

/// The holder of the lease after an attempt to take or renew it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Holder {
    /// This operator.
    Own,
    /// Another operator: its identity.
    Other(String),
}

impl Election {
    pub(crate) fn new(client: Client, namespace: &str, name: &str, identity: &str) -> Self {
        let (api, pods) = (Api::namespaced(client.clone(), namespace), Api::namespaced(client, namespace));
        Self { api, pods, name: name.to_owned(), identity: identity.to_owned(), observed: None }
    }

    /// Waits until this operator holds the lease. Returns false if `stop` is cancelled first.
    pub(crate) async fn acquire(&mut self, stop: &CancellationToken) -> bool {
        let mut logged = None;
        loop {
            match self.attempt().await {
                Ok(Holder::Own) => return true,
                Ok(Holder::Other(holder)) => {
                    if logged.as_ref() != Some(&holder) {
                        tracing::info!(lease = self.name, "waits to lead: {holder} does");
                        logged = Some(holder);
                    }
                }
                Err(error) => tracing::warn!("cannot ask for the lease: {error}"),
            }
            tokio::select! {
                () = tokio::time::sleep(RETRY) => {}
                () = stop.cancelled() => return false,
            }
        }
    }

    /// Renews the lease until it is lost or `stop` is cancelled. Returns whether it was lost.
    pub(crate) async fn keep(&mut self, stop: &CancellationToken) -> bool {
        let mut renewed = Instant::now();
        loop {
            // The lease is lost when it could not be renewed for too long, not only at the end of the next attempt.
            let left = GIVE_UP.saturating_sub(renewed.elapsed());
            tokio::select! {
                () = tokio::time::sleep(RENEW.min(left)) => {}
                () = stop.cancelled() => return false,
            }
            let asked = Instant::now();
            let left = GIVE_UP.saturating_sub(renewed.elapsed());
            match tokio::time::timeout(RENEW.min(left), self.attempt()).await {
                Ok(Ok(Holder::Own)) => renewed = asked,
                Ok(Ok(Holder::Other(_))) => return true,
                Ok(Err(error)) => tracing::warn!("cannot renew the lease: {error}"),
                Err(_) => tracing::warn!("cannot renew the lease: the API server does not answer"),
            }
            if renewed.elapsed() >= GIVE_UP {
                return true;
            }
        }
    }

    async fn attempt(&mut self) -> kube::Result<Holder> {
        let Some(lease) = self.api.get_opt(&self.name).await? else {
            return self.write(self.wanted(None), true).await;
        };
        let version = lease.metadata.resource_version.clone();
        if self.observed.as_ref().is_none_or(|observed| observed.version != version) {
            self.observed = Some(LeaseVersion { version, since: Instant::now() });
        }
        let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.clone()).unwrap_or_default();
        let unchanged_since = self.observed.as_ref().map_or_else(Instant::now, |observed| observed.since);
        let is_free = holder == self.identity || holder.is_empty() || unchanged_since.elapsed() > DURATION;
        if is_free || unchanged_since.elapsed() > MISSED && self.has_ended(&holder).await {
            return self.write(self.wanted(Some(lease)), false).await;
        }
        Ok(Holder::Other(holder))
    }

    /// Returns whether the pod of a holder is gone. An operator that may not read pods waits until the lease has expired.
    async fn has_ended(&self, holder: &str) -> bool {
        matches!(self.pods.get_opt(holder).await, Ok(None))
    }

    /// Returns the lease with this operator as its holder.
    fn wanted(&self, current: Option<Lease>) -> Lease {
        let now = MicroTime(k8s_openapi::jiff::Timestamp::now());
        let mut lease = current.unwrap_or_else(|| Lease {
            metadata: ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() },
            ..Lease::default()
        });
        let spec = lease.spec.get_or_insert_with(LeaseSpec::default);
        if spec.holder_identity.as_deref() != Some(&self.identity) {
            spec.holder_identity = Some(self.identity.clone());
            spec.acquire_time = Some(now.clone());
            spec.lease_transitions = Some(spec.lease_transitions.unwrap_or(0) + 1);
        }
        spec.lease_duration_seconds = Some(DURATION.as_secs() as i32);
        spec.renew_time = Some(now);
        lease
    }

    /// Writes the lease, unless it has changed since it was read.
    async fn write(&self, lease: Lease, is_new: bool) -> kube::Result<Holder> {
        let written = if is_new {
            self.api.create(&PostParams::default(), &lease).await
        } else {
            self.api.replace(&self.name, &PostParams::default(), &lease).await
        };
        match written {
            Ok(_) => Ok(Holder::Own),
            Err(kube::Error::Api(refusal)) if refusal.code == 409 => Ok(Holder::Other("another".to_owned())),
            Err(error) => Err(error),
        }
    }

    /// Gives the lease up, so that another operator takes over at once. To be called only after all work has ended.
    pub(crate) async fn release(&self) {
        let Ok(Some(mut lease)) = self.api.get_opt(&self.name).await else { return };
        let Some(spec) = &mut lease.spec else { return };
        if spec.holder_identity.as_deref() == Some(&self.identity) {
            spec.holder_identity = None;
            if let Err(error) = self.api.replace(&self.name, &PostParams::default(), &lease).await {
                tracing::warn!("cannot give the lease up: {error}");
            }
        }
    }
}

/// How long a lease is valid after its last renewal.
const DURATION: Duration = Duration::from_secs(15);
/// How often the holder renews the lease.
const RENEW: Duration = Duration::from_secs(3);
/// A holder that has not renewed the lease for this long has missed at least one renewal.
const MISSED: Duration = Duration::from_secs(4);
/// How often the others check the lease.
const RETRY: Duration = Duration::from_millis(250);
/// A holder that could not renew the lease for this long stops working. Together with the time that its work has to end
/// ([`crate::start::DRAIN_MAX`]) this is shorter than [`DURATION`], after which another operator may begin.
const GIVE_UP: Duration = Duration::from_secs(8);

#[cfg(test)]
#[path = "lease_tests.rs"]
mod tests;

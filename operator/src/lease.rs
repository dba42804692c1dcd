//! Leader election over a `Lease` (coordination.k8s.io/v1): of several operators one works.
//!
//! The holder renews it; who does not hold it looks four times a second whether it has run out or was given up. Time is that of
//! whoever looks: a lease has run out when it has not changed for its whole duration under one's own eyes, so clocks of
//! different machines are never compared. On exit it is given up, and the next one takes over at once. One that could not
//! give it up, since its rights were taken away before it ended, is noticed by its pod: a holder whose pod is gone and that
//! has missed a renewal has ended.
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// A lease, and who wants it.
pub(crate) struct Election {
    api: Api<Lease>,
    /// Where the operators' pods are; an identity is the name of one.
    pods: Api<Pod>,
    /// Name of the lease: operators that share it are one another's replicas.
    name: String,
    identity: String,
    /// What the lease looked like when it last changed, and when that was.
    observed: Option<(Option<String>, Instant)>,
}

/// Whether the lease is ours after a try.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Attempt {
    Held,
    /// Another has it: who.
    Others(String),
}

impl Election {
    pub(crate) fn new(client: Client, namespace: &str, name: &str, identity: &str) -> Self {
        let (api, pods) = (Api::namespaced(client.clone(), namespace), Api::namespaced(client, namespace));
        Self { api, pods, name: name.to_owned(), identity: identity.to_owned(), observed: None }
    }

    /// Waits until the lease is ours. False when `stop` comes first.
    pub(crate) async fn acquire(&mut self, stop: &CancellationToken) -> bool {
        let mut told = None;
        loop {
            match self.attempt().await {
                Ok(Attempt::Held) => return true,
                Ok(Attempt::Others(holder)) => {
                    if told.as_ref() != Some(&holder) {
                        tracing::info!(lease = self.name, "waits to lead: {holder} does");
                        told = Some(holder);
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

    /// Keeps the lease until it is lost, or `stop` comes. Whether it was lost.
    pub(crate) async fn keep(&mut self, stop: &CancellationToken) -> bool {
        let mut renewed = Instant::now();
        loop {
            // It is lost at the moment at which it could not be renewed for too long, not at the end of the next try.
            let left = GIVE_UP.saturating_sub(renewed.elapsed());
            tokio::select! {
                () = tokio::time::sleep(RENEW.min(left)) => {}
                () = stop.cancelled() => return false,
            }
            let asked = Instant::now();
            let left = GIVE_UP.saturating_sub(renewed.elapsed());
            match tokio::time::timeout(RENEW.min(left), self.attempt()).await {
                Ok(Ok(Attempt::Held)) => renewed = asked,
                Ok(Ok(Attempt::Others(_))) => return true,
                Ok(Err(error)) => tracing::warn!("cannot renew the lease: {error}"),
                Err(_) => tracing::warn!("cannot renew the lease: the API server does not answer"),
            }
            if renewed.elapsed() >= GIVE_UP {
                return true;
            }
        }
    }

    async fn attempt(&mut self) -> kube::Result<Attempt> {
        let Some(lease) = self.api.get_opt(&self.name).await? else {
            return self.write(self.wanted(None), true).await;
        };
        let version = lease.metadata.resource_version.clone();
        if self.observed.as_ref().is_none_or(|(seen, _)| *seen != version) {
            self.observed = Some((version, Instant::now()));
        }
        let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.clone()).unwrap_or_default();
        let unchanged_since = self.observed.as_ref().map_or_else(Instant::now, |(_, since)| *since);
        let is_free = holder == self.identity || holder.is_empty() || unchanged_since.elapsed() > DURATION;
        if is_free || unchanged_since.elapsed() > MISSED && self.has_ended(&holder).await {
            return self.write(self.wanted(Some(lease)), false).await;
        }
        Ok(Attempt::Others(holder))
    }

    /// Whether there is no pod of that name any more. Who may not look at pods waits until the lease has run out.
    async fn has_ended(&self, holder: &str) -> bool {
        matches!(self.pods.get_opt(holder).await, Ok(None))
    }

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

    /// Writes the lease unless it has changed since it was read.
    async fn write(&self, lease: Lease, is_new: bool) -> kube::Result<Attempt> {
        let written = if is_new {
            self.api.create(&PostParams::default(), &lease).await
        } else {
            self.api.replace(&self.name, &PostParams::default(), &lease).await
        };
        match written {
            Ok(_) => Ok(Attempt::Held),
            Err(kube::Error::Api(refusal)) if refusal.code == 409 => Ok(Attempt::Others("another".to_owned())),
            Err(error) => Err(error),
        }
    }

    /// Gives the lease up, once all work has ended: the next one takes over at once.
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

const DURATION: Duration = Duration::from_secs(15);
const RENEW: Duration = Duration::from_secs(3);
/// A holder that has not renewed for so long has missed at least one renewal.
const MISSED: Duration = Duration::from_secs(4);
const RETRY: Duration = Duration::from_millis(250);
/// A holder that could not renew for so long stops working: with the time that its work has to end
/// ([`crate::start::DRAIN_MAX`]), before another may begin.
const GIVE_UP: Duration = Duration::from_secs(8);

#[cfg(test)]
#[path = "lease_tests.rs"]
mod tests;

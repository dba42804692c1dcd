//! Leader election over a `Lease` (coordination.k8s.io/v1): of several operators one works.
//!
//! The holder renews it; who does not hold it looks four times a second whether it has run out or was given up. Time is that of
//! whoever looks: a lease has run out when it has not changed for its whole duration under one's own eyes, so clocks of
//! different machines are never compared. On exit it is given up, and the next one takes over at once.
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// A lease, and who wants it.
pub(crate) struct Election {
    api: Api<Lease>,
    identity: String,
    /// What the lease looked like when it last changed, and when that was.
    observed: Option<(Option<String>, Instant)>,
}

/// Whether the lease is ours after a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attempt {
    Held,
    Others,
}

impl Election {
    pub(crate) fn new(client: Client, namespace: &str, identity: &str) -> Self {
        Self { api: Api::namespaced(client, namespace), identity: identity.to_owned(), observed: None }
    }

    /// Waits until the lease is ours. False when `stop` comes first.
    pub(crate) async fn acquire(&mut self, stop: &CancellationToken) -> bool {
        loop {
            match self.attempt().await {
                Ok(Attempt::Held) => return true,
                Ok(Attempt::Others) => {}
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
            tokio::select! {
                () = tokio::time::sleep(RENEW) => {}
                () = stop.cancelled() => return false,
            }
            let asked = Instant::now();
            match tokio::time::timeout(RENEW, self.attempt()).await {
                Ok(Ok(Attempt::Held)) => renewed = asked,
                Ok(Ok(Attempt::Others)) => return true,
                Ok(Err(error)) => tracing::warn!("cannot renew the lease: {error}"),
                Err(_) => tracing::warn!("cannot renew the lease: the API server does not answer"),
            }
            if renewed.elapsed() > GIVE_UP {
                return true;
            }
        }
    }

    async fn attempt(&mut self) -> kube::Result<Attempt> {
        let Some(lease) = self.api.get_opt(NAME).await? else {
            return self.write(self.wanted(None), true).await;
        };
        let version = lease.metadata.resource_version.clone();
        if self.observed.as_ref().is_none_or(|(seen, _)| *seen != version) {
            self.observed = Some((version, Instant::now()));
        }
        let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.clone()).unwrap_or_default();
        let unchanged_since = self.observed.as_ref().map_or_else(Instant::now, |(_, since)| *since);
        if holder == self.identity || holder.is_empty() || unchanged_since.elapsed() > DURATION {
            return self.write(self.wanted(Some(lease)), false).await;
        }
        Ok(Attempt::Others)
    }

    fn wanted(&self, current: Option<Lease>) -> Lease {
        let now = MicroTime(k8s_openapi::jiff::Timestamp::now());
        let mut lease = current.unwrap_or_else(|| Lease {
            metadata: ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() },
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
            self.api.replace(NAME, &PostParams::default(), &lease).await
        };
        match written {
            Ok(_) => Ok(Attempt::Held),
            Err(kube::Error::Api(refusal)) if refusal.code == 409 => Ok(Attempt::Others),
            Err(error) => Err(error),
        }
    }

    /// Gives the lease up, once all work has ended: the next one takes over at once.
    pub(crate) async fn release(&self) {
        let Ok(Some(mut lease)) = self.api.get_opt(NAME).await else { return };
        let Some(spec) = &mut lease.spec else { return };
        if spec.holder_identity.as_deref() == Some(&self.identity) {
            spec.holder_identity = None;
            if let Err(error) = self.api.replace(NAME, &PostParams::default(), &lease).await {
                tracing::warn!("cannot give the lease up: {error}");
            }
        }
    }
}

const NAME: &str = "leveret-operator";
const DURATION: Duration = Duration::from_secs(15);
const RENEW: Duration = Duration::from_secs(3);
const RETRY: Duration = Duration::from_millis(250);
/// A holder that could not renew for so long stops working, before another may begin.
const GIVE_UP: Duration = Duration::from_secs(8);

#[cfg(test)]
#[path = "lease_tests.rs"]
mod tests;

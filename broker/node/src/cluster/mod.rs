//! How nodes become a cluster and stay one. Which entries are agreed on is decided by Raft (`leveret_replication`); this
//! module decides who the members are and which of them leads.
//!
//! The files in the order of a node's way: `options`; `find` (who are my peers, and what follows) with `formation` (the
//! decision: wait, found, join) and `founders` (the promise to found one cluster and no other); `answers`, `question`,
//! `report` (what nodes ask and tell each other), `announce` (the members are told regularly); `govern` (the groups follow
//! the members of group 0) with `membership` (the decision: add, promote, remove); `change` (members are added and removed
//! on request); `handover` with `leaders` (which node leads); `minority` and `room` (what a node does that cannot reach most
//! others, or whose disk is full). `state` has what these tasks share; `readiness` and `view` say what people see.
//!
//! Everything is decided again and again from what is so at the moment (the members in the logs, who can be reached, what
//! the others report). So each step may fail, be repeated, or be cut short by the end of a node.
mod announce;
mod answers;
mod change;
mod find;
mod formation;
mod founders;
mod govern;
mod handover;
mod leaders;
mod membership;
mod minority;
mod options;
mod question;
mod readiness;
mod report;
mod room;
mod state;
#[cfg(test)]
mod tests;
mod view;

pub use change::ClusterError;
pub use handover::HandOverLate;
pub use options::{ClusterOptions, ClusterTimes};
pub use view::{ClusterView, GroupView, MemberState, MemberView};

pub(crate) use state::Cluster;

use crate::Broker;
use crate::identity::NodeIdentity;
use crate::open_error::OpenError;
use crate::storage::{ENTRY_SLACK, StorageOptions};
use leveret_replication::{LinkTimes, Peers, PeersOptions, Wires};
use question::ClusterQuestion;
use sha2::{Digest, Sha256};
use state::HeardReports;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

impl Broker {
    /// Opens the links to other nodes over `wires`, for a node that is part of a cluster, and puts them into the options of
    /// its storage. To be called before storage is opened with these options; [`begin_cluster`](Self::begin_cluster)
    /// comes after that.
    ///
    /// # Errors
    /// [`OpenError`] if the files `node` or `founders` cannot be read.
    pub fn open_links(
        &self,
        options: ClusterOptions,
        wires: Arc<dyn Wires>,
        storage: &mut StorageOptions,
    ) -> Result<(), OpenError> {
        let identity = NodeIdentity::read(&*storage.disk).map_err(OpenError::Identity)?;
        let founders = founders::read(&*storage.disk).map_err(OpenError::Founders)?;
        let heard = Arc::new(HeardReports::default());
        let network = &self.node().network;
        network.messages.register(announce::CHANNEL, heard.clone());
        let name = Sha256::digest(options.name.as_bytes());
        let links = PeersOptions {
            node: identity.map_or(storage.incarnation, |identity| identity.node),
            cluster: name.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte)),
            boot: rand::random(),
            secret: options.secret.clone(),
            frame_bytes_max: (self.options().message_bytes_max + ENTRY_SLACK) as usize + FRAME_HEADS,
            message_bytes_max: MESSAGES_MAX,
            times: LinkTimes::default(),
        };
        let peers = Peers::start(links, wires, network.messages.clone());
        storage.peers = Some(peers.clone());
        let _ = network.cluster.set(Arc::new(Cluster::new(&self.0, options, peers, heard, founders)));
        Ok(())
    }

    /// Begins to form or join a cluster, or to be a member of the one that the data folder belongs to. To be called once
    /// storage is open. Does nothing without [`open_links`](Self::open_links).
    ///
    /// # Errors
    /// [`OpenError::ForeignCluster`] if a peer belongs to another cluster.
    pub async fn begin_cluster(&self) -> Result<(), OpenError> {
        let Some(cluster) = self.cluster() else { return Ok(()) };
        cluster.peers.answer_with(Arc::new(answers::ClusterAnswers(Arc::downgrade(cluster))));
        cluster.check_peers().await?;
        let stopping = || cluster.stopping.clone();
        self.spawn_critical("finding the cluster", until_stopped(stopping(), cluster.clone().find()));
        self.spawn_critical("reports to the cluster", until_stopped(stopping(), cluster.clone().announce()));
        self.spawn_critical("members and leaders", until_stopped(stopping(), cluster.clone().govern()));
        Ok(())
    }

    fn cluster(&self) -> Option<&Arc<Cluster>> {
        self.node().network.cluster.get()
    }

    /// Checks whether this node, as part of its cluster, can serve clients. A node that is no part of one always can.
    ///
    /// # Errors
    /// What is missing, in words.
    pub fn cluster_readiness(&self) -> Result<(), String> {
        self.cluster().map_or(Ok(()), |cluster| cluster.readiness())
    }

    /// Waits until this node, as part of its cluster, can serve clients. Logs from time to time what is missing.
    pub async fn until_cluster_is_ready(&self) {
        let mut logged_at = Instant::now();
        while let Err(missing) = self.cluster_readiness() {
            if logged_at.elapsed() >= READY_LOG {
                logged_at = Instant::now();
                tracing::info!("not ready yet: {missing}");
            }
            tokio::time::sleep(READY_LOOK).await;
        }
    }

    /// Waits until this node is removed from its cluster; for ever if that does not happen.
    pub async fn until_removed(&self) {
        let Some(cluster) = self.cluster() else { return std::future::pending().await };
        let mut removed = cluster.removal.is_removed.subscribe();
        if removed.wait_for(|removed| *removed).await.is_err() {
            std::future::pending().await
        }
    }

    /// Returns the name of the cluster; that of the node if the node is no part of one.
    pub fn cluster_name(&self) -> &str {
        self.cluster().map_or(self.name(), |cluster| &cluster.options.name)
    }

    /// Returns the cluster as this node sees it; `None` if the node is no part of one.
    pub fn cluster_view(&self) -> Option<ClusterView> {
        Some(self.cluster()?.view())
    }

    /// Adds the node that others reach at `address` to the cluster. It becomes a voter once it has the entries.
    ///
    /// # Errors
    /// [`ClusterError`] if the node does not answer or has data, or the cluster cannot be changed.
    pub async fn add_member(&self, address: &str) -> Result<(), ClusterError> {
        let cluster = self.cluster().ok_or(ClusterError::NoCluster)?;
        cluster.have_changed(&ClusterQuestion::Add(address.to_owned())).await
    }

    /// Removes a member, which is given by its identity in 16 hexadecimal digits, its name or its address.
    ///
    /// # Errors
    /// [`ClusterError`] if there is no such member, the others could not go on without it, or the cluster cannot be
    /// changed.
    pub async fn remove_member(&self, member: &str) -> Result<(), ClusterError> {
        let cluster = self.cluster().ok_or(ClusterError::NoCluster)?;
        let node = cluster.member_named(member)?;
        cluster.have_changed(&ClusterQuestion::Remove(node)).await
    }

    /// Lets other nodes lead the groups that this node leads, and waits until all others have all entries: then this node
    /// can be stopped without anybody waiting for it. For a while this node leads nothing if that can be avoided.
    ///
    /// # Errors
    /// [`HandOverLate`] if that takes longer than `limit`.
    pub async fn hand_over_and_wait(&self, limit: Duration) -> Result<(), HandOverLate> {
        match self.cluster() {
            Some(cluster) => cluster.hand_over_and_wait(limit).await,
            None => Ok(()),
        }
    }

    /// Lets other nodes lead the groups that this node leads, within `limit`; for a node that is about to stop.
    pub async fn hand_over(&self, limit: Duration) {
        let Some(cluster) = self.cluster().filter(|cluster| !cluster.is_only_member()) else { return };
        cluster.leave_for(STOP);
        let led = cluster.hand_over_all(Instant::now() + limit).await;
        if !led.is_empty() {
            tracing::warn!("{} groups could not be handed to other nodes", led.len());
        }
    }
}

async fn until_stopped(stopping: tokio_util::sync::CancellationToken, task: impl Future<Output = ()>) {
    stopping.run_until_cancelled_owned(task).await;
}

/// The bytes of a frame beside those of its entries, of which there are 4,096 at most.
const FRAME_HEADS: usize = 256 << 10;
/// The most bytes of messages that wait to be sent to one node.
const MESSAGES_MAX: u32 = 8 << 20;
/// Time between two log messages about what is missing.
const READY_LOG: Duration = Duration::from_secs(10);
const READY_LOOK: Duration = Duration::from_millis(50);
/// The time for which a node that stops leads nothing: longer than it may take.
const STOP: Duration = Duration::from_secs(600);

//! Nodes of a cluster in one process, each with a disk of its own, joined by real links over a network in memory.
use super::journal_options;
use super::net::TestNet;
use crate::*;
use leveret_journal::faulty::FaultyDisk;
use leveret_journal::{Disk, DiskFile, JournalOptions};
use parking_lot::{Condvar, Mutex};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;
use tokio::time::Instant;

/// A change of who leads, as [`GroupStates`] is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    Lead(u64),
    Follow,
}

/// The states of a node: the entries of each group in the order in which they were applied.
#[derive(Default)]
pub(crate) struct Applied {
    lists: super::Lists,
    turns: Mutex<Vec<(GroupId, Turn)>>,
    pub(crate) restored: AtomicU64,
    pub(crate) messages: Mutex<Vec<(u64, u8, Bytes)>>,
    pub(crate) notices: Mutex<Vec<(u64, u64, LinkDirection, bool)>>,
}

impl Applied {
    pub(crate) fn entries(&self, group: GroupId) -> Vec<Vec<u8>> {
        super::entries(&self.lists, group)
    }

    pub(crate) fn turns(&self, group: GroupId) -> Vec<Turn> {
        self.turns.lock().iter().filter(|turn| turn.0 == group).map(|turn| turn.1).collect()
    }
}

impl GroupStates for Applied {
    fn apply(&self, group: GroupId, entry: &AppliedEntry) -> Result<(), String> {
        self.lists.apply(group, entry)
    }

    fn follow_up(&self, _: GroupId) {}

    fn snapshot(&self, group: GroupId) -> Result<GroupSnapshot, String> {
        self.lists.snapshot(group)
    }

    fn restore(&self, group: GroupId, snapshot: &GroupSnapshot) -> Result<(), String> {
        self.restored.fetch_add(1, SeqCst);
        self.lists.restore(group, snapshot)
    }

    fn lead(&self, group: GroupId, term: u64) {
        self.turns.lock().push((group, Turn::Lead(term)));
    }

    fn follow(&self, group: GroupId) {
        self.turns.lock().push((group, Turn::Follow));
    }
}

impl PeerMessages for Applied {
    fn received(&self, from: u64, channel: u8, message: Bytes) {
        self.messages.lock().push((from, channel, message));
    }

    fn connected(&self, node: u64, boot: u64, direction: LinkDirection) {
        self.notices.lock().push((node, boot, direction, true));
    }

    fn disconnected(&self, node: u64, boot: u64, direction: LinkDirection) {
        self.notices.lock().push((node, boot, direction, false));
    }
}

/// A disk whose syncs of the log can be held back.
#[derive(Clone)]
pub(crate) struct HeldDisk {
    disk: FaultyDisk,
    hold: Arc<Hold>,
}

#[derive(Default)]
pub(crate) struct Hold {
    held: Mutex<bool>,
    released: Condvar,
}

struct HeldFile {
    file: Arc<dyn DiskFile>,
    hold: Arc<Hold>,
}

impl Hold {
    pub(crate) fn set(&self, held: bool) {
        *self.held.lock() = held;
        self.released.notify_all();
    }

    fn wait(&self) {
        let mut held = self.held.lock();
        while *held {
            self.released.wait(&mut held);
        }
    }
}

impl HeldDisk {
    fn held(&self, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(HeldFile { file, hold: self.hold.clone() })
    }
}

impl Disk for HeldDisk {
    fn create(&self, name: &str, len: u64, zeroed: bool) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.held(self.disk.create(name, len, zeroed)?))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.held(self.disk.open(name)?))
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        self.disk.list(folder)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn sync_folder(&self, folder: &str) -> io::Result<()> {
        self.disk.sync_folder(folder)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.disk.free_bytes()
    }

    fn total_bytes(&self) -> io::Result<u64> {
        self.disk.total_bytes()
    }
}

impl DiskFile for HeldFile {
    fn write_at(&self, parts: &mut [IoSlice<'_>], offset: u64) -> io::Result<()> {
        self.file.write_at(parts, offset)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_at(buffer, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.hold.wait();
        self.file.sync_data()
    }

    fn sync_and_drop_cache(&self, len: u64) -> io::Result<()> {
        self.file.sync_and_drop_cache(len)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
}

/// A running node.
pub(crate) struct ClusterNode {
    pub(crate) id: u64,
    pub(crate) groups: Groups,
    pub(crate) peers: Peers,
    pub(crate) applied: Arc<Applied>,
    pub(crate) hold: Arc<Hold>,
}

/// The nodes of a cluster. The address of a node is its number.
pub(crate) struct Cluster {
    pub(crate) net: Arc<TestNet>,
    pub(crate) disks: BTreeMap<u64, FaultyDisk>,
    pub(crate) nodes: BTreeMap<u64, ClusterNode>,
    groups: u16,
    boots: u64,
}

pub(crate) fn peers_options(node: u64, boot: u64) -> PeersOptions {
    let times = LinkTimes { redial_max: Duration::from_millis(100), ..LinkTimes::default() };
    let secret = Bytes::from_static(b"the secret of the cluster");
    let (frame_bytes_max, message_bytes_max) = (1 << 20, 256 << 10);
    PeersOptions { node, cluster: 5, boot, secret, frame_bytes_max, message_bytes_max, times }
}

pub(crate) fn member(node: u64) -> GroupMember {
    GroupMember { address: node.to_string() }
}

impl Cluster {
    /// Starts nodes and makes them the first members of all groups.
    pub(crate) async fn new(nodes: u64, groups: u16) -> Self {
        let cluster = Self::without_members(nodes, groups).await;
        for node in cluster.nodes.values() {
            let members: BTreeMap<u64, GroupMember> = (1..=nodes).map(|id| (id, member(id))).collect();
            for group in 0..groups {
                node.groups.initialize(group, members.clone()).await.unwrap();
            }
        }
        cluster.settled().await;
        cluster
    }

    /// Starts nodes whose groups have no members yet.
    pub(crate) async fn without_members(nodes: u64, groups: u16) -> Self {
        let (disks, running) = (BTreeMap::new(), BTreeMap::new());
        let mut cluster = Self { net: Arc::default(), disks, nodes: running, groups, boots: 0 };
        for id in 1..=nodes {
            cluster.start(id).await;
        }
        cluster
    }

    pub(crate) async fn start(&mut self, id: u64) {
        self.boots += 1;
        let disk = self.disks.entry(id).or_insert_with(|| FaultyDisk::new(id)).clone();
        let applied = Arc::new(Applied::default());
        let peers = Peers::start(peers_options(id, self.boots), self.net.join(id), applied.clone());
        let hold = Arc::new(Hold::default());
        let disk = Arc::new(HeldDisk { disk, hold: hold.clone() });
        let options = GroupsOptions { node: id, groups: self.groups };
        let journal = JournalOptions { node: id, segments_max: 64, ..journal_options() };
        let groups = Groups::open(disk, journal, options, applied.clone(), Some(peers.clone())).await.unwrap();
        self.nodes.insert(id, ClusterNode { id, groups, peers, applied, hold });
    }

    /// Stops a node in order.
    pub(crate) async fn stop(&mut self, id: u64) {
        let node = self.nodes.remove(&id).unwrap();
        node.groups.stop().await;
        node.peers.stop().await;
        self.net.leave(id);
    }

    /// Ends a node by a loss of power.
    pub(crate) async fn kill(&mut self, id: u64) {
        let node = self.nodes.remove(&id).unwrap();
        self.net.leave(id);
        self.disks[&id].crash();
        node.hold.set(false);
        node.peers.stop().await;
        // What runs of it may wait for its disk for ever.
        tokio::spawn(async move { tokio::time::timeout(Duration::from_secs(1), node.groups.stop()).await.is_ok() });
        let disk = self.disks[&id].clone();
        self.disks.insert(id, disk);
    }

    /// Returns the node that leads a group, once there is one that all running nodes know and that was told to lead.
    pub(crate) async fn leader(&self, group: GroupId) -> u64 {
        let mut leader = 0;
        until("a leader", || {
            let leaders: BTreeSet<_> = self.nodes.values().map(|node| node.groups.leader(group)).collect();
            let Some(Some(one)) = leaders.first().filter(|_| leaders.len() == 1) else { return false };
            leader = one.node;
            let turns = self.nodes.get(&one.node).map(|node| node.applied.turns(group)).unwrap_or_default();
            turns.last() == Some(&Turn::Lead(one.term))
        })
        .await;
        leader
    }

    /// Returns the node that leads a group after `dead` did.
    pub(crate) async fn next_leader(&self, group: GroupId, dead: u64) -> u64 {
        let known = || self.nodes.values().map(|node| node.groups.leader(group).map(|leader| leader.node));
        until("another leader", || known().all(|leader| leader.is_some_and(|leader| leader != dead))).await;
        self.leader(group).await
    }

    pub(crate) async fn settled(&self) {
        for group in 0..self.groups {
            self.leader(group).await;
        }
    }

    /// Submits an entry at the leader until it is applied there.
    pub(crate) async fn write(&self, group: GroupId, entry: &[u8]) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let leader = self.leader(group).await;
            if self.nodes[&leader].submit(group, entry).await.is_ok() {
                return;
            }
            assert!(Instant::now() < deadline, "no entry is taken");
        }
    }

    /// Waits until all running nodes have applied `count` entries, and checks that they are the same in the same order.
    pub(crate) async fn equal(&self, group: GroupId, count: usize) -> Vec<Vec<u8>> {
        let all = || self.nodes.values().map(|node| node.applied.entries(group)).collect::<Vec<_>>();
        let lens = || all().iter().map(Vec::len).collect::<Vec<_>>();
        until(&format!("{count} entries on every node"), || lens().iter().all(|len| *len == count)).await;
        let all = all();
        assert!(all.windows(2).all(|pair| pair[0] == pair[1]), "the nodes differ: {:?}", lens());
        all.into_iter().next().unwrap()
    }

    pub(crate) async fn stop_all(mut self) {
        for id in self.nodes.keys().copied().collect::<Vec<_>>() {
            self.stop(id).await;
        }
    }
}

impl ClusterNode {
    /// Submits an entry in the term that this node knows of, and waits for the answer.
    pub(crate) async fn submit(&self, group: GroupId, entry: &[u8]) -> SubmitOutcome {
        let term = self.groups.leader(group).map_or(0, |leader| leader.term);
        self.submit_in(group, term, entry).await
    }

    pub(crate) async fn submit_in(&self, group: GroupId, term: u64, entry: &[u8]) -> SubmitOutcome {
        let (tell, told) = tokio::sync::oneshot::channel();
        let answer = Box::new(move |outcome| drop(tell.send(outcome)));
        assert!(self.groups.has_room_for(entry.len(), true));
        self.groups.submit(group, term, Bytes::copy_from_slice(entry), answer).await;
        tokio::time::timeout(PATIENCE, told).await.expect("no answer").expect("every proposal has an answer")
    }
}

/// Waits until `condition` is true.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

//! The faults that strike a cluster: what may happen, and which of it happens when.
use super::pipe::Host;
use crate::random::Random;

/// A fault, and the time in milliseconds after the beginning at which it strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strike {
    /// The time.
    pub at: u64,
    /// What happens.
    pub fault: ClusterFault,
}

/// A fault that strikes a cluster. Times are in milliseconds, nodes are counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClusterFault {
    /// The process of a node is killed, and started again after some time.
    Kill(NodeFault),
    /// The machine of a node loses its power, and what was not synced; it comes back after some time.
    PowerLoss(NodeFault),
    /// All machines lose their power at once, and come back one after the other, beginning with this node.
    AllLosePower(NodeFault),
    /// A node is stopped in order, and started again after some time.
    Stop(NodeFault),
    /// A process stands still, as if the machine had been suspended.
    Stand(NodeFault),
    /// The clock of a node leaps ahead by this time.
    Leap(NodeFault),
    /// Nothing is written to the log of a node for some time.
    DiskStands(NodeFault),
    /// A call that changes the disk of a node fails; a process that ends itself because of that is started again after some time.
    WriteFails(NodeFault),
    /// The volume of a node is full for some time.
    DiskFull(NodeFault),
    /// A node is cut off from all others for some time.
    Isolate(NodeFault),
    /// Nothing gets from one node to another for some time.
    CutOneWay(LinkFault),
    /// Nothing gets from one node to another or back for some time.
    CutBothWays(LinkFault),
    /// The connections between two nodes are reset.
    Reset(LinkFault),
    /// The connections between two nodes are reset, but only the ends that dialled notice.
    HalfReset(LinkFault),
    /// Packets from one node to another take long for some time.
    SlowLink(LinkFault),
    /// One connection from one node to another carries nothing for some time.
    HoldConnection(LinkFault),
    /// A node with an empty disk joins the cluster.
    AddNode,
    /// A member is removed from the cluster on request.
    RemoveNode(NodeFault),
    /// A node loses its power and its disk; it comes back after some time, at the same address, with an empty disk.
    LoseDisk(NodeFault),
}

/// The node that a fault strikes, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeFault {
    /// The node.
    pub node: usize,
    /// The time.
    pub ms: u64,
}

/// The direction between two nodes that a fault strikes, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkFault {
    /// The node that sends.
    pub from: usize,
    /// The node that receives.
    pub to: usize,
    /// The time.
    pub ms: u64,
}

/// The kinds of faults, without nodes and times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FaultKind {
    /// [`ClusterFault::Kill`].
    Kill,
    /// [`ClusterFault::PowerLoss`].
    PowerLoss,
    /// [`ClusterFault::AllLosePower`].
    AllLosePower,
    /// [`ClusterFault::Stop`].
    Stop,
    /// [`ClusterFault::Stand`].
    Stand,
    /// [`ClusterFault::Leap`].
    Leap,
    /// [`ClusterFault::DiskStands`].
    DiskStands,
    /// [`ClusterFault::WriteFails`].
    WriteFails,
    /// [`ClusterFault::DiskFull`].
    DiskFull,
    /// [`ClusterFault::Isolate`].
    Isolate,
    /// [`ClusterFault::CutOneWay`].
    CutOneWay,
    /// [`ClusterFault::CutBothWays`].
    CutBothWays,
    /// [`ClusterFault::Reset`].
    Reset,
    /// [`ClusterFault::HalfReset`].
    HalfReset,
    /// [`ClusterFault::SlowLink`].
    SlowLink,
    /// [`ClusterFault::HoldConnection`].
    HoldConnection,
    /// [`ClusterFault::AddNode`], [`ClusterFault::RemoveNode`] or [`ClusterFault::LoseDisk`]; at most one of the last
    /// two, so that a majority of the disks stays.
    Members,
}

/// All kinds of faults.
pub const FAULT_KINDS: [FaultKind; 17] = [
    FaultKind::Kill,
    FaultKind::PowerLoss,
    FaultKind::AllLosePower,
    FaultKind::Stop,
    FaultKind::Stand,
    FaultKind::Leap,
    FaultKind::DiskStands,
    FaultKind::WriteFails,
    FaultKind::DiskFull,
    FaultKind::Isolate,
    FaultKind::CutOneWay,
    FaultKind::CutBothWays,
    FaultKind::Reset,
    FaultKind::HalfReset,
    FaultKind::SlowLink,
    FaultKind::HoldConnection,
    FaultKind::Members,
];

/// Chooses a fault of a kind for a cluster of so many nodes.
pub(crate) fn fault(random: &mut Random, kind: FaultKind, nodes: usize) -> ClusterFault {
    let node = random.below(nodes as u64) as Host;
    let short = *random.pick(&[20, 100, 300, 700, 1_500, 4_000]);
    let (node_fault, other) = (NodeFault { node, ms: 1 + random.below(short) }, random.below(nodes as u64 - 1) as Host);
    let to = if other >= node { other + 1 } else { other };
    let link = LinkFault { from: node, to, ms: node_fault.ms.max(200) };
    match kind {
        FaultKind::Kill => ClusterFault::Kill(node_fault),
        FaultKind::PowerLoss => ClusterFault::PowerLoss(node_fault),
        FaultKind::AllLosePower => ClusterFault::AllLosePower(node_fault),
        FaultKind::Stop => ClusterFault::Stop(node_fault),
        FaultKind::Stand => ClusterFault::Stand(node_fault),
        FaultKind::Leap => ClusterFault::Leap(node_fault),
        FaultKind::DiskStands => ClusterFault::DiskStands(node_fault),
        FaultKind::WriteFails => ClusterFault::WriteFails(node_fault),
        FaultKind::DiskFull => ClusterFault::DiskFull(node_fault),
        FaultKind::Isolate => ClusterFault::Isolate(NodeFault { ms: link.ms, ..node_fault }),
        FaultKind::CutOneWay => ClusterFault::CutOneWay(link),
        FaultKind::CutBothWays => ClusterFault::CutBothWays(link),
        FaultKind::Reset => ClusterFault::Reset(link),
        FaultKind::HalfReset => ClusterFault::HalfReset(link),
        FaultKind::SlowLink => ClusterFault::SlowLink(link),
        FaultKind::HoldConnection => ClusterFault::HoldConnection(link),
        FaultKind::Members => match random.below(3) {
            0 => ClusterFault::AddNode,
            1 => ClusterFault::RemoveNode(node_fault),
            _ => ClusterFault::LoseDisk(node_fault),
        },
    }
}

/// Chooses the faults that strike until `end`. A cluster that begins with a single node is enlarged first.
pub(crate) fn plan(random: &mut Random, kinds: &[FaultKind], nodes: usize, end: u64) -> Vec<Strike> {
    let mut strikes = Vec::new();
    let pause = *random.pick(&[300, 1_500, 5_000]);
    let mut at = random.below(pause);
    for _ in nodes..SMALLEST {
        strikes.push(Strike { at, fault: ClusterFault::AddNode });
        at += 1 + random.below(1_000);
    }
    let (mut disks_lost, mut added) = (0, 0);
    while at < end && !kinds.is_empty() {
        let kind = *random.pick(kinds);
        let fault = fault(random, kind, nodes.max(SMALLEST));
        let (loses, adds) = (fault.loses_disk(), fault == ClusterFault::AddNode);
        (disks_lost, added) = (disks_lost + u64::from(loses), added + u64::from(adds));
        // With fewer nodes one lost disk is a majority of those that may have the newest entries.
        if !(loses && (disks_lost > 1 || nodes < SMALLEST)) && !(adds && added > 2) {
            strikes.push(Strike { at, fault });
        }
        at += 1 + random.below(2 * pause);
    }
    strikes
}

/// The number of nodes of which one may fail.
const SMALLEST: usize = 3;

impl ClusterFault {
    /// Returns for how long the fault has an effect, in milliseconds.
    pub(crate) fn ms(&self) -> u64 {
        use ClusterFault as F;
        match self {
            F::AllLosePower(of) => 2 * of.ms,
            F::Kill(of) | F::PowerLoss(of) | F::Stop(of) | F::Stand(of) | F::Leap(of) => of.ms,
            F::DiskStands(of) | F::WriteFails(of) | F::DiskFull(of) | F::Isolate(of) => of.ms,
            F::CutOneWay(of) | F::CutBothWays(of) | F::SlowLink(of) | F::HoldConnection(of) => of.ms,
            F::LoseDisk(of) => of.ms + MEMBERS_CHANGE,
            F::AddNode | F::RemoveNode(_) => MEMBERS_CHANGE,
            F::Reset(_) | F::HalfReset(_) => 0,
        }
    }

    /// Returns whether the fault takes a disk out of the cluster.
    fn loses_disk(&self) -> bool {
        matches!(self, Self::RemoveNode(_) | Self::LoseDisk(_))
    }

    /// Returns the number of nodes that there have to be for the fault to strike.
    pub(crate) fn nodes_least(&self) -> usize {
        use ClusterFault as F;
        match self {
            F::CutOneWay(of) | F::CutBothWays(of) | F::Reset(of) | F::HalfReset(of) => 1 + of.from.max(of.to),
            F::SlowLink(of) | F::HoldConnection(of) => 1 + of.from.max(of.to),
            F::RemoveNode(of) | F::LoseDisk(of) => 1 + of.node,
            other => other.node().map_or(0, |node| 1 + node),
        }
    }

    /// Returns the node that the fault strikes, if it strikes one.
    pub(crate) fn node(&self) -> Option<Host> {
        use ClusterFault as F;
        match self {
            F::Kill(of) | F::PowerLoss(of) | F::AllLosePower(of) | F::Stop(of) | F::Stand(of) => Some(of.node),
            F::Leap(of) | F::DiskStands(of) | F::WriteFails(of) | F::DiskFull(of) | F::Isolate(of) => Some(of.node),
            _ => None,
        }
    }
}

/// The time in which the members change, in milliseconds.
const MEMBERS_CHANGE: u64 = 10_000;

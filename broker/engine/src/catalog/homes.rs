//! The nodes that transient definitions live on. A queue that is not logged ends with the start of its node. A transient
//! exchange is only a rule for routing, which every node has: it passes to another node that runs, and ends with the last.
use super::{Catalog, Change, Effect, Vhost};
use std::sync::Arc;

/// One start of a node of the cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeRun {
    /// The node.
    pub node: u64,
    /// The random number of the start.
    pub incarnation: u64,
}

impl Catalog {
    /// Notes that a node has started, and deletes what lived on its earlier starts.
    pub fn node_started(&mut self, run: NodeRun) -> Change<()> {
        self.set_running(run);
        Change { answer: (), effects: self.end_homes(run.node, Some(run.incarnation)) }
    }

    /// Notes that a node, whose last start was this one, has ended for good, and deletes what lived on it. Does nothing if
    /// the node has started again. What it asked for and comes late is refused from now on.
    pub fn node_gone(&mut self, run: NodeRun) -> Change<()> {
        if self.running.get(&run.node).is_some_and(|now| *now != run.incarnation) {
            return Change::nothing(());
        }
        self.set_running(NodeRun { incarnation: GONE, ..run });
        Change { answer: (), effects: self.end_homes(run.node, None) }
    }

    /// Returns whether this start of a node is not known to have ended.
    #[must_use]
    pub fn may_run(&self, run: NodeRun) -> bool {
        self.running.get(&run.node).is_none_or(|now| *now == run.incarnation)
    }

    /// Returns the last start of each node that is not known to have ended.
    pub fn running(&self) -> impl Iterator<Item = NodeRun> {
        self.starts().filter(|run| run.incarnation != GONE)
    }

    /// Returns the last start of each node, also of those that have ended for good.
    pub(super) fn starts(&self) -> impl Iterator<Item = NodeRun> {
        self.running.iter().map(|(node, incarnation)| NodeRun { node: *node, incarnation: *incarnation })
    }

    /// Notes that this start of a node runs, and nothing else.
    pub(super) fn set_running(&mut self, run: NodeRun) {
        self.running.insert(run.node, run.incarnation);
    }

    /// Deletes what lives on the starts of a node other than `but`.
    fn end_homes(&mut self, node: u64, but: Option<u64>) -> Vec<Effect> {
        let heir = self.running().find(|run| run.node != node);
        let has_ended =
            |home: Option<NodeRun>| home.is_some_and(|run| run.node == node && Some(run.incarnation) != but);
        let vhosts: Vec<Arc<str>> = self.vhosts.keys().cloned().collect();
        let mut effects = Vec::new();
        for at in vhosts {
            let Some(vhost) = self.vhosts.get_mut(&at) else { continue };
            let Ended { queues, exchanges } = Ended::of(vhost, heir, has_ended);
            for (name, id) in queues {
                if let Ok(deleted) = self.delete_queue(&at, &name, id) {
                    effects.extend(deleted.effects);
                }
            }
            self.remove_exchanges(&at, exchanges, &mut effects);
        }
        effects
    }
}

/// What ends in a virtual host with a start of a node.
struct Ended {
    queues: Vec<(Arc<str>, super::QueueId)>,
    exchanges: Vec<Arc<str>>,
}

impl Ended {
    /// Finds what has ended, and passes exchanges on to the heir, if there is one.
    fn of(vhost: &mut Vhost, heir: Option<NodeRun>, has_ended: impl Fn(Option<NodeRun>) -> bool) -> Self {
        let queues = vhost.queues.iter().filter(|(_, queue)| has_ended(queue.home));
        let queues = queues.map(|(name, queue)| (name.clone(), queue.id)).collect();
        let mut exchanges = Vec::new();
        for (name, exchange) in vhost.exchanges.iter_mut().filter(|(_, exchange)| has_ended(exchange.home)) {
            match heir {
                Some(heir) => exchange.home = Some(heir),
                None => exchanges.push(name.clone()),
            }
        }
        Self { queues, exchanges }
    }
}

/// The incarnation of a node that has ended for good.
const GONE: u64 = 0;

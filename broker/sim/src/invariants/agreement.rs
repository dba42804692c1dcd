//! Promise: clients, catalog and queues agree on the definitions. The state is as the answers said, one name leads to one
//! queue, and the numbers of creations and deletions match, however many requests ran at the same time.
use crate::checker::Checker;
use crate::life::Life;
use crate::names::{BOUND_AT_TIMES, SLOTS, name};
use crate::requests::Answer;
use leveret_model::refusal::RefusalKind;
use leveret_node::catalog::Destination;
use leveret_node::{Caller, QueueId};

impl Checker {
    /// Records that a declaration is under way.
    pub(crate) fn begin_declare(&mut self, at: usize) {
        let name = &mut self.names[at];
        name.overlapped |= name.busy > 0;
        name.busy += 1;
    }

    /// Records that a deletion is under way.
    pub(crate) fn begin_delete(&mut self, at: usize) {
        self.begin_declare(at);
        self.names[at].deletes += 1;
        for held in self.queues.values_mut().filter(|held| held.slot == at && !held.deleted) {
            held.doomed = true;
        }
    }

    /// Records that a declaration was answered or cancelled, and checks the answer. `found` is the queue with the name now.
    pub(crate) fn end_declare(&mut self, at: usize, answer: Answer<(bool, QueueId)>, found: Option<QueueId>) {
        self.names[at].busy -= 1;
        let alone = !self.names[at].overlapped && !self.names[at].cancelled;
        match answer {
            Some(Ok((created, id))) => {
                self.register(id, at);
                self.names[at].balance += i64::from(created);
                let known = self.names[at].id;
                if alone && (created == known.is_some() || known.is_some_and(|known| known != id)) {
                    self.fail(|| format!("queue {at} was {known:?}; its declaration gave {id:?}, created: {created}"));
                }
            }
            Some(Err(refusal)) => self.fail(|| format!("the declaration of queue {at} was refused: {}", refusal.text)),
            None => self.names[at].cancelled = true,
        }
        self.check_balance(at, found);
    }

    /// Records that a deletion was answered or cancelled, and checks the answer. `found` is the queue with the name now.
    pub(crate) fn end_delete(&mut self, at: usize, answer: Answer<()>, found: Option<QueueId>) {
        self.names[at].busy -= 1;
        self.names[at].deletes -= 1;
        let alone = !self.names[at].overlapped && !self.names[at].cancelled;
        let known = self.names[at].id;
        match answer {
            Some(Ok(())) => {
                self.names[at].balance -= 1;
                if alone && known.is_none() {
                    self.fail(|| format!("queue {at} was deleted, although it did not exist"));
                }
            }
            Some(Err(refusal)) if refusal.kind == RefusalKind::NotFound => {
                if alone && known.is_some() {
                    self.fail(|| format!("queue {at} existed, but its deletion did not find it"));
                }
            }
            Some(Err(refusal)) if refusal.kind == RefusalKind::PreconditionFailed => {}
            Some(Err(refusal)) => self.fail(|| format!("the deletion of queue {at} was refused: {}", refusal.text)),
            None => self.names[at].cancelled = true,
        }
        self.check_balance(at, found);
    }

    /// Once no request is changing the queue, and unless one was cancelled, its existence must follow from the answers.
    fn check_balance(&mut self, at: usize, found: Option<QueueId>) {
        let name = &self.names[at];
        if name.busy > 0 || name.cancelled {
            return;
        }
        let (before, balance) = (name.id, name.balance);
        if i64::from(before.is_some()) + balance != i64::from(found.is_some()) {
            self.fail(|| {
                format!("queue {at} was {before:?}, then {balance} more were created than deleted: {found:?}")
            });
        }
        self.resolve(at, found);
    }

    /// Returns the queues other than `found` that have had the name.
    pub(crate) fn others(&self, at: usize, found: Option<QueueId>) -> Vec<QueueId> {
        let of_name = self.queues.iter().filter(|(other, held)| held.slot == at && Some(**other) != found);
        of_name.map(|(id, _)| *id).collect()
    }

    /// Records `found` as the queue that has the name for certain. Others that had it must have been deleted.
    pub(crate) fn resolve(&mut self, at: usize, found: Option<QueueId>) {
        if let Some(id) = found {
            self.register(id, at);
        }
        let of_name: Vec<QueueId> = self.living().filter(|(_, held)| held.slot == at).map(|(id, _)| *id).collect();
        for id in of_name {
            let Some(held) = self.queues.get_mut(&id) else { continue };
            if Some(id) == found {
                held.doomed = false;
                continue;
            }
            if !held.doomed {
                self.fail(|| format!("queue {at} ({id:?}) is gone, although no client deleted it"));
            }
            self.deleted(id);
        }
        self.names[at] = crate::names::Name { id: found, ..Default::default() };
    }
}

impl Life<'_> {
    /// Checks that clients, catalog and queues agree. No request may be under way.
    pub(crate) fn agree(&self) {
        for at in 0..SLOTS {
            let declared = self.broker.catalog().queue_id("/", &name(at));
            let found = self.broker.find_queue(&Caller::system(), "/", &name(at)).ok();
            let deleted = found.as_ref().is_some_and(|queue| queue.is_deleted());
            let id = found.map(|queue| queue.id);
            if declared != id || deleted {
                let text = format!("queue {at} is {declared:?} in the catalog and {id:?} among the queues");
                self.broken(format!("{text}; deleted: {deleted}"));
            }
            let others: Vec<QueueId> = self.clients.with(|state| {
                let checker = &mut state.checker;
                let known = &checker.names[at];
                if known.is_sure() && known.id != id {
                    let known = known.id;
                    checker.fail(|| format!("queue {at} is {id:?}; clients were told {known:?}"));
                }
                checker.resolve(at, id);
                checker.others(at, id)
            });
            if let Some(ghost) = others.into_iter().find(|other| self.broker.queue(*other).is_some()) {
                self.broken(format!("queue {at} ({ghost:?}) was deleted, but is still among the queues"));
            }
        }
        for at in BOUND_AT_TIMES {
            let is = self.is_bound(at);
            self.clients.with(|state| {
                let bound = &mut state.checker.bound[at];
                let (sure, known) = (bound.is_sure(), bound.is);
                *bound = crate::names::Bound { is, ..Default::default() };
                if sure && known != is {
                    state.checker.fail(|| format!("queue {at} is bound: {is}; clients were told {known}"));
                }
            });
        }
    }

    fn is_bound(&self, at: usize) -> bool {
        let catalog = self.broker.catalog();
        let to = Destination::Queue(name(at));
        let bound = catalog.bindings("/").into_iter().flatten();
        bound.into_iter().any(|(source, binding)| &**source == "fan" && binding.destination == to)
    }
}

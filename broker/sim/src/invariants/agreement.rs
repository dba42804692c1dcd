//! Clients, catalog and queues agree on what is declared: what was answered is so, and one name leads to one queue. What was
//! made and what was deleted add up, however many did so at a time.
use crate::checker::Checker;
use crate::life::Life;
use crate::names::{BOUND_AT_TIMES, SLOTS, name};
use crate::requests::Answer;
use leveret_model::refusal::RefusalKind;
use leveret_node::catalog::Destination;
use leveret_node::{Caller, QueueId};

impl Checker {
    pub(crate) fn begin_declare(&mut self, at: usize) {
        let name = &mut self.names[at];
        name.overlapped |= name.busy > 0;
        name.busy += 1;
    }

    pub(crate) fn begin_delete(&mut self, at: usize) {
        self.begin_declare(at);
        self.names[at].deletes += 1;
        for held in self.queues.values_mut().filter(|held| held.slot == at && !held.deleted) {
            held.doomed = true;
        }
    }

    /// A declaration was answered or given up; `found` has the name now.
    pub(crate) fn end_declare(&mut self, at: usize, answer: Answer<(bool, QueueId)>, found: Option<QueueId>) {
        self.names[at].busy -= 1;
        let alone = !self.names[at].overlapped && !self.names[at].cancelled;
        match answer {
            Some(Ok((created, id))) => {
                self.register(id, at);
                self.names[at].balance += i64::from(created);
                let known = self.names[at].id;
                if alone && (created == known.is_some() || known.is_some_and(|known| known != id)) {
                    self.fail(|| format!("queue {at} was {known:?}; declared: {id:?}, created: {created}"));
                }
            }
            Some(Err(refusal)) => self.fail(|| format!("queue {at} was not declared: {}", refusal.text)),
            None => self.names[at].cancelled = true,
        }
        self.look_at(at, found);
    }

    /// A deletion was answered or given up; `found` has the name now.
    pub(crate) fn end_delete(&mut self, at: usize, answer: Answer<()>, found: Option<QueueId>) {
        self.names[at].busy -= 1;
        self.names[at].deletes -= 1;
        let alone = !self.names[at].overlapped && !self.names[at].cancelled;
        let known = self.names[at].id;
        match answer {
            Some(Ok(())) => {
                self.names[at].balance -= 1;
                if alone && known.is_none() {
                    self.fail(|| format!("queue {at} was deleted, and was not there"));
                }
            }
            Some(Err(refusal)) if refusal.kind == RefusalKind::NotFound => {
                if alone && known.is_some() {
                    self.fail(|| format!("queue {at} was there, and is not found when it is deleted"));
                }
            }
            Some(Err(refusal)) if refusal.kind == RefusalKind::PreconditionFailed => {}
            Some(Err(refusal)) => self.fail(|| format!("queue {at} was not deleted: {}", refusal.text)),
            None => self.names[at].cancelled = true,
        }
        self.look_at(at, found);
    }

    /// Nobody changes the queue any more, unless a client lost patience with a request: what there is must follow from the
    /// answers.
    fn look_at(&mut self, at: usize, found: Option<QueueId>) {
        let name = &self.names[at];
        if name.busy > 0 || name.cancelled {
            return;
        }
        let (before, balance) = (name.id, name.balance);
        if i64::from(before.is_some()) + balance != i64::from(found.is_some()) {
            self.fail(|| format!("queue {at} was {before:?}, then {balance} more were made than deleted: {found:?}"));
        }
        self.resolve(at, found);
    }

    /// What else has had the name.
    pub(crate) fn others(&self, at: usize, found: Option<QueueId>) -> Vec<QueueId> {
        let of_name = self.queues.iter().filter(|(other, held)| held.slot == at && Some(**other) != found);
        of_name.map(|(id, _)| *id).collect()
    }

    /// `found` is what has the name, for certain; what had it before is gone.
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
                self.fail(|| format!("queue {at} ({id:?}) is gone, and nobody deleted it"));
            }
            self.deleted(id);
        }
        self.names[at] = crate::names::Name { id: found, ..Default::default() };
    }
}

impl Life<'_> {
    /// Nothing is under way: clients, catalog and queues have to agree.
    pub(crate) fn agree(&self) {
        for at in 0..SLOTS {
            let declared = self.broker.catalog().queue("/", &name(at), None).ok().map(|queue| queue.id);
            let found = self.broker.find_queue(&Caller::system(), "/", &name(at)).ok();
            let deleted = found.as_ref().is_some_and(|queue| queue.is_deleted());
            let id = found.map(|queue| queue.id);
            if declared != id || deleted {
                self.broken(format!("queue {at}: {declared:?} in the catalog, {id:?} among the queues, {deleted}"));
            }
            let others: Vec<QueueId> = self.clients.with(|state| {
                let checker = &mut state.checker;
                let known = &checker.names[at];
                if known.is_sure() && known.id != id {
                    let known = known.id;
                    checker.fail(|| format!("queue {at} is {id:?}, and was {known:?} for clients"));
                }
                checker.resolve(at, id);
                checker.others(at, id)
            });
            if let Some(ghost) = others.into_iter().find(|other| self.broker.queue(*other).is_some()) {
                self.broken(format!("queue {at} ({ghost:?}) was deleted, and is still among the queues"));
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

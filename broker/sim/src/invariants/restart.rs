//! Promise: a restart loses nothing. The definitions are those of before. A queue has at least the messages that are owed,
//! and at most those that were published and not settled durably; after a stop in order it has exactly the same ones.
use crate::life::{Life, bound_durably};
use crate::names::{FAN, SLOTS, is_durable, name};
use leveret_node::Caller;
use leveret_node::catalog::Destination;

impl Life<'_> {
    /// Checks the node after a start. `before` has the digests and numbers of messages from the last stop in order, if the
    /// node has not been open since.
    ///
    /// # Errors
    /// The first difference.
    pub(crate) fn is_as_before(&self, before: Option<Vec<(u64, u64)>>) -> Result<(), String> {
        self.same_queues()?;
        self.same_bindings()?;
        self.check_brief_after_start();
        let found = self.held();
        for (at, &(digest, messages)) in found.iter().enumerate() {
            self.trace(format!("queue {at} has {messages} messages, digest {digest:016x}"));
            let bounds = self.clients.with(|state| {
                let id = state.checker.names[at].id;
                let held = id.and_then(|id| state.checker.queues.get(&id));
                held.map_or((0, 0), |held| (held.owed(), held.possible()))
            });
            if messages < bounds.0 {
                return Err(format!(
                    "queue {at} has {messages} messages, but {} confirmed ones have to be there",
                    bounds.0
                ));
            }
            if messages > bounds.1 {
                return Err(format!("queue {at} has {messages} messages, but there can be {} at most", bounds.1));
            }
        }
        match before {
            Some(before) if before != found => {
                Err(format!("the contents of the queues are {found:?}; before the stop they were {before:?}"))
            }
            _ => Ok(()),
        }
    }

    fn same_queues(&self) -> Result<(), String> {
        for at in 0..SLOTS {
            let declared = self.broker.catalog().queue_id("/", &name(at));
            let found = self.broker.find_queue(&Caller::system(), "/", &name(at)).ok().map(|queue| queue.id);
            let (sure, known) = self.clients.with(|state| {
                let name = &state.checker.names[at];
                (name.is_sure(), name.id)
            });
            if declared != found || (!is_durable(at) && found.is_some()) {
                return Err(format!("queue {at} is {declared:?} in the catalog and {found:?} among the queues"));
            }
            if sure && known != found {
                return Err(format!("queue {at} is {found:?}; before the start it was {known:?}"));
            }
            self.clients.with(|state| state.checker.resolve(at, found));
        }
        Ok(())
    }

    fn same_bindings(&self) -> Result<(), String> {
        let catalog = self.broker.catalog();
        let bound = |at| {
            let to = Destination::Queue(name(at));
            let bindings = catalog.bindings("/").into_iter().flatten();
            bindings.into_iter().any(|(source, binding)| &**source == "fan" && binding.destination == to)
        };
        let known = self.clients.with(|state| state.checker.declared.len());
        if known > FAN.len() && !FAN.into_iter().all(bound) {
            return Err("a binding that no client removes is gone".to_owned());
        }
        for at in bound_durably() {
            let is = bound(at);
            let known = self.clients.with(|state| {
                let was = &mut state.checker.bound[at];
                let known = was.is_sure().then_some(was.is);
                *was = crate::names::Bound { is, ..Default::default() };
                known
            });
            if known.is_some_and(|known| known != is) {
                return Err(format!("queue {at} is bound: {is}; before the start it was {known:?}"));
            }
        }
        Ok(())
    }
}

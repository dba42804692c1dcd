//! The bindings of deleted exchanges and queues: they are invisible from the deletion on, and are removed from the
//! indexes later, some bindings at a time.
//!
//! An exchange or a queue may have a million bindings, and everything waits for the catalog while it changes. Therefore a
//! deletion removes only the bindings themselves at once. Left behind are entries that nobody sees: targets in routers,
//! with identities that are not used any more, and the name of the exchange at its destinations. Until these are removed
//! they count as definitions for new ones that are declared on this node.
use super::bindings::{Binding, Taken, Target, binding_bytes};
use super::limits::Usage;
use super::{Catalog, Exchange, ExchangeId, Vhost};
use crate::exchange::Router;
use leveret_model::exchange::ExchangeType;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The entries that deletions left behind in a virtual host.
#[derive(Default)]
pub(super) struct Remains {
    left: Vec<RemovedBindings>,
    /// Deleted targets that routers still have.
    dead: BTreeSet<Target>,
    /// The size of what is left. It is not the same on every node, because each unlinks in its own time.
    usage: Usage,
}

/// Removed bindings that are still in indexes.
struct RemovedBindings {
    bindings: Box<dyn Iterator<Item = Binding> + Send + Sync>,
    /// The type of the exchange that the bindings led from.
    kind: ExchangeType,
    end: DeletedEnd,
}

/// The deleted end of the bindings.
enum DeletedEnd {
    /// The exchange that the bindings led from; its name may still be at their destinations.
    Source { name: Arc<str>, router: Router<Target> },
    /// The destination that the bindings led to, which is still in the router of the source.
    Destination { source: Arc<str>, id: ExchangeId, target: Target },
}

/// The result of [`Catalog::unlink`]. Dropping it may take long, so it is best dropped after the catalog was unlocked.
#[must_use]
pub struct UnlinkedObjects {
    /// True if there is more to unlink.
    pub more: bool,
    _routers: Vec<Router<Target>>,
}

impl Catalog {
    /// Returns whether deletions have left bindings to [`unlink`](Self::unlink).
    #[must_use]
    pub fn is_unlinking(&self) -> bool {
        self.vhosts.values().any(|vhost| !vhost.remains.left.is_empty())
    }

    /// Removes about `most` bindings from the indexes that still have them. The change is invisible from outside.
    pub fn unlink(&mut self, most: usize) -> UnlinkedObjects {
        let (mut left, mut routers) = (most, Vec::new());
        for vhost in self.vhosts.values_mut() {
            left = vhost.unlink(left, &mut routers);
        }
        UnlinkedObjects { more: self.is_unlinking(), _routers: routers }
    }
}

impl Remains {
    /// Returns the size of what is left.
    pub(super) fn usage(&self) -> Usage {
        self.usage
    }

    /// Returns whether this target was deleted and is still in a router.
    #[inline]
    pub(super) fn is_dead(&self, target: Target) -> bool {
        !self.dead.is_empty() && self.dead.contains(&target)
    }

    /// Adds the bindings from the exchange `name`, which was deleted.
    pub(super) fn add_source(&mut self, name: &str, kind: ExchangeType, taken: Taken, router: Router<Target>) {
        let Taken { bindings, usage } = taken;
        self.usage.add(usage);
        self.left.push(RemovedBindings { bindings, kind, end: DeletedEnd::Source { name: name.into(), router } });
    }

    /// Adds the bindings from the exchange `name` to `target`, which was deleted.
    pub(super) fn add_destination(&mut self, target: Target, taken: Taken, name: Arc<str>, source: &Exchange) {
        let Taken { bindings, usage } = taken;
        self.usage.add(usage);
        self.dead.insert(target);
        let end = DeletedEnd::Destination { source: name, id: source.id, target };
        self.left.push(RemovedBindings { bindings, kind: source.declared.kind, end });
    }
}

impl Vhost {
    /// Unlinks at most `most` bindings. Returns how many more may be unlinked in this call.
    fn unlink(&mut self, most: usize, routers: &mut Vec<Router<Target>>) -> usize {
        let mut left = most;
        while let Some(mut leaving) = self.remains.left.pop() {
            let mut is_over = false;
            while left > 0 && !is_over {
                match leaving.bindings.next() {
                    Some(binding) => self.forget(&leaving, &binding),
                    None => is_over = true,
                }
                left -= 1;
            }
            if !is_over {
                self.remains.left.push(leaving);
                return 0;
            }
            match leaving.end {
                DeletedEnd::Source { router, .. } => routers.push(router),
                DeletedEnd::Destination { target, .. } => {
                    let others = self.remains.left.iter().any(|other| other.end.is_to(target));
                    if !others {
                        self.remains.dead.remove(&target);
                    }
                }
            }
        }
        left
    }

    /// Removes one binding from the index that still has it.
    fn forget(&mut self, leaving: &RemovedBindings, binding: &Binding) {
        match &leaving.end {
            DeletedEnd::Source { name, .. } => {
                // An exchange with the same name may be bound to the destination again by now.
                let again = self.exchanges.get(name).is_some_and(|other| other.bindings.has_to(&binding.destination));
                if !again {
                    self.forget_source(&binding.destination, name);
                }
            }
            DeletedEnd::Destination { source, id, target } => {
                if let Some(from) = self.exchanges.get_mut(source).filter(|from| from.id == *id) {
                    from.router.unbind(&binding.routing_key, &binding.arguments, *target);
                }
            }
        }
        self.remains.usage.remove(binding_usage(leaving.kind, binding));
    }
}

impl DeletedEnd {
    fn is_to(&self, dead: Target) -> bool {
        matches!(self, Self::Destination { target, .. } if *target == dead)
    }
}

fn binding_usage(kind: ExchangeType, binding: &Binding) -> Usage {
    Usage::of_binding(binding_bytes(kind, &binding.routing_key, &binding.arguments))
}

/// The number of bindings that are unlinked at once, both by the deletion itself and by each further call of
/// [`Catalog::unlink`].
pub const UNLINKED_AT_ONCE: usize = 4096;

//! Lists of the definitions, in the order of their names.
use super::{Binding, Catalog, DeclaredQueue, Exchange};
use leveret_model::refusal::Refusal;
use std::ops::Bound;
use std::sync::Arc;

impl Catalog {
    /// Returns the names of the virtual hosts.
    pub fn vhosts(&self) -> impl Iterator<Item = &Arc<str>> {
        self.vhosts.keys()
    }

    /// Returns the exchanges of a virtual host with their names.
    ///
    /// # Errors
    /// 404 for a virtual host that does not exist.
    pub fn exchanges(&self, vhost: &str) -> Result<impl Iterator<Item = (&Arc<str>, &Exchange)>, Refusal> {
        Ok(self.vhost(vhost)?.exchanges.iter())
    }

    /// Returns the queues of a virtual host with their names.
    ///
    /// # Errors
    /// 404 for a virtual host that does not exist.
    pub fn queues(&self, vhost: &str) -> Result<impl Iterator<Item = (&Arc<str>, &DeclaredQueue)>, Refusal> {
        Ok(self.vhost(vhost)?.queues.iter())
    }

    /// Returns the queues of all virtual hosts, each with the names of its virtual host and its own.
    pub fn all_queues(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<str>, &DeclaredQueue)> {
        self.vhosts.iter().flat_map(|(vhost, at)| at.queues.iter().map(move |(name, queue)| (vhost, name, queue)))
    }

    /// Returns the bindings of a virtual host with their sources. The bindings of the default exchange (one for each
    /// queue) are not stored and not included.
    ///
    /// # Errors
    /// 404 for a virtual host that does not exist.
    pub fn bindings(&self, vhost: &str) -> Result<impl Iterator<Item = (&Arc<str>, &Binding)>, Refusal> {
        let exchanges = self.vhost(vhost)?.exchanges.iter();
        Ok(exchanges.flat_map(|(name, exchange)| exchange.bindings.iter().map(move |binding| (name, binding))))
    }

    /// Returns the exchanges of a virtual host whose names come after `after`, so that a list can be read in pieces.
    ///
    /// # Errors
    /// 404 for a virtual host that does not exist.
    pub fn exchanges_after(
        &self,
        vhost: &str,
        after: Option<&str>,
    ) -> Result<impl Iterator<Item = (&Arc<str>, &Exchange)>, Refusal> {
        Ok(self.vhost(vhost)?.exchanges.range::<str, _>((beyond(after), Bound::Unbounded)))
    }

    /// Returns the queues of a virtual host whose names come after `after`, so that a list can be read in pieces.
    ///
    /// # Errors
    /// 404 for a virtual host that does not exist.
    pub fn queues_after(
        &self,
        vhost: &str,
        after: Option<&str>,
    ) -> Result<impl Iterator<Item = (&Arc<str>, &DeclaredQueue)>, Refusal> {
        Ok(self.vhost(vhost)?.queues.range::<str, _>((beyond(after), Bound::Unbounded)))
    }

    /// Returns the bindings from one exchange that follow `after` in a fixed order, so that a list can be read in pieces.
    /// `after` itself may have been removed meanwhile.
    ///
    /// # Errors
    /// 404 for a virtual host or an exchange that does not exist.
    pub fn bindings_after(
        &self,
        vhost: &str,
        source: &str,
        after: Option<&Binding>,
    ) -> Result<impl Iterator<Item = &Binding>, Refusal> {
        Ok(self.exchange(vhost, source)?.bindings.after(after))
    }
}

fn beyond(name: Option<&str>) -> Bound<&str> {
    name.map_or(Bound::Unbounded, Bound::Excluded)
}

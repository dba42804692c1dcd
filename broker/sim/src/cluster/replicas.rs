//! Promise: the replicas of a group have the same state after the same entry.
use super::host::SimHost;
use super::pipe::Host;
use std::collections::BTreeMap;

/// The states that were seen.
#[derive(Default)]
pub(crate) struct Replicas {
    /// The digest of a group's state after an entry, and the node that had it first.
    seen: BTreeMap<(u16, u64), (u32, Host)>,
    /// The number of times that two nodes were compared.
    pub(crate) compared: u64,
}

impl Replicas {
    /// Looks at the states of all nodes.
    ///
    /// # Errors
    /// Two differ after the same entry.
    pub(crate) fn look(&mut self, hosts: &[SimHost]) -> Result<(), String> {
        for host in hosts {
            let Some(process) = host.serving() else { continue };
            for replica in process.broker.replicas() {
                let Some(applied) = replica.applied else { continue };
                let of_entry = (replica.group, applied);
                let (digest, first) = *self.seen.entry(of_entry).or_insert((replica.digest, host.host));
                self.compared += u64::from(first != host.host);
                if digest != replica.digest {
                    let group = replica.group;
                    return Err(format!(
                        "the states of group {group} after entry {applied} differ on nodes {first} and {}",
                        host.host
                    ));
                }
            }
        }
        Ok(())
    }

    /// Returns which group has not got equally far on all nodes; `None` if all have.
    pub(crate) fn behind<'h>(mut hosts: impl Iterator<Item = &'h SimHost>) -> Option<String> {
        let of = |host: &SimHost| host.process.as_ref().map(|process| process.broker.replicas());
        let first = hosts.next()?;
        let replicas = of(first);
        let differs = hosts.find(|other| of(other) != replicas)?;
        Some(format!("node {} has other replicas than node {}", differs.host, first.host))
    }
}

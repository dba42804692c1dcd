//! Promise: a group has at most one leader in a term.
use super::host::SimHost;
use super::pipe::Host;
use std::collections::BTreeMap;

/// The leaders that were seen.
#[derive(Default)]
pub(crate) struct Leaders {
    /// The node that led a group in a term.
    of_terms: BTreeMap<(u16, u64), Host>,
    /// The groups that each node leads, as it was seen last.
    led: BTreeMap<Host, Vec<(u16, u64)>>,
    /// The number of times that a node began to lead a group.
    pub(crate) changes: u64,
}

impl Leaders {
    /// Looks which groups a node leads. Returns whether that has changed.
    ///
    /// # Errors
    /// Another node led one of them in the same term.
    pub(crate) fn look(&mut self, host: &SimHost, now: u64) -> Result<bool, String> {
        let Some(process) = &host.process else { return Ok(false) };
        let led = process.broker.led_groups();
        if self.led.get(&host.host) == Some(&led) {
            return Ok(false);
        }
        for (group, term) in &led {
            let before = *self.of_terms.entry((*group, *term)).or_insert_with(|| {
                self.changes += 1;
                host.host
            });
            if before != host.host {
                let text = format!("nodes {before} and {} have both led group {group} in term {term}", host.host);
                return Err(format!("at {now} ms: {text}"));
            }
        }
        self.led.insert(host.host, led);
        Ok(true)
    }

    /// Notes that the process of a node has ended.
    pub(crate) fn ended(&mut self, host: Host) {
        self.led.remove(&host);
    }
}

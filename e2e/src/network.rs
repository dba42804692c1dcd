//! A network of three namespaces on one bridge, in which packets from one node to another can be dropped. Needs root, and
//! the programs `ip` and `nft`.

use std::process::Command;

use anyhow::{Result, ensure};

use crate::broker::run;
use crate::wait::PATIENCE;

/// The network; removed when dropped.
pub struct Network {
    /// Begins the names of the bridge, the namespaces and their interfaces.
    name: String,
}

impl Network {
    /// Makes the network. The test reaches the nodes through an address of its own on the bridge.
    ///
    /// # Errors
    /// If a command fails, with what it printed.
    pub fn new() -> Result<Self> {
        let network = Self { name: format!("lv{}", std::process::id() % 1_000_000) };
        let Self { name } = &network;
        ip(&format!("link add {name} type bridge"))?;
        ip(&format!("address add {SUBNET}.1/24 dev {name}"))?;
        ip(&format!("link set {name} up"))?;
        for at in 0..3 {
            let (space, address) = (network.space(at), network.address(at));
            ip(&format!("netns add {space}"))?;
            ip(&format!("link add {space} type veth peer name eth0 netns {space}"))?;
            ip(&format!("link set {space} master {name} up"))?;
            for set in
                [format!("address add {address}/24 dev eth0"), "link set eth0 up".into(), "link set lo up".into()]
            {
                ip(&format!("-n {space} {set}"))?;
            }
        }
        Ok(network)
    }

    /// Returns the name of a node's namespace.
    pub fn space(&self, node: usize) -> String {
        format!("{}-{node}", self.name)
    }

    /// Returns the address of a node.
    pub fn address(&self, node: usize) -> String {
        format!("{SUBNET}.{}", 10 + node)
    }

    /// Drops all packets from one node to another.
    ///
    /// # Errors
    /// If a command fails, with what it printed.
    pub fn cut(&self, from: usize, to: usize) -> Result<()> {
        self.filter(from, &format!("ip daddr {} drop", self.address(to)))
    }

    /// Answers the packets of all connections from one node to another with a reset.
    ///
    /// # Errors
    /// If a command fails, with what it printed.
    pub fn reset(&self, from: usize, to: usize) -> Result<()> {
        self.filter(from, &format!("ip daddr {} ip protocol tcp reject with tcp reset", self.address(to)))
    }

    fn filter(&self, node: usize, rule: &str) -> Result<()> {
        let rules = format!(
            "add table inet test; add chain inet test out {{ type filter hook output priority 0; }}; \
             add rule inet test out {rule}"
        );
        in_space(&self.space(node), &["nft", &rules])
    }

    /// Lets all packets through again.
    ///
    /// # Errors
    /// If a command fails, with what it printed.
    pub fn heal(&self) -> Result<()> {
        (0..3).try_for_each(|node| in_space(&self.space(node), &["nft", "flush ruleset"]))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for node in 0..3 {
            let _ = ip(&format!("link delete {}", self.space(node)));
            let _ = ip(&format!("netns delete {}", self.space(node)));
        }
        let _ = ip(&format!("link delete {}", self.name));
    }
}

/// Returns a command that runs a program in a namespace, with the same arguments and environment.
pub fn within(space: &str, program: &Command) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", space]).arg(program.get_program()).args(program.get_args());
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command
}

fn in_space(space: &str, program: &[&str]) -> Result<()> {
    succeed(Command::new("ip").args(["netns", "exec", space]).args(program))
}

fn ip(arguments: &str) -> Result<()> {
    succeed(Command::new("ip").args(arguments.split(' ')))
}

fn succeed(command: &mut Command) -> Result<()> {
    let (status, output) = run(command, PATIENCE)?;
    ensure!(status.success(), "{command:?}: {output}");
    Ok(())
}

/// The first three parts of all addresses.
const SUBNET: &str = "10.213.77";

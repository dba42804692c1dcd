//! The unmodified clients of `e2e/clients`, each a program with the same command line.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::process::Process;
use crate::programs;

const LIMIT: Duration = Duration::from_secs(180);
const INSTALLER: &str = "e2e/install/clients";

#[derive(Clone, Copy, Debug)]
pub enum Client {
    Pika,
    Amqplib,
    Amqp091Go,
    Lapin,
}

impl Client {
    pub const ALL: [Self; 4] = [Self::Pika, Self::Amqplib, Self::Amqp091Go, Self::Lapin];

    /// The program, ready for `--url ... SCENARIO`.
    pub fn command(self) -> Result<Command> {
        let scripts = programs::root().join("e2e/clients");
        Ok(match self {
            Self::Pika => {
                let mut command = Command::new("python3");
                command.arg("-B").arg(scripts.join("python/client.py"));
                command.env("PYTHONPATH", programs::tool("python", INSTALLER)?);
                command
            }
            Self::Amqplib => {
                let mut command = Command::new(programs::runtime("node")?);
                command.arg(scripts.join("node/client.js"));
                command.env("NODE_PATH", programs::tool("node/node_modules", INSTALLER)?);
                command
            }
            Self::Amqp091Go => Command::new(programs::tool("go-clients/client", INSTALLER)?),
            Self::Lapin => Command::new(programs::beside("lapin-client")?),
        })
    }

    pub fn start(self, url: &str, arguments: &[&str]) -> Result<Process> {
        Process::start(self.command()?.arg("--url").arg(url).args(arguments))
    }

    /// Runs it to its end; an error, with what it printed, unless every check passed.
    pub fn run(self, url: &str, arguments: &[&str]) -> Result<Report> {
        let mut process = self.start(url, arguments)?;
        let status = process.wait(LIMIT)?;
        let report =
            Report::parse(&process.output()).with_context(|| format!("{self:?} {arguments:?} ended with {status}"))?;
        ensure!(
            status.success() && report.failures.is_empty(),
            "{self:?} {arguments:?} ended with {status}:\n{}",
            report.failures.join("\n")
        );
        Ok(report)
    }
}

/// What a client printed: which checks passed, and the lines of those that did not.
#[derive(Debug)]
pub struct Report {
    pub passed: Vec<String>,
    pub failures: Vec<String>,
}

impl Report {
    fn parse(output: &str) -> Result<Self> {
        let passed: Vec<_> = output.lines().filter_map(|line| line.strip_prefix("ok ")).map(str::to_owned).collect();
        let failures: Vec<_> = output.lines().filter(|line| line.starts_with("FAIL ")).map(str::to_owned).collect();
        let sum = format!("{} passed, {} failed", passed.len(), failures.len());
        ensure!(output.lines().last() == Some(sum.as_str()), "the last line is not the sum {sum:?}:\n{output}");
        Ok(Self { passed, failures })
    }
}
